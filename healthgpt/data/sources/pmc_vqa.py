"""PMC-VQA: figures of PubMed Central with generated questions of multiple choice, in two versions.

    ROOT/train.csv, test.csv, test_clean.csv    version 1: 227k questions, all figures
    ROOT/train_2.csv, test_2.csv                version 2: figures without subfigures
    ROOT/images/*.jpg                           of images.zip
    ROOT/figures/*.jpg or images_2/*.jpg        of images_2.zip

Version 1 gives the answer's text and its letter (`Answer_label`), and its choices begin with "A:". Version 2 gives the
letter alone. `test_clean.csv` is the part of `test.csv` that people checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Sample, Source
from healthgpt.data.sources.questions import choice_question, letter_of, letter_of_text, options_of, require_files
from healthgpt.data.sources.shared import label_of, numbered_rows, text_of

_ENDINGS = {1: "", 2: "_2"}
# Archives of the two versions are unpacked beside each other or into one folder.
_FOLDERS = {1: ("images", "figures"), 2: ("figures", "images_2", "images")}
_LETTERS = "ABCD"


def pmc_vqa(root: Path, *, version: int | None = None, clean: bool = False) -> Source:
    """The source in a folder.

    Args:
        version: 1 or 2; None takes 2 where its files are there, else 1.
        clean: whether version 1's checked test set takes the place of the whole one.
    """
    if version not in (None, *_ENDINGS):
        raise ValueError(f"version is {version!r}, expected 1 or 2")
    if version is None:
        version = 2 if (root / "train_2.csv").exists() or (root / "test_2.csv").exists() else 1
    if clean and version != 1:
        raise ValueError("clean: only version 1 has a checked test set")
    ending = _ENDINGS[version]
    train, test = require_files(root, [f"train{ending}.csv", "test_clean.csv" if clean else f"test{ending}.csv"])
    samples = _samples(root, {"train": train, "test": test}, version)
    return Source(name="pmc-vqa", samples=samples, inputs=[train, test], options={"version": version, "clean": clean})


def _samples(root: Path, files: Mapping[str, Path], version: int) -> Iterator[Sample]:
    folders = [root / name for name in _FOLDERS[version]]
    for split, path in files.items():
        for number, where, row in numbered_rows(path):
            options = options_of({letter: _choice(row, letter, where) for letter in _LETTERS}, where)
            yield choice_question(
                f"pmc-vqa-{path.stem}-{number}",
                split=split,
                question=text_of(row, "Question", where),
                options=options,
                letter=_answer(row, options, where),
                images=[_figure(folders, text_of(row, "Figure_path", where))],
                facts={"kind": ""},
                where=where,
            )


def _figure(folders: Sequence[Path], name: str) -> Path:
    """A figure in the first folder that has it; else where it belongs, for the list of missing files."""
    paths = [folder / name for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def _choice(row: Mapping[str, Any], letter: str, where: str) -> str:
    """An option's text without its own letter; empty where there are fewer options."""
    if f"Choice {letter}" not in row:
        raise ValueError(f"{where}: has no column Choice {letter}; it has {', '.join(row)}")
    return re.sub(rf"^{letter}\s*:\s*", "", row[f"Choice {letter}"].strip())


def _answer(row: Mapping[str, Any], options: Mapping[str, str], where: str) -> str:
    """The answer's letter: the label's where it is an option's, else the answer's own, letter or text."""
    label = label_of(row, "Answer_label").upper()
    if label in options:
        return label
    answer = text_of(row, "Answer", where)
    lettered = re.match(r"([A-D])\s*:\s*(.+)", answer)
    return letter_of_text(lettered[2], options, where) if lettered else letter_of(answer, options, where)
