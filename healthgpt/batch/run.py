"""A batch: every question that has no answer yet is answered, and every answer is on the disk before the next ones."""

from __future__ import annotations

import functools
import hashlib
import re
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, Self

import numpy as np

from healthgpt.batch.answer_file import AnswerFile, bytes_of
from healthgpt.batch.batches import Batch, batches_of
from healthgpt.batch.questions import Question, Questions
from healthgpt.batch.reading import Failure
from healthgpt.batch.worker import Result
from healthgpt.exchange import Answer
from healthgpt.images import save_image

# More digits would tell which questions ran together: padding changes the sixth (float32), so that an interrupted run's
# file would differ from a whole one's.
_CONFIDENCE_DIGITS = 3
_SAVERS = 4  # threads that save pictures, each of which waits for the disk
Work = Callable[[Iterator[Batch]], Iterator[tuple[Batch, list[Result]]]]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is; `done` and `failed` count what this run did."""

    done: int
    failed: int
    total: int


class Interrupt:
    """Turns the first Ctrl-C (or SIGTERM) into a wish to stop after the batch that is at work; the next one ends it.

    Attributes:
        signal: the one that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number


def to_do(answers: AnswerFile, *, retry_failed: bool = False, chunk: slice = slice(None)) -> np.ndarray:
    """Which questions a run has to answer, as booleans.

    Args:
        chunk: the part of all questions that is this run's.
    """
    wanted = ~answers.done
    if retry_failed:
        wanted |= answers.failed
    mine = np.zeros_like(wanted)
    mine[chunk] = True
    return wanted & mine


def run_batch(
    questions: Questions,
    answers: AnswerFile,
    work: Work,
    *,
    todo: np.ndarray,
    batch_size: int,
    drawings: Path,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Progress]:
    """Answers questions; yields after each batch, whose answers are on the disk then.

    Args:
        work: turns batches into their results, in any order: `local.work_here`, `ray_cluster.work_on_ray`.
        todo: which questions, as booleans.
        drawings: folder of the images that are drawn.
        stop: asked after each batch.

    Raises:
        OSError: the disk is full. ValueError: the questions change meanwhile.
    """
    done = failed = 0
    total = int(todo.sum())
    if not total:
        return
    end = int(np.flatnonzero(todo)[-1]) + 1
    pending = ((place, question) for place, question in enumerate(islice(questions, end)) if todo[place])
    stopped = False
    with _Writing(answers, drawings) as writing:
        for batch, results in work(batches_of(pending, batch_size)):
            writing.add(batch, results)
            stopped = stop()
            for count, errors in writing.written(but=0 if stopped else 1):
                done, failed = done + count, failed + errors
                yield Progress(done=done, failed=failed, total=total)
            if stopped:
                return
        for count, errors in writing.written(but=0):
            done, failed = done + count, failed + errors
            yield Progress(done=done, failed=failed, total=total)
    if done < total:
        raise ValueError(f"{questions.source}: {total - done} of its questions are gone since the beginning")


class _Writing:
    """Answers on their way to the disk, while the next batch is at work."""

    def __init__(self, answers: AnswerFile, drawings: Path):
        self._answers, self._drawings = answers, drawings
        self._savers, self._writer = ThreadPoolExecutor(_SAVERS), ThreadPoolExecutor(1)
        self._waiting: deque[Future[tuple[int, int]]] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.shutdown()
        self._savers.shutdown()

    def add(self, batch: Batch, results: list[Result]) -> None:
        """Begins to write the results of a batch."""
        self._waiting.append(self._writer.submit(self._write, batch, results))

    def written(self, *, but: int) -> Iterator[tuple[int, int]]:
        """Answers and failures of each batch that is on the disk, once no more than so many are not."""
        while self._waiting and (len(self._waiting) > but or self._waiting[0].done()):
            yield self._waiting.popleft().result()

    def _write(self, batch: Batch, results: list[Result]) -> tuple[int, int]:
        self._answers.refuse_others(batch.questions, batch.places)
        record = functools.partial(_record, self._answers, self._drawings)
        records = list(zip(batch.places, self._savers.map(record, batch.questions, results), strict=True))
        self._answers.add(records)
        return len(records), sum("error" in record for _, record in records)


def _record(answers: AnswerFile, drawings: Path, question: Question, result: Result) -> dict[str, Any]:
    """What is written of a result; a drawing's picture is on the disk before its record."""
    if isinstance(result, Failure):
        return answers.answer(question, "", error=result.reason)
    metadata: dict[str, Any] = {"tokens": len(result.token_ids)}
    if isinstance(result, Answer):
        if result.confidence is not None:
            metadata["confidence"] = round(result.confidence, _CONFIDENCE_DIGITS)
        return answers.answer(question, result.text, metadata=metadata)
    drawings.mkdir(parents=True, exist_ok=True)
    path = drawings / f"{file_name(question.id)}.png"
    save_image(result.image, path)
    shown = path.relative_to(answers.path.parent) if path.is_relative_to(answers.path.parent) else path.resolve()
    return answers.answer(question, "", image=str(shown), metadata=metadata)


def file_name(question_id: str | int) -> str:
    """A name for a question's files: its id where that is one, else with a hash that keeps it unique."""
    text = str(question_id)
    plain = re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)[:80].lstrip(".")
    if plain == text:
        return text
    return f"{plain}-{hashlib.sha256(bytes_of(text)).hexdigest()[:10]}"
