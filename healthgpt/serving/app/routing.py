"""Which task an instruction asks for, by its words: to say something about an image, or to make one.

Rules are tried in order; the first that fits decides, and its words are shown to the user as the reason.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from healthgpt.tasks import Task

_POLITE = r"(?:please|kindly|can you|could you|would you|will you|i need you to|i want you to|help me|to|and|then|now)"
_START = rf"^(?:{_POLITE}[\s,]+)*"
_ASK_FOR = r"(?:i need|i want|i would like|i'd like|give me|get me|let me see|show me|let me have)"
_MAKE = r"(?:generate|create|produce|make|render|predict|simulate|imagine|compute|provide|prepare)"
_NO_PREPOSITION = r"(?:(?!(?:from|of|for|to|by|with|in|into|as|on|that|about|based)\b)[^\s:.]+\s+){0,4}?"
_TEXT = (
    r"(?:reports?|captions?|descriptions?|summary|summaries|impressions?|findings?|diagnos[ie]s|differentials?|lists?|"
    r"explanations?|answers?|conclusions?|inferences?|interpretations?|sentences?|tables?|sure|letters?|notes?|attention)"
)
_PICTURE = (
    r"(?:images?|pictures?|x-?rays?|xrays?|cxrs?|radiographs?|films?|scans?|ct|cts|mri|mris|mr|mrs|pet|t1|t2|flair|cbct|"
    r"ultrasounds?|slices?|versions?|drawings?|reconstructions?|views?)"
)
_RULES: tuple[tuple[Task, re.Pattern[str]], ...] = tuple(
    (task, re.compile(pattern, re.IGNORECASE | re.DOTALL))
    for task, pattern in (
        # "Write a report", "Generate a chest X-ray report", "Draw conclusions", "I need a summary".
        (
            Task.COMPREHENSION,
            rf"{_START}(?:{_MAKE}|{_ASK_FOR}|write|draft|draw|dictate|compose|give|state|list)\s+"
            rf"{_NO_PREPOSITION}{_TEXT}\b",
        ),
        (
            Task.COMPREHENSION,
            rf"{_START}(?:describe|explain|report|summari[sz]e|interpret|tell|caption|identify|name)\b",
        ),
        # "What would this CT look like as an MRI?"
        (Task.GENERATION, rf"^(?:what|how)\s+would\b.*\blook(?:\s+like)?\s+(?:as|in|on)\b.*\b{_PICTURE}\b"),
        # "Turn this CT into an MRI."
        (
            Task.GENERATION,
            rf"{_START}(?:{_ASK_FOR}\s+)?(?:turn|convert|transform|translate|change|map|transfer|re-?render)\b"
            rf".*?\b(?:into|to|as|in)\b.*?\b{_PICTURE}\b",
        ),
        # "Draw ...", "Super-resolve this image.", "Reconstruct the image."
        (Task.GENERATION, rf"{_START}(?:draw|re-?draw|paint|sketch|depict|synthesi[sz]e|visuali[sz]e)\b"),
        (
            Task.GENERATION,
            rf"{_START}(?:reconstruct|reproduce|restore|re-?create|denoise|de-?noise|deblur|de-?blur|sharpen|enhance|"
            rf"up-?scale|up-?sample|super-?\s?resol(?:ve|ution)|in-?paint|colou?ri[sz]e|clean up)\b",
        ),
        # "Improve the resolution of this image.", "Make this image sharper."
        (
            Task.GENERATION,
            rf"{_START}(?:improve|increase|raise|boost|double|quadruple|refine)\b.*"
            r"\b(?:resolution|quality|sharpness|detail|details|clarity|contrast|image|scan)\b",
        ),
        (
            Task.GENERATION,
            rf"{_START}make\s+(?:this|the|that|it|my)\b.*"
            r"\b(?:sharper|clearer|crisper|cleaner|less (?:noisy|blurry)|larger|higher[- ](?:resolution|quality))\b",
        ),
        # "Generate the MRI of this CT image.", "I need a version of this CT in MRI."
        (Task.GENERATION, rf"{_START}(?:{_MAKE}|{_ASK_FOR})\s+{_NO_PREPOSITION}{_PICTURE}\b"),
        (Task.GENERATION, rf"{_START}super-?\s?resolution\b"),
    )
)
_QUESTION = re.compile(
    r"\?\s*$|^(?:what|which|who|whose|where|when|why|how|is|are|was|were|does|do|did|has|have|can|could|should|any)\b",
    re.IGNORECASE,
)
_CHEST_FINDING = re.compile(
    r"\b(?:lungs?|pulmonary|cardiopulmonary|pleura|pleural|effusions?|pneumothora(?:x|ces)|cardi(?:ac|omegaly|omediastinal)|heart|"
    r"consolidations?|opacit(?:y|ies)|nodules?|atelectasis|oedema|edema|mediastin(?:um|al)|hil(?:ar|um)|infiltrates?|"
    r"diaphragm|costophrenic)\b|^no (?:\w+ )?abnormalit(?:y|ies)\b",
    re.IGNORECASE,
)
_READ = 2000  # characters; what is wanted is said at the beginning
_SHOWN_WORDS = 6


@dataclass(frozen=True)
class Choice:
    """A task, and why.

    Attributes:
        reason: part of a sentence, to be read after "because".
    """

    task: Task
    reason: str


def choose_task(instruction: str, has_image: bool) -> Choice:
    """The task of an instruction in English; where nothing speaks for a picture, to say something.

    Args:
        has_image: whether an image comes with it; findings of a chest alone are a report to be drawn.
    """
    text = " ".join(instruction[:_READ].split())
    for task, rule in _RULES:
        if match := rule.search(text):
            return Choice(task, f"it says “{_shortened(match[0])}”")
    if _QUESTION.search(text):
        return Choice(Task.COMPREHENSION, "it is a question")
    if not has_image and _CHEST_FINDING.search(text):
        return Choice(Task.GENERATION, "it reads as a chest report, and there is no image")
    return Choice(Task.COMPREHENSION, "it asks for no picture")


def _shortened(text: str) -> str:
    words = text.split()
    return " ".join(words[:_SHOWN_WORDS]) + ("…" if len(words) > _SHOWN_WORDS else "")
