"""MedXpertQA-MM: 2,000 expert questions of multiple choice with one image or more, as TsinghuaC3I/MedXpertQA has them.

    ROOT/MM/dev.jsonl, test.jsonl    dev's few are validation here
    ROOT/images/*                    as `images` lists them

Five options, as {"A": text} or [{"letter", "content"}]. Questions repeat them after "Answer Choices:"; that part is
left out, so that they are asked as those of other sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import choice_question, letter_of, options_of, require_files
from healthgpt.data.sources.shared import label_of, numbered_rows, shown, slug, text_of

_REPEATED = re.compile(r"\s*Answer Choices:\s*\(A\).*\Z", re.DOTALL)


def medxpertqa(root: Path) -> Source:
    """The source in a folder."""
    dev, test = require_files(root, ["MM/dev.jsonl", "MM/test.jsonl"])
    samples = _samples(root / "images", {"validation": dev, "test": test})
    return Source(name="medxpertqa-mm", samples=samples, inputs=[dev, test], options={})


def _samples(folder: Path, files: Mapping[str, Path]) -> Iterator[Sample]:
    for split, path in files.items():
        for _, where, row in numbered_rows(path):
            options = options_of(row.get("options"), where)
            yield choice_question(
                f"medxpertqa-{slug(text_of(row, 'id', where))}",
                split=split,
                question=_REPEATED.sub("", text_of(row, "question", where)),
                options=options,
                letter=letter_of(_label(row, where), options, where),
                images=[folder / name for name in _image_names(row, where)],
                facts={
                    "kind": label_of(row, "question_type"),
                    "task": label_of(row, "medical_task"),
                    "body_system": label_of(row, "body_system"),
                },
                where=where,
            )


def _label(row: Mapping[str, Any], where: str) -> str:
    """The answer's letter; where options are a list, it is in a list too."""
    label = row.get("label")
    return text_of({"label": label[0] if isinstance(label, list) and len(label) == 1 else label}, "label", where)


def _image_names(row: Mapping[str, Any], where: str) -> list[str]:
    entries = row.get("images")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{where}: expected a list of file names in images, found {shown(entries)}")
    cells = [entry if isinstance(entry, dict) else {"image_path": entry} for entry in entries]
    return [text_of(cell, "image_path", where) for cell in cells]
