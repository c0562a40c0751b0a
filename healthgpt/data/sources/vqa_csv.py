"""A user's own questions about images: CSV, TSV, JSON, JSON Lines or Parquet, a question a row.

    image,question,answer
    scans/1.png,Is there a fracture?,no
    "['scans/1.png', 'scans/2.png']",What has changed?,The effusion is smaller.

Images are paths (one, or a list), absolute or below a folder, which is the table's unless another is named; in Parquet
they may be in the table itself. An empty cell is a question without image. Options make a question one of multiple
choice: a column each, or one column of a list or {"A": text}; its answer is a letter or an option's text. Without a
column of splits, all questions of a subject (or about an image, where subjects are not named) go to one split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import SPLITS, Image, Sample, Source, split_of
from healthgpt.data.sources.questions import choice_question, letter_of, literal_of, open_question, options_of
from healthgpt.data.sources.shared import (
    PARTS,
    SPLIT_NAMES,
    check_parts,
    closed_by_answer,
    embedded_picture,
    numbered_rows,
    plain,
    text_of,
)
from healthgpt.files import require_file


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of a table's columns; None where it has no such column.

    Attributes:
        split: train, validation (val, valid, dev) or test.
        id: of the question; else the table's name and the row's number.
        subject: whose images they are.
        options: one column with all options, or a column for each.
    """

    image: str | None = "image"
    question: str = "question"
    answer: str = "answer"
    split: str | None = None
    id: str | None = None
    subject: str | None = None
    options: tuple[str, ...] = ()


def vqa_csv(
    root: Path,
    *,
    columns: Columns = Columns(),
    images: Path | None = None,
    seed: int = 0,
    parts: Mapping[str, float] = PARTS,
) -> Source:
    """The source in a table.

    Args:
        root: the table.
        images: the folder of images; None is the table's.
        seed: of the splits, where the table has none.
        parts: the share of each split.
    """
    check_parts(parts)
    folder = require_file(root).parent if images is None else images
    options = {"images": str(folder), "seed": seed, "parts": dict(parts)}
    named = asdict(columns) | {"options": list(columns.options)}
    table = _Table(path=root, folder=folder, columns=columns, seed=seed, parts=parts)
    return Source(name="vqa-csv", samples=table.samples(), inputs=[root], options=options | {"columns": named})


def vqa_csv_by_flags(
    root: Path,
    *,
    image_column: str = "image",
    question_column: str = "question",
    answer_column: str = "answer",
    split_column: str | None = None,
    id_column: str | None = None,
    subject_column: str | None = None,
    option_columns: Sequence[str] = (),
    images: Path | None = None,
    seed: int = 0,
) -> Source:
    """The same with a keyword per column; an empty `image_column` is for questions without images."""
    columns = Columns(
        image=image_column or None,
        question=question_column,
        answer=answer_column,
        split=split_column,
        id=id_column,
        subject=subject_column,
        options=tuple(option_columns),
    )
    return vqa_csv(root, columns=columns, images=images, seed=seed)


@dataclass(frozen=True, kw_only=True)
class _Table:
    path: Path
    folder: Path
    columns: Columns
    seed: int
    parts: Mapping[str, float]

    def samples(self) -> Iterator[Sample]:
        wanted = [name for name in asdict(self.columns).values() if isinstance(name, str)] + list(self.columns.options)
        for number, where, row in numbered_rows(self.path):
            if lacking := [name for name in wanted if name not in row]:
                raise ValueError(f"{where}: has no column {', '.join(lacking)}; it has {', '.join(row)}")
            yield self._sample(row, number, where)

    def _sample(self, row: Mapping[str, Any], number: int, where: str) -> Sample:
        columns = self.columns
        name = text_of(row, columns.id, where) if columns.id else f"{self.path.stem}-{number}"
        images = self._images(row[columns.image], where) if columns.image else []
        split, group = self._split(row, name, images, where)
        question, answer = text_of(row, columns.question, where), text_of(row, columns.answer, where)
        if options := self._options(row, where):
            sample = choice_question(
                name,
                split=split,
                question=question,
                options=options,
                letter=letter_of(answer, options, where),
                images=images,
                facts={"kind": ""},
                where=where,
            )
        else:
            facts = {"kind": "", "closed": closed_by_answer(answer)}
            sample = open_question(
                name, split=split, question=question, answer=answer, images=images, facts=facts, where=where
            )
        return replace(sample, group=group)

    def _split(self, row: Mapping[str, Any], name: str, images: list[Image], where: str) -> tuple[str, str]:
        """The split of a question and whom it belongs to."""
        columns = self.columns
        subject = text_of(row, columns.subject, where) if columns.subject else None
        if columns.split:
            given = text_of(row, columns.split, where)
            if given.lower() not in SPLIT_NAMES:
                raise ValueError(f"{where}: {columns.split} is {given!r}, expected {', '.join(SPLITS)}")
            return SPLIT_NAMES[given.lower()], subject or name
        group = subject or self._image_name(images) or name
        return split_of(group, self.seed, self.parts), group

    def _image_name(self, images: list[Image]) -> str | None:
        """The first image, as the table names it, so that a data set that moves keeps its splits."""
        if not images:
            return None
        first = images[0]
        if not isinstance(first, Path):
            return first.name
        return str(first.relative_to(self.folder)) if first.is_relative_to(self.folder) else str(first)

    def _images(self, cell: Any, where: str) -> list[Image]:
        if isinstance(cell, str) and cell.lstrip().startswith("["):
            cell = literal_of(cell, where)
        cells = cell if isinstance(cell, list) else [cell]
        return [self._image(entry, where) for entry in cells if plain(entry)]

    def _image(self, cell: Any, where: str) -> Image:
        if isinstance(cell, dict) and not cell.get("bytes") and cell.get("path"):
            cell = cell["path"]  # the `datasets` library's image that is a file of its own
        return self.folder / cell.strip() if isinstance(cell, str) else embedded_picture(cell, where)

    def _options(self, row: Mapping[str, Any], where: str) -> dict[str, str]:
        """Options by their letters; none where all their cells are empty."""
        cells = [row[name] for name in self.columns.options]
        if not any(plain(cell) for cell in cells):
            return {}
        return options_of(cells[0] if len(cells) == 1 else cells, where)
