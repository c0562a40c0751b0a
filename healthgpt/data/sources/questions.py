"""What sources of questions share: multiple choice, and places of images.

A question of multiple choice is its text, its options one a line, and what is asked for. Its answer is a letter:

    <image>
    Which organ is enlarged?
    A. Liver
    B. Spleen
    Answer with the option's letter from the given choices directly.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from healthgpt.answers import normalised
from healthgpt.data.preparation import Image, Sample
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.shared import plain, shown, text_of

ASK_FOR_LETTER = "Answer with the option's letter from the given choices directly."

# What sources call their modalities, without case and what is in parentheses -> what they are called here.
_MODALITIES = {
    "ct": "CT",
    "mr": "MRI",
    "mri": "MRI",
    "x-ray": "X-ray",
    "fundus photography": "fundus photography",
    "dermoscopy": "dermoscopy",
    "oct": "OCT",
    "ultrasound": "ultrasound",
    "microscopy images": "microscopy",
}


def require_files(folder: Path, names: Sequence[str]) -> list[Path]:
    """The paths of files of a folder.

    Raises:
        FileNotFoundError: some are not there; the message names all of them.
    """
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{folder}: has no {', '.join(missing)}")
    return [folder / name for name in names]


def modality_name(text: str) -> str:
    """A source's name of a modality -> the one that is used here; one that is not known stays as it is."""
    return _MODALITIES.get(text.partition("(")[0].strip().lower(), text.strip())


def literal_of(value: Any, where: str) -> Any:
    """A list or dictionary, or one that is written as text (`"['a', 'b']"`).

    Raises:
        ValueError: the text is no such thing.
    """
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError(f"{where}: expected a list written as text, found {shown(value)}") from None


def options_of(value: Any, where: str) -> dict[str, str]:
    """Options by their letters, of {"A": text}, of [{"letter", "content"}], or of texts; empty ones are left out.

    Raises:
        ValueError: `value` is something else, or nothing is left.
    """
    value = literal_of(value, where)
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, list) and all(isinstance(entry, Mapping) for entry in value):
        pairs = [(text_of(entry, "letter", where), entry.get("content")) for entry in value]
    elif isinstance(value, list) and len(value) <= len(ascii_uppercase):
        pairs = list(zip(ascii_uppercase, value, strict=False))
    else:
        raise ValueError(f"{where}: expected options, found {shown(value)}")
    texts = ((plain(letter).upper(), _one_line(plain(text))) for letter, text in pairs)
    options = {letter: text for letter, text in texts if text}
    if not options:
        raise ValueError(f"{where}: expected options, found {shown(value)}")
    return options


def letter_of(answer: str, options: Mapping[str, str], where: str) -> str:
    """The letter of an answer that is a letter ("B", "B.", "(b)") or an option's text.

    Raises:
        ValueError: the answer is none of the options.
    """
    letter = answer.strip(" ().:").upper()
    return letter if letter in options else letter_of_text(answer, options, where)


def letter_of_text(answer: str, options: Mapping[str, str], where: str) -> str:
    """The letter of the option that says what an answer says: in the same words, or but for case and a full stop.

    Raises:
        ValueError: there is none.
    """
    for same in (str.strip, normalised):
        for letter, text in options.items():
            if same(text) == same(_one_line(answer)):
                return letter
    listed = "; ".join(f"{letter}. {text}" for letter, text in options.items())
    raise ValueError(f"{where}: the answer {shown(answer)} is none of its options ({listed})")


def choice_text(question: str, options: Mapping[str, str]) -> str:
    """A question of multiple choice as it is asked."""
    return "\n".join([question, *(f"{letter}. {text}" for letter, text in options.items()), ASK_FOR_LETTER])


def with_images(question: str, num_images: int, where: str) -> str:
    """A question with the places of its images: those that it has, else before it.

    Raises:
        ValueError: it has other places than images.
    """
    places = question.count(IMAGE_MARK)
    if not places:
        return f"{IMAGE_MARK}\n" * num_images + question
    if places != num_images:
        raise ValueError(f"{where}: the question has {places} {IMAGE_MARK} for {num_images} images")
    return question


def open_question(
    name: str,
    *,
    split: str,
    question: str,
    answer: str,
    images: Sequence[Image],
    facts: Mapping[str, Any],
    where: str,
) -> Sample:
    """A question that is answered in words, and belongs to itself: its split is the source's own."""
    return Sample(
        id=name,
        split=split,
        group=name,
        question=with_images(question, len(images), where),
        answer=answer,
        images=images,
        metadata=facts,
    )


def choice_question(
    name: str,
    *,
    split: str,
    question: str,
    options: Mapping[str, str],
    letter: str,
    images: Sequence[Image],
    facts: Mapping[str, Any],
    where: str,
) -> Sample:
    """A question of multiple choice, which belongs to itself."""
    return open_question(
        name,
        split=split,
        question=choice_text(question, options),
        answer=letter,
        images=images,
        facts={**facts, **choice_facts(options, letter)},
        where=where,
    )


def choice_facts(options: Mapping[str, str], letter: str) -> dict[str, Any]:
    """What evaluation needs to know of a question of multiple choice."""
    return {"closed": True, "options": dict(options), "answer_text": options[letter]}


def _one_line(text: str) -> str:
    """Options stand on a line each."""
    return re.sub(r"\s*\n\s*", " ", text.strip())
