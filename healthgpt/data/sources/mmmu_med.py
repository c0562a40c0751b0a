"""MMMU's medical subjects: questions of college exams with up to seven images, as MMMU/MMMU has them.

    ROOT/<Subject>/{dev,validation,test}-*.parquet    subjects below; dev is for examples, so that it is training here
    ROOT/answer.json                                  answers of the test set, {id: answer}, where one has them

Options are a list written as text. `<image 1>` marks an image's place in the question or an option: its first mention
becomes the place, later ones say "image 1"; an image without mention comes first. Test answers are hidden ("?"), so
that the test set is left out unless they are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Picture, Sample, Source
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.questions import (
    choice_facts,
    choice_text,
    letter_of,
    literal_of,
    options_of,
)
from healthgpt.data.sources.shared import embedded_picture, label_of, numbered_rows, slug, text_of
from healthgpt.files import read_json

SUBJECTS = (
    "Basic_Medical_Science",
    "Clinical_Medicine",
    "Diagnostics_and_Laboratory_Medicine",
    "Pharmacy",
    "Public_Health",
)
ANSWERS_NAME = "answer.json"
_SPLITS = {"dev": "train", "validation": "validation", "test": "test"}
_IMAGES = tuple(f"image_{i}" for i in range(1, 8))
_MENTION = re.compile(r"<image (\d+)>")


def mmmu_med(root: Path, *, subjects: Sequence[str] = SUBJECTS, answers: Path | None = None) -> Source:
    """The source in a folder.

    Args:
        subjects: which ones; those that are not there are left out, and the manifest lists the others.
        answers: those of the test set; None takes ROOT/answer.json where it is there.
    """
    for subject in subjects:
        if subject not in SUBJECTS:
            raise ValueError(f"subject is {subject!r}, expected one of {', '.join(SUBJECTS)}")
    if answers is None and (root / ANSWERS_NAME).exists():
        answers = root / ANSWERS_NAME
    hidden = _answers(answers) if answers else None
    names = [name for name in _SPLITS if name != "test" or hidden is not None]
    files = {(s, name): sorted((root / s).glob(f"{name}-*.parquet")) for s in subjects for name in names}
    inputs = [path for paths in files.values() for path in paths]
    if not inputs:
        raise FileNotFoundError(f"{root}: has no {subjects[0]}/validation-*.parquet or other subjects' files")
    found = [subject for subject in subjects if any(files[subject, name] for name in names)]
    return Source(
        name="mmmu-med",
        samples=_samples(files, hidden or {}),
        inputs=[*inputs, *([answers] if answers else [])],
        options={"subjects": found, "test": hidden is not None},
    )


def _answers(path: Path) -> dict[str, Any]:
    """Answers by ids, bare or with the question's type beside them."""
    values = read_json(path)
    return {name: value.get("ground_truth") if isinstance(value, dict) else value for name, value in values.items()}


def _samples(files: Mapping[tuple[str, str], list[Path]], hidden: Mapping[str, Any]) -> Iterator[Sample]:
    for (subject, name), paths in files.items():
        for path in paths:
            for _, where, row in numbered_rows(path):
                if name == "test":
                    row["answer"] = hidden.get(text_of(row, "id", where))
                pictures = {
                    i: embedded_picture(row[key], where)
                    for i, key in enumerate(_IMAGES, start=1)
                    if row.get(key) is not None
                }
                yield _sample(row, subject, _SPLITS[name], pictures, where)


def _sample(row: Mapping[str, Any], subject: str, split: str, pictures: Mapping[int, Picture], where: str) -> Sample:
    question = text_of(row, "question", where)
    facts: dict[str, Any] = {"kind": subject.lower().replace("_", " "), "subfield": label_of(row, "subfield")}
    if label_of(row, "question_type") == "open":
        accepted = _accepted(row, where)
        answer = accepted[0]
        facts |= {"closed": False} | ({"answers": accepted} if len(accepted) > 1 else {})
    else:
        options = options_of(row.get("options"), where)
        answer = letter_of(text_of(row, "answer", where), options, where)
        question = choice_text(question, options)
        facts |= choice_facts(options, answer)
    asked, images = _place(question, pictures, where)
    name = f"mmmu-med-{slug(text_of(row, 'id', where))}"
    return Sample(id=name, split=split, group=name, question=asked, answer=answer, images=images, metadata=facts)


def _accepted(row: Mapping[str, Any], where: str) -> list[str]:
    """The answers that are right for an open question, one or a list written as text."""
    answer = row.get("answer")
    listed = isinstance(answer, list) or text_of(row, "answer", where).startswith("[")
    entries = literal_of(answer, where) if listed else [answer]
    return [text_of({"answer": entry}, "answer", where) for entry in entries or [""]]


def _place(text: str, pictures: Mapping[int, Picture], where: str) -> tuple[str, list[Picture]]:
    """Puts images at their first mentions; returns the text and the images in the order of their places."""
    mentioned = dict.fromkeys(int(number) for number in _MENTION.findall(text))
    for number in mentioned:
        if number not in pictures:
            raise ValueError(f"{where}: mentions <image {number}>, and has no image_{number}")
    unmentioned = [number for number in pictures if number not in mentioned]
    for number in mentioned:
        text = text.replace(f"<image {number}>", IMAGE_MARK, 1).replace(f"<image {number}>", f"image {number}")
    order = [*unmentioned, *mentioned]
    return f"{IMAGE_MARK}\n" * len(unmentioned) + text, [pictures[number] for number in order]
