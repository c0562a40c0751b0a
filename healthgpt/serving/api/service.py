"""What one server is made of: its models, the desks in front of them, and the processes that read images."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from PIL import Image

from healthgpt.exchange import Request
from healthgpt.pipeline import HealthGPT
from healthgpt.serving.api.conversation import ImageInput, RemoteImage
from healthgpt.serving.api.desk import Desk, Job, Result
from healthgpt.serving.api.errors import ApiError, late
from healthgpt.serving.api.image_readers import ImageFile, ImageReaders
from healthgpt.serving.api.keys import Keys
from healthgpt.serving.api.limits import Limits
from healthgpt.serving.api.logs import Trace
from healthgpt.serving.api.metrics import Metrics
from healthgpt.serving.api.protocol import MOST_CHOICES
from healthgpt.serving.api.remote import RemoteImages
from healthgpt.serving.residents import Residents


class Service:
    """The state that all requests of a server share.

    Args:
        keys: without any, every request is taken.
        remote: fetches images of the web; None fetches none.
        hosts: that clients may call the server by; None is any.
        threads: cores that a model on the CPU computes on; None is all but one, as the rest of the server needs one
            too: where a core is missing, all others wait for it.

    Attributes:
        created: when it began, in seconds since 1970.
        draining: it finishes what it has and takes nothing new.
        in_flight: requests at work. bodies: bytes of their bodies.
    """

    def __init__(
        self,
        residents: Residents,
        *,
        limits: Limits = Limits(),
        keys: Keys = Keys(),
        remote: RemoteImages | None = None,
        hosts: Sequence[str] | None = None,
        threads: int | None = None,
    ):
        self.limits, self.keys, self.hosts = limits, keys, hosts
        self.created = int(time.time())
        self.draining = False
        self.in_flight = self.bodies = 0
        self.metrics = Metrics(
            {
                "requests_in_flight": ("Requests at work, waiting ones included.", lambda: self.in_flight),
                "queue_length": ("Jobs that wait for a model.", lambda: sum(map(len, self._desks.values()))),
                "jobs_running": ("Jobs that run.", lambda: sum(desk.running for desk in self._desks.values())),
                "body_bytes": ("Bytes of the bodies of requests at work.", lambda: self.bodies),
                "ready": ("Whether requests are taken.", lambda: float(self.ready)),
            }
        )
        self.residents = residents
        self._threads = threads or _threads()
        self._desks: dict[str, Desk] = {}
        self._readers = ImageReaders(limits, ended=self.metrics.image_workers_ended.inc)
        self._reading = ThreadPoolExecutor(limits.image_workers, "healthgpt-images")
        self._remote = remote or RemoteImages((), most=limits.body_bytes, seconds=limits.image_seconds)

    def start(self) -> None:
        """Loads the models and starts the processes; takes as long as that.

        Raises:
            ValueError, OSError: a model cannot be loaded, or a process cannot be started.
        """
        self._readers.start()
        waiting = self.limits.max_requests * MOST_CHOICES
        self._desks = {
            name: Desk(
                name,
                self.residents.get(name),
                most_waiting=waiting,
                most_together=self.limits.max_batch,
                metrics=self.metrics,
                threads=self._threads,
            )
            for name in self.residents.names
        }

    def close(self) -> None:
        """Ends everything that it started; nothing runs after it."""
        self.draining = True
        for desk in self._desks.values():
            desk.close()
        self._readers.close()
        self._reading.shutdown(wait=False, cancel_futures=True)

    @property
    def loaded(self) -> bool:
        return bool(self._desks)

    @property
    def ready(self) -> bool:
        return self.loaded and not self.draining

    @property
    def healthy(self) -> bool:
        """Whether it can go on; else it has to be started again."""
        return all(desk.alive for desk in self._desks.values())

    def model(self, name: str | None) -> tuple[str, HealthGPT]:
        """A model and its id.

        Raises:
            ApiError: there is none of that name.
        """
        try:
            name = self.residents.known(name)
        except ValueError as error:
            raise ApiError(404, str(error), code="model_not_found", param="model") from None
        return name, self.residents.get(name)

    async def see(self, images: Sequence[ImageInput], model: HealthGPT, trace: Trace) -> list[Image.Image]:
        """Images as the model sees them, read by other processes.

        Raises:
            ApiError: one cannot be read, or not in the request's time.
        """
        if not images:
            return []
        work = asyncio.get_running_loop().run_in_executor(self._reading, self._see, images, model)
        try:
            async with asyncio.timeout_at(self._deadline(trace)):
                pictures = await work
        except TimeoutError:
            raise late() from None
        except ApiError:
            self.metrics.images.labels("refused").inc(len(images))
            raise
        self.metrics.images.labels("read").inc(len(pictures))
        return pictures

    def _see(self, images: Sequence[ImageInput], model: HealthGPT) -> list[Image.Image]:
        files = [
            ImageFile(data=self._remote.fetch(image.url), view=image.view) if isinstance(image, RemoteImage) else image
            for image in images
        ]
        # At once made as small as the model sees it, so that large images of waiting requests take no memory.
        return [model.seen(picture) for picture in self._readers.read(files)]

    def job(self, request: Request, decoding: Mapping[str, Any], trace: Trace) -> Job:
        """A job of a request, which ends with it."""
        job = Job(request=request, decoding=decoding, deadline=self._deadline(trace))
        trace.at_end.append(job.cancel)
        return job

    def _deadline(self, trace: Trace) -> float:
        return trace.started + self.limits.request_seconds

    async def run(self, name: str, jobs: Sequence[Job]) -> list[Result]:
        """Results of jobs.

        Raises:
            ApiError: the first that one of them ended with.
        """
        self._desks[name].submit(jobs)
        return list(await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs)))

    def submit(self, name: str, jobs: Sequence[Job]) -> None:
        """Puts jobs in line whose results are waited for elsewhere."""
        self._desks[name].submit(jobs)

    def count_tokens(self, name: str, task: str, prompt: int, completion: int) -> None:
        """Adds to the figures."""
        self.metrics.tokens.labels(name, task, "prompt").inc(prompt)
        self.metrics.tokens.labels(name, task, "completion").inc(completion)


def _threads() -> int | None:
    """All cores but one, unless the environment says how many."""
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores - 1)
