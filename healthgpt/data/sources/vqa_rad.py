"""VQA-RAD: 315 radiology images, 3,515 questions, as OSF (89kps) has it, or in Parquet.

    ROOT/VQA_RAD Dataset Public.json, ROOT/VQA_RAD Image Folder/*.jpg    the original
    ROOT/**/train-*.parquet, test-*.parquet                              flaviagiammarino/vqa-rad, OctoMed/VQA-RAD

The original's test set is its `phrase_type`s of test (300 freeform and 151 paraphrased questions = 451). Answers are
stripped and turned into text (some are numbers, some answer types end in a blank).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Image, Sample, Source
from healthgpt.data.sources.shared import (
    closed_by_answer,
    label_of,
    numbered_rows,
    parquet_files,
    parquet_rows,
    plain,
    slug,
    text_of,
)
from healthgpt.files import require_file

JSON_NAME, IMAGES_NAME = "VQA_RAD Dataset Public.json", "VQA_RAD Image Folder"


def vqa_rad(root: Path) -> Source:
    """The source in a folder of either layout."""
    if (root / JSON_NAME).exists():
        samples, inputs = _original(root), [root / JSON_NAME]
    else:
        files = parquet_files(root, f"{JSON_NAME} or Parquet files")
        samples, inputs = _parquet(files), [path for paths in files.values() for path in paths]
    return Source(name="vqa-rad", samples=samples, inputs=inputs, options={})


def _original(root: Path) -> Iterator[Sample]:
    for _, where, row in numbered_rows(require_file(root / JSON_NAME)):
        image = root / IMAGES_NAME / text_of(row, "image_name", where)
        split = "test" if text_of(row, "phrase_type", where).lower().startswith("test") else "train"
        yield _sample(row, where, text_of(row, "qid", where), split, image)


def _parquet(files: dict[str, list[Path]]) -> Iterator[Sample]:
    for split, number, where, row, image in parquet_rows(files):
        yield _sample(row, where, plain(row.get("qid")) or f"{split}-{number}", split, image)


def _sample(row: dict[str, Any], where: str, name: str, split: str, image: Image) -> Sample:
    answer = text_of(row, "answer", where)
    answer_type = label_of(row, "answer_type")
    return Sample(
        id=f"vqa-rad-{slug(name)}",
        split=split,
        group=f"vqa-rad-{slug(name)}",
        question=f"<image>\n{text_of(row, 'question', where)}",
        answer=answer,
        images=(image,),
        metadata={
            "kind": label_of(row, "question_type"),
            "closed": answer_type == "closed" if answer_type else closed_by_answer(answer),
            "organ": label_of(row, "image_organ"),
        },
    )
