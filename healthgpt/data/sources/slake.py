"""SLAKE: 642 radiology images, 14,028 questions in English and Chinese, as BoKelvin/SLAKE has it.

    ROOT/train.json, validation.json (or validate.json), test.json    official splits
    ROOT/imgs/xmlab<N>/source.jpg

Questions of one language are taken, English unless asked otherwise (1,061 for testing). Those that need the knowledge
graph (`base_type` kvqa) are kept: their answers are in the files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import (
    label_of,
    modality_name,
    numbered_rows,
    open_question,
    require_files,
    text_of,
)
from healthgpt.data.sources.shared import closed_by_answer, slug

logger = logging.getLogger(__name__)

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
    samples = _samples(root / "imgs", files, language)
    return Source(name="slake", samples=samples, inputs=list(files.values()), options={"language": language})


def _samples(images: Path, files: Mapping[str, Path], language: str) -> Iterator[Sample]:
    empty = 0
    for split, path in files.items():
        for _, where, row in numbered_rows(path):
            if text_of(row, "q_lang", where).lower() != language:
                continue
            if not str(row.get("answer", "?")).strip():
                empty += 1
                continue
            answer, answer_type = text_of(row, "answer", where), label_of(row, "answer_type")
            facts = {
                "kind": label_of(row, "content_type"),
                "closed": answer_type == "closed" if answer_type else closed_by_answer(answer),
                "modality": modality_name(str(row.get("modality") or "")),
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
    if empty:
        logger.warning("slake: %d records with an empty answer are left out", empty)
