"""Images of the next batches, read by other processes while the model works on this one."""

from __future__ import annotations

import atexit
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Self

from healthgpt.batch.batches import Batch
from healthgpt.batch.questions import Question
from healthgpt.batch.reading import Failure, Look, Pictures, pictures_of, pictures_of_each
from healthgpt.child_processes import belong_to_parent, without_interrupts

Reading = Future[list[Pictures]]


def pictures_of_batch(batch: Batch) -> list[Pictures]:
    """Pictures of each question; those of several are read once."""
    read = {look: pictures_of(look) for look in _looks(batch)}
    return [read[_look(question)] for question in batch.questions]


def _look(question: Question) -> Look:
    """What a question's pictures depend on."""
    return question.images, question.view


def _looks(batch: Batch) -> list[Look]:
    """The different ones of a batch."""
    return list(dict.fromkeys(map(_look, batch.questions)))


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
        waiting: deque[tuple[Batch, list[tuple[list[Look], Reading | None]]]] = deque()
        for batch in batches:
            waiting.append((batch, [(looks, self._start(looks)) for looks in self._shares(_looks(batch))]))
            if len(waiting) > most:
                yield self._finished(*waiting.popleft())
        while waiting:
            yield self._finished(*waiting.popleft())

    def _shares(self, looks: list[Look]) -> list[list[Look]]:
        """Looks dealt out to the processes."""
        count = max(self._num_processes, 1)
        return [share for share in (looks[i::count] for i in range(count)) if share]

    def _start(self, looks: Sequence[Look]) -> Reading | None:
        if not self._num_processes or not any(images for images, _ in looks):
            return None
        try:
            self._pool = self._pool or _pool_of(self._num_processes)
            return _submit(self._pool, looks)
        except BrokenProcessPool:
            self._pool = _pool_of(self._num_processes)
            return _submit(self._pool, looks)

    def _finished(
        self, batch: Batch, shares: Sequence[tuple[list[Look], Reading | None]]
    ) -> tuple[Batch, list[Pictures]]:
        read: dict[Look, Pictures] = {}
        for looks, reading in shares:
            read |= zip(looks, self._result(looks, reading), strict=True)
        return batch, [read[_look(question)] for question in batch.questions]

    def _result(self, looks: Sequence[Look], reading: Reading | None) -> list[Pictures]:
        """Pictures of each look; where the process died, read one by one, as one of them may have killed it."""
        if reading is None:
            return pictures_of_each(looks)
        try:
            return reading.result()
        except BrokenProcessPool:
            return [self._alone_again(look) for look in looks]

    def _alone_again(self, look: Look) -> Pictures:
        try:
            self._alone = self._alone or _pool_of(1)
            return _submit(self._alone, [look]).result()[0]
        except BrokenProcessPool:
            self._alone = None
            return Failure("the process that read its images was killed, twice")


def _pool_of(num_processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # the model's threads and GPU do not survive a fork
    return ProcessPoolExecutor(num_processes, mp_context=context, initializer=_begin)


def _begin() -> None:
    """Readies a process; nothing in it has to be tidied up at its end, for which the libraries take a second."""
    belong_to_parent()
    atexit.register(os._exit, 0)


def _submit(pool: ProcessPoolExecutor, looks: Sequence[Look]) -> Reading:
    with without_interrupts():  # as it may start the processes
        return pool.submit(pictures_of_each, looks)
