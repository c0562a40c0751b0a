"""Questions about phantoms with their true answers, of the kinds that VQA-RAD and SLAKE ask.

A closed question names its possible answers (yes or no, or a choice); an open one does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.reports import plural, report
from healthgpt.data.phantoms.subjects import COUNTABLE, FINDINGS, MODALITIES, ORGANS, PLANES


class Kind(StrEnum):
    """What a question is about; the values name records files."""

    MODALITY = "modality"
    ORGAN = "organ"
    PLANE = "plane"
    NORMAL = "normal"
    LESION = "lesion"
    FINDING = "finding"
    SIDE = "side"
    SIZE = "size"
    COUNT = "count"
    REPORT = "report"


@dataclass(frozen=True)
class Question:
    """One question; `closed` where it names its possible answers."""

    kind: Kind
    text: str
    answer: str
    closed: bool


def ask(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    """One or two questions of every kind that makes sense for one image of a phantom, in varied wordings."""
    makers = (_modality, _organ, _plane, _normal, _lesion, _finding, _side, _size, _count, _report)
    return [question for make in makers for question in make(phantom, modality, rng)]


def _pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _yes_no(true: bool) -> str:
    return "Yes" if true else "No"


def _truth_or_other(rng: np.random.Generator, truth: str, others: Sequence[str]) -> str:
    """The truth half of the time, else another one."""
    wrong = [other for other in others if other != truth]
    return truth if not wrong or rng.random() < 0.5 else _pick(rng, wrong)


def _named(rng: np.random.Generator, kind: Kind, truth: str, others: Sequence[str], open_texts: Sequence[str],
           closed_text: str, choice_text: str) -> list[Question]:  # fmt: skip
    """An open question for a name, and a closed one: yes or no, or a choice of two."""
    questions = [Question(kind, _pick(rng, open_texts), truth, closed=False)]
    if rng.random() < 0.5:
        asked = _truth_or_other(rng, truth, others)
        questions.append(Question(kind, closed_text.format(asked), _yes_no(asked == truth), closed=True))
    else:
        wrong = _pick(rng, [other for other in others if other != truth])
        pair = (truth, wrong) if rng.random() < 0.5 else (wrong, truth)
        questions.append(Question(kind, choice_text.format(*pair), truth, closed=True))
    return questions


def _modality(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    texts = (
        "What imaging modality is this?",
        "Which modality was used to take this image?",
        "How was this image taken?",
        "What kind of image is this?",
    )
    return _named(
        rng, Kind.MODALITY, modality, MODALITIES, texts, "Was this image taken by {}?", "Is this image {} or {}?"
    )


def _organ(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    texts = (
        "What organ is shown in this image?",
        "Which part of the body is this?",
        "What part of the body does the image show?",
    )
    return _named(
        rng, Kind.ORGAN, phantom.organ, ORGANS, texts, "Does this image show the {}?", "Does it show the {} or the {}?"
    )


def _plane(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    if phantom.plane is None:
        return []
    texts = ("In which plane is this image?", "What is the plane of this image?")
    return _named(
        rng, Kind.PLANE, phantom.plane, PLANES, texts, "Is this an image in the {} plane?", "Is the plane {} or {}?"
    )


def _normal(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    healthy = phantom.finding is None
    if rng.random() < 0.5:
        text = _pick(rng, ("Is this image normal?", "Does this image look normal?", "Is the patient healthy?"))
        return [Question(Kind.NORMAL, text, _yes_no(healthy), closed=True)]
    text = _pick(rng, ("Is there any abnormality?", "Is anything abnormal seen in this image?"))
    return [Question(Kind.NORMAL, text, _yes_no(not healthy), closed=True)]


def _lesion(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    names = FINDINGS[phantom.organ, phantom.subject]
    truth = phantom.finding.name if phantom.finding else ""
    asked = _truth_or_other(rng, truth, names) if truth else _pick(rng, names)
    texts = ("Is there evidence of {}?", "Does the image show {}?", "Is {} seen in this image?")
    what = asked if asked == "cardiomegaly" or len(names) == 1 or rng.random() < 0.7 else f"any {asked}"
    return [Question(Kind.LESION, _pick(rng, texts).format(what), _yes_no(asked == truth), closed=True)]


def _finding(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    texts = (
        "What abnormality is seen in this image?",
        "What is the finding?",
        "What is wrong with this patient?",
        "What is the diagnosis?",
    )
    answer = phantom.finding.name if phantom.finding else "No abnormality"
    return [Question(Kind.FINDING, _pick(rng, texts), answer, closed=False)]


def _side(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    if "eye" in phantom.facts:
        eye = phantom.facts["eye"]
        if rng.random() < 0.5:
            return [Question(Kind.SIDE, "Is this the left or the right eye?", eye, closed=True)]
        asked = _truth_or_other(rng, eye, ("left", "right"))
        return [Question(Kind.SIDE, f"Is this the {asked} eye?", _yes_no(asked == eye), closed=True)]
    finding = phantom.finding
    if finding is None or finding.side is None:
        return []
    name = finding.name if finding.count == 1 else plural(finding.name)
    if rng.random() < 0.6:
        verb = "Is" if finding.count == 1 else "Are"
        text = f"{verb} the {name} on the left side, the right side or both?"
        return [Question(Kind.SIDE, text, finding.side, closed=True)]
    asked = _pick(rng, ("left", "right"))
    text = f"Is there {finding.name} on the {asked} side?"
    return [Question(Kind.SIDE, text, _yes_no(finding.side in (asked, "both")), closed=True)]


def _size(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    finding = phantom.finding
    if finding is None or finding.size is None:
        return []
    if rng.random() < 0.6:
        verb, name = ("Is", finding.name) if finding.count == 1 else ("Are", plural(finding.name))
        return [Question(Kind.SIZE, f"{verb} the {name} small or large?", finding.size, closed=True)]
    asked = _pick(rng, ("small", "large"))
    return [Question(Kind.SIZE, f"Is the {finding.name} {asked}?", _yes_no(asked == finding.size), closed=True)]


def _count(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    if "white cells" in phantom.facts:
        text = _pick(rng, ("How many white blood cells are there?", "How many white cells does the image show?"))
        return [Question(Kind.COUNT, text, phantom.facts["white cells"], closed=False)]
    names = COUNTABLE.get((phantom.organ, phantom.subject), ())
    if not names:
        return []
    finding = phantom.finding
    present = finding is not None and finding.name in names
    asked = finding.name if finding is not None and present else _pick(rng, names)
    if not present and rng.random() < 0.6:  # zeros are easy, and would be most of the answers
        return []
    count = finding.count if finding is not None and present else 0
    texts = ("How many {} are there?", "How many {} does the image show?")
    return [Question(Kind.COUNT, _pick(rng, texts).format(plural(asked)), str(count), closed=False)]


def _report(phantom: Phantom, modality: str, rng: np.random.Generator) -> list[Question]:
    texts = (
        "Write a report of this image.",
        "Describe this image.",
        "Describe the findings in this image.",
        "Please report what the image shows.",
    )
    return [Question(Kind.REPORT, _pick(rng, texts), report(phantom, modality), closed=False)]
