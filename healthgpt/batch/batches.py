"""Questions put together so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from healthgpt.batch.questions import Question
from healthgpt.tasks import Task

_SORTED_AT_ONCE = 16  # batches
_TEXT_STEP = 200  # letters, about 50 tokens: little beside an image's hundreds


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Questions of one task, and their positions among all questions."""

    places: tuple[int, ...]
    questions: tuple[Question, ...]

    @property
    def task(self) -> Task:
        return self.questions[0].task

    def __len__(self) -> int:
        return len(self.questions)

    def only(self, which: Sequence[int]) -> Batch:
        """Some of its questions."""
        return Batch(places=tuple(self.places[i] for i in which), questions=tuple(self.questions[i] for i in which))

    def parts(self, size: int) -> list[Batch]:
        """The batch cut into batches of at most so many questions."""
        starts = range(0, len(self), size)
        return [Batch(places=self.places[i : i + size], questions=self.questions[i : i + size]) for i in starts]


def batches_of(pending: Iterable[tuple[int, Question]], size: int) -> Iterator[Batch]:
    """Batches of questions of about one length, those about one image together, out of so many as come together."""
    iterator = iter(pending)
    while window := list(islice(iterator, size * _SORTED_AT_ONCE)):
        # Those about an image come where its first one comes, as the model reads an image once for all in a batch.
        seen = {question.images: place for place, question in reversed(window)}
        for task in Task:
            here = [entry for entry in window if entry[1].task is task]
            here.sort(key=lambda entry: (*_length(entry[1]), seen[entry[1].images], len(entry[1].text)))
            if here:
                places, questions = zip(*here, strict=True)
                yield from Batch(places=places, questions=questions).parts(size)


def _length(question: Question) -> tuple[int, int]:
    """About how long a prompt is, texts of less than a step being alike; images count for more than any text."""
    text = len(question.text) + sum(len(asked) + len(answered) for asked, answered in question.history)
    return len(question.images), text // _TEXT_STEP
