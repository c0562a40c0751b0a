"""Pairs of a user's own images: one is given, the other one is to be drawn.

    ROOT/input/**/NAME.png, ROOT/target/**/NAME.dcm    two folders, files of a pair alike but for their endings
    ROOT/pairs.csv or .jsonl (or ROOT is such a file)  source, target [, instruction, split, subject]

Images are of any format that is read elsewhere, one slice each. Pictures of 8 bit are referred to; anything else (16
bit, DICOM, NIfTI) is written as a picture, in a window. Paths in a table are relative to it. The subject of a pair is
the table's, or the first folder below ROOT/input, or else its source is one of its own; splits are the table's, or by
subject from a seed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from healthgpt.data.compact import CompactTable
from healthgpt.data.preparation import SPLITS, Picture, Sample, Source, split_of
from healthgpt.data.preparation import Image as SampleImage
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.drawings import fingerprint
from healthgpt.data.sources.shared import PARTS, SPLIT_NAMES, check_parts, listing_sha256, numbered_rows, plain
from healthgpt.images import FORMATS, View, see

TABLE_NAMES = ("pairs.csv", "pairs.jsonl")
INSTRUCTION = "Draw the image that belongs to this one."
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
_DATA_ENDINGS = (".img", ".raw", ".zraw")  # they are read through the header beside them


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pair:
    """
    Attributes:
        question, split: None where the table says nothing.
    """

    name: str
    source: Path
    target: Path
    subject: str
    question: str | None = None
    split: str | None = None


def pairs(
    root: Path,
    *,
    sources: str = "input",
    targets: str = "target",
    instruction: str = INSTRUCTION,
    kind: str = "pairs",
    window: str = "auto",
    target_window: str | None = None,
    seed: int = 0,
    parts: Mapping[str, float] = PARTS,
) -> Source:
    """The source in a folder or table.

    Args:
        sources: the folder of the images that are given.
        targets: the folder of those that are to be drawn.
        instruction: what is asked, where no table says it.
        kind: what evaluation calls these drawings.
        window: of images that are no pictures yet, as everywhere else.
        target_window: of the targets, if another one.
        seed: of the splits.
        parts: the share of subjects of each split.

    Raises:
        FileNotFoundError: neither a table nor the two folders.
        ValueError: images without a partner (all are listed), a subject in two splits, or an option that is none.
    """
    check_parts(parts)
    if not instruction.strip():
        raise ValueError("instruction is empty, expected what is to be drawn")
    question = _question(instruction, "instruction")
    views = (window, window if target_window is None else target_window)
    for text in views:
        View.of(window=text)
    table = _table(root)
    found = [] if table else _found(root, root / sources, root / targets)
    read = partial(_listed, table) if table else partial(iter, found)
    count, named = _named_splits(read, table or root)
    splits = _Splits(named=named, seed=seed, parts=parts)
    return Source(
        name="pairs",
        samples=_samples(read(), splits, question, kind, views, table.parent if table else root),
        inputs=[table] if table else [],
        options={
            "pairs": count,
            "sources": None if table else sources,
            "targets": None if table else targets,
            "files_sha256": None if table else _files_sha256(found),
            "instruction": instruction,
            "kind": kind,
            "windows": list(views),
            "seed": seed,
            "parts": dict(parts),
        },
    )


def _table(root: Path) -> Path | None:
    if root.is_file():
        return root
    return next((root / name for name in TABLE_NAMES if (root / name).is_file()), None)


def _files_sha256(found: Sequence[_Pair]) -> str:
    files = {f"source/{pair.name}": pair.source for pair in found}
    return listing_sha256(files | {f"target/{pair.name}": pair.target for pair in found})


def _found(root: Path, sources: Path, targets: Path) -> list[_Pair]:
    """The pairs of two folders."""
    if missing := [str(folder) for folder in (sources, targets) if not folder.is_dir()]:
        names = " or ".join(TABLE_NAMES)
        raise FileNotFoundError(f"{root}: has neither {names} nor the folders of pairs: no {', '.join(missing)}")
    given, drawn = _images(sources), _images(targets)
    lost = (
        ("sources have no target", sorted(given.keys() - drawn.keys()), len(given)),
        ("targets have no source", sorted(drawn.keys() - given.keys()), len(drawn)),
    )
    if texts := [f"{len(names)} of {count} {what}: {', '.join(names)}" for what, names, count in lost if names]:
        raise ValueError(f"{root}: {'; '.join(texts)}")
    return [
        _Pair(name=name, source=path, target=drawn[name], subject=name.partition("/")[0])
        for name, path in sorted(given.items())
    ]


def _images(folder: Path) -> dict[str, Path]:
    """Images below a folder by their paths in it, without endings."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.rglob("*")):
        place = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in place.parts)
        if path.is_file() and not hidden and path.suffix.lower() not in _DATA_ENDINGS:
            name = place.name[: -len(".gz")] if place.name.lower().endswith(".gz") else place.name
            found[place.with_name(Path(name).stem).as_posix()].append(path)
    if twice := [name for name, paths in found.items() if len(paths) > 1]:
        raise ValueError(f"{folder}: {len(twice)} names are there with several endings: {', '.join(twice)}")
    if not found:
        raise ValueError(f"{folder}: has no images")
    return {name: paths[0] for name, paths in found.items()}


def _listed(table: Path) -> Iterator[_Pair]:
    """The pairs of a table."""
    count, incomplete = 0, []
    for number, where, row in numbered_rows(table):
        count += 1
        if lacking := [name for name in ("source", "target") if name not in row]:
            raise ValueError(f"{where}: has no column {', '.join(lacking)}; it has {', '.join(row)}")
        source, target = _cell(row, "source"), _cell(row, "target")
        split, instruction = _cell(row, "split"), _cell(row, "instruction")
        if source is None or target is None:
            incomplete.append(f"{number} ({'no source' if source is None else 'no target'})")
            continue
        if split is not None and split.lower() not in SPLIT_NAMES:
            raise ValueError(f"{where}: split is {split!r}, expected {', '.join(SPLITS)}")
        yield _Pair(
            name=str(number),
            source=table.parent / source,
            target=table.parent / target,
            subject=_cell(row, "subject") or source,
            question=None if instruction is None else _question(instruction, where),
            split=None if split is None else SPLIT_NAMES[split.lower()],
        )
    if incomplete:
        raise ValueError(f"{table}: {len(incomplete)} of {count} rows are no pair: row {', '.join(incomplete)}")


def _cell(row: Mapping[str, Any], name: str) -> str | None:
    return plain(row.get(name)) or None


@dataclass(frozen=True, kw_only=True)
class _Splits:
    """The split of each subject: the one that a pair of theirs names, or else by seed."""

    named: CompactTable
    seed: int
    parts: Mapping[str, float]

    def of(self, subject: str) -> str:
        place = self.named.get(subject)
        return split_of(subject, self.seed, self.parts) if place is None else SPLITS[place]


def _named_splits(read: Callable[[], Iterable[_Pair]], where: Path) -> tuple[int, CompactTable]:
    """How many pairs there are, and the splits that they name.

    Raises:
        ValueError: a subject in several.
    """
    count = 0

    def named() -> Iterator[tuple[str, int]]:
        nonlocal count
        for pair in read():
            count += 1
            if pair.split:
                yield pair.subject, SPLITS.index(pair.split)

    table = CompactTable(named())
    if table.has_contradictions():
        torn = sorted({pair.subject for pair in read() if len(table.values(pair.subject)) > 1})
        raise ValueError(f"{where}: {len(torn)} subjects are in several splits: {', '.join(torn)}")
    return count, table


def _samples(
    found: Iterable[_Pair],
    splits: _Splits,
    question: str,
    kind: str,
    windows: tuple[str, str],
    folder: Path,
) -> Iterator[Sample]:
    for pair in found:
        yield Sample(
            id=f"pairs-{pair.name}",
            split=splits.of(pair.subject),
            group=pair.subject,
            question=pair.question or question,
            images=(_image(pair.source, windows[0], folder),),
            target=_image(pair.target, windows[1], folder),
            metadata={"kind": kind, "subject": pair.subject},
        )


def _question(instruction: str, where: str) -> str:
    """An instruction with the image's place, before it unless it says where.

    Raises:
        ValueError: several places.
    """
    if (count := instruction.count(IMAGE_MARK)) > 1:
        raise ValueError(f"{where}: {count} {IMAGE_MARK} placeholders, expected one at most")
    return instruction if count else f"{IMAGE_MARK}\n{instruction}"


def _image(path: Path, window: str, folder: Path) -> SampleImage:
    # One that is not there is left to preparation, which lists all of them.
    if not path.exists() or _is_picture(path):
        return path
    place = path.relative_to(folder) if path.is_relative_to(folder) else path
    name = fingerprint(place.as_posix(), window)
    return Picture(name=f"{name[:2]}/{name}.png", make=_write, arguments=(path, window))


def _is_picture(path: Path) -> bool:
    """Whether a file is a picture of 8 bit, of which nothing has to be chosen."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            one = image.format == "MPO" or getattr(image, "n_frames", 1) == 1
            return one and image.mode in _EIGHT_BIT
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
        return False  # reading it as an image of another kind says what is wrong


def _write(path: Path, source: Path, window: str) -> None:
    """Writes an image that is no picture yet, its pixels square."""
    pictures = see(source, View.of(window=window))
    if len(pictures) > 1:
        raise ValueError(f"{source}: {len(pictures)} slices, expected one")
    grey = np.ndim(pictures[0].pixels) == 2
    pictures[0].picture().convert("L" if grey else "RGB").save(path, format="PNG")
