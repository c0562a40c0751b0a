"""SLAKE: 642 radiology images, 14,028 questions in English and Chinese, as BoKelvin/SLAKE has it.

    ROOT/train.json, validation.json (or validate.json), test.json    official splits
    ROOT/imgs/xmlab<N>/source.jpg

Questions of one language are taken, English unless asked otherwise (1,061 for testing). Those that need the knowledge
graph (`base_type` kvqa) are kept: their answers are in the files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import modality_name, open_question, require_files
from healthgpt.data.sources.shared import (
    EMPTY_ANSWER,
    closed_by_answer,
    is_empty,
    label_of,
    numbered_rows,
    plain,
    slug,
    text_of,
)

LANGUAGES = ("en", "zh")


def slake(root: Path, *, language: str = "en") -> Source:
    """The source in a folder.

    Args:
        language: of the questions, "en" or "zh".
    """
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}, expected {' or '.join(LANGUAGES)}")
    # The data set's own site and the hub give the file different names.
    validation = "validate.json" if (root / "validate.json").exists() else "validation.json"
    names = {"train": "train.json", "validation": validation, "test": "test.json"}
    files = dict(zip(names, require_files(root, list(names.values())), strict=True))
    left_out: Counter[str] = Counter()
    return Source(
        name="slake",
        samples=_samples(root / "imgs", files, language, left_out),
        inputs=list(files.values()),
        options={"language": language},
        left_out=left_out,
    )


def _samples(images: Path, files: Mapping[str, Path], language: str, left_out: Counter[str]) -> Iterator[Sample]:
    for split, path in files.items():
        for _, where, row in numbered_rows(path):
            if text_of(row, "q_lang", where).lower() != language:
                left_out["in another language"] += 1
                continue
            if is_empty(row, "answer"):
                left_out[EMPTY_ANSWER] += 1
                continue
            answer, answer_type = text_of(row, "answer", where), label_of(row, "answer_type")
            facts = {
                "kind": label_of(row, "content_type"),
                "closed": answer_type == "closed" if answer_type else closed_by_answer(answer),
                "modality": modality_name(plain(row.get("modality"))),
                "organ": label_of(row, "location"),
                "base_type": label_of(row, "base_type"),
            }
            yield open_question(
                f"slake-{slug(text_of(row, 'qid', where))}",
                split=split,
                question=text_of(row, "question", where),
                answer=answer,
                images=[images / text_of(row, "img_name", where)],
                facts=facts,
                where=where,
            )
