"""What several sources share: cells of their rows, names, splits, Parquet's embedded images, closed answers."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import SPLITS, Picture
from healthgpt.data.tables import rows_of

PARTS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of the subjects, where none are official
# What files and cells call the splits.
SPLIT_NAMES = {name: name for name in SPLITS} | {"val": "validation", "valid": "validation", "dev": "validation"}
EMPTY_ANSWER = "with an empty answer"  # why a record is left out
_ENDINGS = {
    b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp", b"II*": "tiff",
    b"MM": "tiff",
}  # fmt: skip
_SHOWN = 120  # characters of a cell in a message


def plain(cell: Any) -> str:
    """A cell as text without outer blanks; empty where there is nothing in it (None, NaN).

    A column of whole numbers with gaps comes as floats: these lose their point.
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()


def text_of(row: Mapping[str, Any], key: str, where: str) -> str:
    """A cell that has to be there, as text.

    Raises:
        ValueError: it is missing or empty.
    """
    text = plain(row.get(key))
    if not text:
        raise ValueError(f"{where}: expected a text in {key}, found {shown(row[key]) if key in row else 'no such key'}")
    return text


def label_of(row: Mapping[str, Any], key: str) -> str:
    """A cell of a few words, in lower case; empty where it is missing."""
    return plain(row.get(key)).lower()


def is_empty(row: Mapping[str, Any], key: str) -> bool:
    """Whether a cell is there and holds nothing."""
    return key in row and not plain(row[key])


def shown(value: Any) -> str:
    """A value in a message: on one line, and not all of it where it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def numbered_rows(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """The rows of a file, each with its number from 1 and its place for messages."""
    for number, row in enumerate(rows_of(path), start=1):
        yield number, f"{path}, row {number}", row


def listing_sha256(files: Mapping[str, Path]) -> str:
    """A hash of names and sizes: what a manifest remembers of files that are too large to be hashed themselves."""
    lines = (f"{name}\t{path.stat().st_size}\n" for name, path in sorted(files.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_parts(parts: Mapping[str, float]) -> None:
    """
    Raises:
        ValueError: not shares of splits that add up to 1.
    """
    known = all(split in SPLITS and part >= 0 for split, part in parts.items())
    if not known or not math.isclose(sum(parts.values()), 1, abs_tol=1e-6):
        raise ValueError(f"parts {dict(parts)}: expected shares of {', '.join(SPLITS)} that add up to 1")


def slug(text: str) -> str:
    """A name as part of an id or file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).strip("-") or hashlib.sha256(text.encode()).hexdigest()[:12]


def closed_by_answer(answer: str) -> bool:
    """Whether a question is one of yes or no, where the source does not say."""
    return answer.strip().strip(".").lower() in ("yes", "no")


def parquet_files(root: Path, expected: str) -> dict[str, list[Path]]:
    """Parquet files below a folder by their splits, training first. Their names begin with these, or their folders'
    (`train-00000-of-00001.parquet`, `train/0000.parquet`).

    Raises:
        FileNotFoundError: none.
    """
    found: dict[str, list[Path]] = {split: [] for split in SPLITS}
    for path in sorted(root.rglob("*.parquet")):
        first_words = [re.split(r"[-_.]", name.lower())[0] for name in (path.name, path.parent.name)]
        if split := next((SPLIT_NAMES[word] for word in first_words if word in SPLIT_NAMES), None):
            found[split].append(path)
    if not any(found.values()):
        raise FileNotFoundError(f"{root}: has no {expected}")
    return {split: paths for split, paths in found.items() if paths}


def parquet_rows(files: Mapping[str, list[Path]]) -> Iterator[tuple[str, int, str, dict[str, Any], Picture]]:
    """Rows with their split, number in it, place for messages, and embedded image.

    Numbers go on from one file of a split to the next, so that they do not depend on how many files it comes in.
    """
    for split, paths in files.items():
        total = 0
        for path in paths:
            for _, where, row in numbered_rows(path):
                total += 1
                yield split, total, where, row, embedded_picture(row.get("image"), where)


def embedded_picture(value: Any, where: str) -> Picture:
    """An image in a column of a Parquet file: {"bytes", "path"} of the `datasets` library, or bytes alone.

    Raises:
        ValueError: the cell holds no image.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise ValueError(f"{where}: holds no image")
    ending = next((ending for head, ending in _ENDINGS.items() if data.startswith(head)), "img")
    name = hashlib.sha256(data).hexdigest()[:20]  # questions about one image share it
    return Picture(name=f"{name[:2]}/{name}.{ending}", make=write_bytes, arguments=(data,))


def write_bytes(path: Path, data: bytes) -> None:
    """A picture that is at hand already."""
    path.write_bytes(data)
