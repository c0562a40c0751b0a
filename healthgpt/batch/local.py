"""Work on this machine: images read ahead by some processes, models in this process or in several others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from healthgpt.batch.batches import Batch
from healthgpt.batch.pictures import PictureReader
from healthgpt.batch.processes import run_in_processes
from healthgpt.batch.questions import Question
from healthgpt.batch.reading import Failure, Pictures
from healthgpt.batch.worker import MakeWorker, Result
from healthgpt.exchange import Request

_READ_AHEAD = 2  # batches per process that works on them
Worked = tuple[Batch, list[Result]]


def work_here(batches: Iterable[Batch], *, makers: Sequence[MakeWorker], num_readers: int) -> Iterator[Worked]:
    """Results of batches, in no order.

    Args:
        makers: make the workers; one works in this process, several in one each.
        num_readers: processes that read images.

    Raises:
        ValueError, OSError: a model cannot be loaded.
    """
    with PictureReader(num_readers) as reader:
        yield from worked(reader.ahead(batches, _READ_AHEAD * len(makers)), makers)


def worked(seen: Iterable[tuple[Batch, list[Pictures]]], makers: Sequence[MakeWorker]) -> Iterator[Worked]:
    """Results of batches whose images were read; what could not be read never reaches a worker."""
    unreadable: list[Worked] = []

    def readable() -> Iterator[tuple[Batch, list[Request]]]:
        for batch, pictures in seen:
            good, requests, bad = separated(batch, pictures)
            if bad:
                unreadable.append(bad)
            if requests:
                yield good, requests

    if len(makers) > 1:
        results = run_in_processes(readable(), makers)
    else:
        worker = makers[0]()
        results = ((batch, worker.run(requests)) for batch, requests in readable())
    for result in results:
        yield result
        while unreadable:
            yield unreadable.pop()
    yield from unreadable


def separated(batch: Batch, pictures: Sequence[Pictures]) -> tuple[Batch, list[Request], Worked | None]:
    """What can be asked, as a batch and its requests, and what cannot be read, as results."""
    good = [i for i, found in enumerate(pictures) if not isinstance(found, Failure)]
    failures: list[Result] = [found for found in pictures if isinstance(found, Failure)]
    bad = [i for i, found in enumerate(pictures) if isinstance(found, Failure)]
    requests = [_request(batch.questions[i], pictures[i]) for i in good]
    return batch.only(good), requests, (batch.only(bad), failures) if bad else None


def _request(question: Question, pictures: Any) -> Request:
    return Request(task=question.task, question=question.text, images=pictures, history=question.history)
