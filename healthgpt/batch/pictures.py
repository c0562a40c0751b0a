"""Images of the next batches, read by other processes while the model works on this one."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Self

from PIL import Image

from healthgpt.batch.batches import Batch
from healthgpt.batch.questions import Question
from healthgpt.batch.reading import read_pictures
from healthgpt.child_processes import belong_to_parent, without_interrupts


@dataclass(frozen=True)
class Failure:
    """Why there is no answer, in one line."""

    reason: str


Pictures = list[Image.Image] | Failure
Reading = Future[list[Image.Image]]


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split()) or type(error).__name__


def pictures_of(question: Question) -> Pictures:
    """A question's pictures, or why there are none."""
    try:
        return read_pictures(question.images, question.view)
    except (ValueError, OSError, MemoryError) as error:
        return Failure(one_line(error))


class PictureReader:
    """Processes that read images ahead; with none, images are read when their turn comes."""

    def __init__(self, num_processes: int):
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None
        self._alone: ProcessPoolExecutor | None = None  # one process, for what was lost with another

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in (self._pool, self._alone):
            if pool:
                pool.shutdown(wait=True, cancel_futures=True)
        self._pool = self._alone = None

    def ahead(self, batches: Iterable[Batch], most: int) -> Iterator[tuple[Batch, list[Pictures]]]:
        """Batches with their pictures, in order.

        Args:
            most: batches that are read, or being read, before they are asked for.
        """
        waiting: deque[tuple[Batch, list[Reading | None]]] = deque()
        for batch in batches:
            waiting.append((batch, [self._start(question) for question in batch.questions]))
            if len(waiting) > most:
                yield self._finished(*waiting.popleft())
        while waiting:
            yield self._finished(*waiting.popleft())

    def _start(self, question: Question) -> Reading | None:
        if not self._num_processes or not question.images:
            return None
        try:
            self._pool = self._pool or _pool_of(self._num_processes)
            return _submit(self._pool, question)
        except BrokenProcessPool:
            self._pool = _pool_of(self._num_processes)
            return _submit(self._pool, question)

    def _finished(self, batch: Batch, futures: Sequence[Reading | None]) -> tuple[Batch, list[Pictures]]:
        pictures = [self._result(*pair) for pair in zip(batch.questions, futures, strict=True)]
        return batch, pictures

    def _result(self, question: Question, future: Reading | None) -> Pictures:
        """A question's pictures; where the process died, read once more, as another image may have killed it."""
        if future is None:
            return pictures_of(question)
        try:
            try:
                return future.result()
            except BrokenProcessPool:
                self._alone = self._alone or _pool_of(1)
                return _submit(self._alone, question).result()
        except BrokenProcessPool:
            self._alone = None
            return Failure("the process that read its images was killed, twice")
        except (ValueError, OSError, MemoryError) as error:
            return Failure(one_line(error))


def _pool_of(num_processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # the model's threads and GPU do not survive a fork
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=belong_to_parent)


def _submit(pool: ProcessPoolExecutor, question: Question) -> Reading:
    with without_interrupts():  # as it may start the processes
        return pool.submit(read_pictures, question.images, question.view)
