"""The desk in front of a model: jobs wait in a bounded line, and those that can run together do.

One thread per model runs them, as the model runs one batch after the other anyway. The first in line always runs next;
with it run those behind it of the same task and the same decoding. A job whose client has gone, or whose time is over,
ends at its next token, wherever it is.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from healthgpt.batch.worker import out_of_memory
from healthgpt.exchange import Answer, Drawing, Request
from healthgpt.serving.api.errors import ApiError, late, refused
from healthgpt.serving.api.logs import note
from healthgpt.serving.api.metrics import Metrics
from healthgpt.tasks import Task

Result = Answer | Drawing


class Model(Protocol):
    """What a desk needs of a model; `HealthGPT` is one."""

    def run_batch(
        self,
        requests: Sequence[Request],
        *,
        batch_size: int,
        watch: Sequence[Callable[[int], bool]],
        **decoding: Any,
    ) -> list[Any]: ...


@dataclass(kw_only=True, eq=False)
class Job:
    """A request to a model, and what became of it.

    Attributes:
        decoding: keywords of `Decoding`.
        deadline: on the monotonic clock, after which it is given up.
        token: is told of every token, in the desk's thread; a false answer ends the job as it is.
        future: its result, or an `ApiError`.
        waited: seconds until it ran; ran_with: jobs of its batch.
    """

    request: Request
    decoding: Mapping[str, Any]
    deadline: float
    token: Callable[[int], bool] | None = None
    future: Future[Result] = field(default_factory=Future)
    waited: float = 0.0
    ran_with: int = 0
    _arrived: float = field(default_factory=time.monotonic)
    _told: int = 0
    _gone: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> tuple[Task, frozenset[tuple[str, Any]]]:
        """Jobs of one kind run together."""
        return self.request.task, frozenset(self.decoding.items())

    @property
    def unwanted(self) -> bool:
        return self._gone.is_set()

    @property
    def overdue(self) -> bool:
        return time.monotonic() > self.deadline

    def cancel(self) -> None:
        """Says that nobody waits for it any more."""
        self._gone.set()
        self.future.cancel()

    def begin(self, ran_with: int) -> None:
        """Takes note that it runs now."""
        self.waited, self.ran_with = time.monotonic() - self._arrived, ran_with

    def watch(self, token: int) -> bool:
        """Hears of a token; whether the job shall go on."""
        self._told += 1
        if self.unwanted or self.overdue:
            return False
        return self.token(token) if self.token else True

    @property
    def told(self) -> bool:
        """Whether its client may have seen a part of it, so that it cannot be run again."""
        return self.token is not None and self._told > 0

    def finish(self, result: Result | None) -> None:
        """Gives out a result; None where nobody wanted it."""
        if self.overdue and not self.unwanted:
            self.fail(late())
        elif result is not None and self.future.set_running_or_notify_cancel():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """Gives out an error."""
        if not self.future.done() and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)


class Desk:
    """The line in front of one model, and the thread that works it off.

    Args:
        most_waiting: jobs; most_together: of a batch.
        threads: cores that the model computes on, where it is on the CPU; None leaves that to torch.

    Attributes:
        running: jobs that run now.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        *,
        most_waiting: int,
        most_together: int,
        metrics: Metrics,
        threads: int | None = None,
    ):
        self._threads = threads
        self._name, self._model, self._metrics = name, model, metrics
        self._most_waiting, self._most_together = most_waiting, most_together
        self._line: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.running = 0
        self._thread = threading.Thread(target=self._work, name=f"healthgpt-desk-{name}", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many jobs wait."""
        return len(self._line)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Puts jobs in line, all or none.

        Raises:
            ApiError: the line is full, or the desk is closed.
        """
        with self._changed:
            if self._closed:
                raise ApiError(503, "the server is stopping", code="stopping", retry_after=5)
            if len(self._line) + len(jobs) > self._most_waiting:
                raise ApiError(429, "too many requests wait already", code="busy", retry_after=1)
            self._line.extend(jobs)
            self._changed.notify()

    def close(self) -> None:
        """Lets nobody in any more, sends away who waits, and waits for the batch that runs to end at its next token."""
        with self._changed:
            self._closed = True
            waiting = list(self._line)
            self._line.clear()
            self._changed.notify()
        for job in waiting:
            job.fail(ApiError(503, "the server is stopping", code="stopping", retry_after=5))
        self._thread.join(timeout=5)

    def _work(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)  # of this thread
        while jobs := self._next():
            self.running = len(jobs)
            try:
                self._run(jobs)
            except Exception as error:  # whatever it is, others are to be served after it
                self._give_up(jobs, error)
            self.running = 0

    def _next(self) -> list[Job]:
        """The first in line and those that can run with it; none once the desk is closed."""
        with self._changed:
            while True:
                while not self._line and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return []
                if jobs := self._taken():
                    return jobs

    def _taken(self) -> list[Job]:
        """Takes jobs of the first one's kind out of the line; those whose time is over, or that nobody wants, go."""
        taken: list[Job] = []
        kept: deque[Job] = deque()
        for job in self._line:
            if job.unwanted or job.overdue:
                job.finish(None)
            elif len(taken) < self._most_together and (not taken or job.kind == taken[0].kind):
                taken.append(job)
            else:
                kept.append(job)
        self._line = kept
        return taken

    def _run(self, jobs: Sequence[Job]) -> None:
        """Runs jobs of one kind; where memory runs out in halves, and where one is refused alone."""
        labels = (self._name, str(jobs[0].request.task))
        started = time.monotonic()
        for job in jobs:
            job.begin(len(jobs))
            self._metrics.waited.labels(*labels).observe(job.waited)
        try:
            results = self._model.run_batch(
                [job.request for job in jobs],
                batch_size=len(jobs),
                watch=[job.watch for job in jobs],
                **jobs[0].decoding,
            )
        except ValueError as error:
            if len(jobs) == 1:
                jobs[0].fail(refused(" ".join(str(error).split())))
                return
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            note("out of memory", level=logging.WARNING, jobs=len(jobs))
            if len(jobs) == 1:
                jobs[0].fail(ApiError(503, "there is not enough memory for this request", code="memory", retry_after=5))
                return
        else:
            self._metrics.batches.labels(*labels).observe(len(jobs))
            self._metrics.ran.labels(*labels).observe(time.monotonic() - started)
            for job, result in zip(jobs, results, strict=True):
                job.finish(result)
            return
        # Outside of `except`, as the error's traceback holds on to the tensors of the batch.
        gc.collect()
        self._run_apart(jobs)

    def _run_apart(self, jobs: Sequence[Job]) -> None:
        middle = len(jobs) // 2
        for part in (jobs[:middle], jobs[middle:]):
            again = [job for job in part if not job.told]
            for job in part:
                if job.told:
                    job.fail(ApiError(503, "the answer was interrupted; ask again", code="memory", retry_after=5))
            if again:
                self._run(again)

    def _give_up(self, jobs: Sequence[Job], error: Exception) -> None:
        note("a batch failed", level=logging.ERROR, error=error, model=self._name, task=str(jobs[0].request.task))
        for job in jobs:
            job.fail(error)
