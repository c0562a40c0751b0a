"""The worst of a run, with its images: wrong answers, most confident first, and drawings least like their truths."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.batch.questions import Question, Questions
from healthgpt.batch.reading import Failure, pictures_of
from healthgpt.evaluation.comparison import Finished
from healthgpt.evaluation.drawings import at_size
from healthgpt.evaluation.pictures import Picture
from healthgpt.evaluation.runs import QUESTIONS_NAME
from healthgpt.images import read_image

MOST_ANSWERS = 12
MOST_DRAWINGS = 6


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a question came with.

    Attributes:
        image: the first one; None where there is none, or where it cannot be read.
        missing: why it cannot.
        num_images: how many there are.
    """

    image: Image.Image | None = None
    missing: str | None = None
    num_images: int = 0


@dataclass(frozen=True, kw_only=True)
class WrongAnswer:
    """An answer that is not right.

    Attributes:
        confidence: of its first token, from 0 to 1, where the run noted it.
    """

    id: str
    given: Given
    question: str
    truth: str
    answer: str
    confidence: float | None


@dataclass(frozen=True, kw_only=True)
class BadDrawing:
    """A drawing beside its truth, both (S, S, 3) or (S, S)."""

    id: str
    given: Given
    instruction: str
    drawn: Picture
    truth: Picture
    ssim: float


def wrong_answers(run: Finished, benchmark: str, most: int = MOST_ANSWERS) -> list[WrongAnswer]:
    """Wrong answers, most confident first, else in order; questions that failed have none."""
    wrong = [s for s in run.samples(benchmark) if s["scores"].get("right") == 0 and "error" not in s]
    wrong = sorted(wrong, key=lambda sample: -sample.get("confidence", 0.0))[:most]
    given = _given(run, benchmark, wrong)
    return [
        WrongAnswer(
            id=str(sample["id"]),
            given=given[str(sample["id"])],
            question=sample["prompt"],
            truth=_in_words(sample),
            answer=sample["answer"],
            confidence=sample.get("confidence"),
        )
        for sample in wrong
    ]


def bad_drawings(run: Finished, benchmark: str, most: int = MOST_DRAWINGS) -> list[BadDrawing]:
    """Drawings of the lowest SSIM, lowest first.

    Raises:
        FileNotFoundError, ValueError: a drawing or its truth cannot be read any more.
    """
    drawn = [s for s in run.samples(benchmark) if "ssim" in s["scores"]]
    drawn = sorted(drawn, key=lambda sample: sample["scores"]["ssim"])[:most]
    given = _given(run, benchmark, drawn)
    folder = run.folders[benchmark]
    return [_drawing(folder, sample, given[str(sample["id"])]) for sample in drawn]


def _drawing(folder: Path, sample: Mapping[str, Any], given: Given) -> BadDrawing:
    drawn = np.asarray(read_image(folder / sample["answer"]))
    return BadDrawing(
        id=str(sample["id"]),
        given=given,
        instruction=sample["prompt"],
        drawn=drawn,
        truth=at_size(read_image(folder / sample["truth"]), drawn, Image.Resampling.LANCZOS),
        ssim=sample["scores"]["ssim"],
    )


def _given(run: Finished, benchmark: str, samples: Iterable[Mapping[str, Any]]) -> dict[str, Given]:
    """What samples were asked with, by their ids, seen as the run saw it (window, slice, plane)."""
    wanted = {str(sample["id"]) for sample in samples}
    look = run.results[benchmark].get("run", {}).get("look") or {}
    found: dict[str, Given] = {}
    if not wanted:
        return found
    for question in Questions(source=run.folders[benchmark] / QUESTIONS_NAME, look=look):
        if str(question.id) in wanted:
            found[str(question.id)] = _seen(question)
        if len(found) == len(wanted):
            break
    return {name: found.get(name, Given(missing="its question is gone")) for name in wanted}


def _seen(question: Question) -> Given:
    if not question.images:
        return Given()
    pictures = pictures_of((question.images, question.view))
    if isinstance(pictures, Failure):
        return Given(missing=pictures.reason, num_images=len(question.images))
    return Given(image=pictures[0], num_images=len(pictures))


def _in_words(sample: Mapping[str, Any]) -> str:
    """The truth; of multiple choice, its letter and text."""
    options = sample["facts"].get("options") or {}
    truth = str(sample["truth"])
    return f"{truth}. {options[truth]}" if truth in options else truth
