"""Work on a Ray cluster: images are read and models run where there is room; what a lost node had is done elsewhere.

Ray Data moves the batches, starts the workers and replaces those that die. Every machine needs this package, the model
and the images at the same paths.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from healthgpt.batch.batches import Batch
from healthgpt.batch.local import Worked, separated
from healthgpt.batch.pictures import pictures_of_batch
from healthgpt.batch.worker import MakeWorker, Worker

# Batches that are handed to Ray together: the driver holds no more of them, and workers load their model once for them.
_AT_ONCE = 4096
_THREADS = ("StreamingExecutor", "iter_threaded", "ray-data")  # how Ray Data names those that ask Ray by themselves
Row = dict[str, Any]


class Answering:
    """A worker as Ray Data's actors hold it.

    An error is a result: raised here, it would make Ray start the actor again and again, and print its trace.
    """

    def __init__(self, make: MakeWorker, folder: str):
        os.chdir(folder)
        self._worker: Worker | None = None
        self._error: Exception | None = None
        try:
            self._worker = make()
        except Exception as error:
            self._error = _portable(error)

    def __call__(self, row: Row) -> Row:
        """A batch with its pictures -> the batch with its results, or what went wrong."""
        if self._worker is None:
            return {"worked": pickle.dumps(self._error)}
        batch, pictures = pickle.loads(row["seen"])
        good, requests, bad = separated(batch, pictures)
        try:
            return {"worked": pickle.dumps([(good, self._worker.run(requests)), *([bad] if bad else [])])}
        except Exception as error:
            return {"worked": pickle.dumps(_portable(error))}


def _portable(error: Exception) -> Exception:
    """An error that can be raised elsewhere: a mistake of the user's as it is, others with their trace."""
    if isinstance(error, ValueError | OSError):
        return error
    return RuntimeError(f"{error}\n{traceback.format_exc()}")


def with_pictures(row: Row, folder: str) -> Row:
    """A batch -> the batch with its pictures, whose relative paths start from a folder."""
    os.chdir(folder)
    batch: Batch = pickle.loads(row["batch"])
    return {"seen": pickle.dumps((batch, pictures_of_batch(batch)))}


def work_on_ray(
    batches: Iterable[Batch],
    *,
    address: str,
    make: MakeWorker,
    num_workers: int,
    on_gpu: bool,
) -> Iterator[Worked]:
    """Results of batches, in no order.

    Args:
        address: of the cluster (`host:port`, `auto`), or `local` for one on this machine.
        make: makes a worker, anywhere.
        num_workers: models at work at the same time.
        on_gpu: each has a GPU, where the cluster has any.

    Raises:
        ValueError, OSError: Ray is not installed; a model cannot be loaded. ConnectionError: there is no such cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise ValueError("work on a cluster needs Ray: pip install 'healthgpt[cluster]'") from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    logging.getLogger("ray").setLevel(logging.WARNING)
    if not ray.is_initialized():
        ray.init(address=None if address == "local" else address, log_to_driver=False, logging_level=logging.ERROR)
    gpus = int(on_gpu and ray.cluster_resources().get("GPU", 0) >= 1)
    folder = os.getcwd()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.execution_options.preserve_order = False
    try:
        coming = iter(batches)
        while together := list(islice(coming, _AT_ONCE)):
            rows = [{"batch": pickle.dumps(batch)} for batch in together]
            # A block each, so that results come as soon as they are there.
            answered = (
                ray.data.from_items(rows, override_num_blocks=len(rows))
                .map(with_pictures, fn_kwargs={"folder": folder}, num_cpus=1)
                .map(
                    Answering,
                    fn_constructor_args=(make, folder),
                    compute=ray.data.ActorPoolStrategy(size=num_workers),
                    num_gpus=gpus,
                    num_cpus=1 - gpus,
                )
            )
            with closing(iter(answered.iter_rows())) as rows_done:
                for row in rows_done:
                    worked = pickle.loads(row["worked"])
                    if isinstance(worked, Exception):
                        raise worked
                    yield from ((batch, results) for batch, results in worked if len(batch))
    finally:
        _await_threads()
        ray.shutdown()


def _await_threads(seconds: float = 30) -> None:
    """Waits for what Ray Data does in the background: asking Ray after its end, it would end the process unasked."""
    end = time.monotonic() + seconds
    for thread in threading.enumerate():
        if thread.name.startswith(_THREADS):
            thread.join(max(end - time.monotonic(), 0))
