"""What several sources share: names, Parquet's embedded images, closed answers."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from healthgpt.data.preparation import Picture

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "dev": "validation", "test": "test"}
_ENDINGS = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"BM": "bmp", b"II*": "tiff", b"MM": "tiff"}


def slug(text: str) -> str:
    """A name as part of an id or file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text.strip()).strip("-") or hashlib.sha256(text.encode()).hexdigest()[:12]


def closed_by_answer(answer: str) -> bool:
    """Whether a question is one of yes or no, where the source does not say."""
    return answer.strip().strip(".").lower() in ("yes", "no")


def parquet_files(root: Path, expected: str) -> dict[str, list[Path]]:
    """Parquet files below a folder by their splits, which their names begin with (`train-00000-of-00001.parquet`).

    Raises:
        FileNotFoundError: none.
    """
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*.parquet")):
        split = _SPLITS.get(re.split(r"[-_.]", path.name.lower())[0])
        if split:
            found.setdefault(split, []).append(path)
    if not found:
        raise FileNotFoundError(f"{root}: has no {expected}")
    return found


def embedded_picture(value: Any, path: Path, number: int) -> Picture:
    """An image in a column of a Parquet file: {"bytes", "path"} of the `datasets` library, or bytes alone.

    Raises:
        ValueError: the cell holds no image.
    """
    data = value.get("bytes") if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise ValueError(f"{path}, row {number}: holds no image")
    ending = next((ending for head, ending in _ENDINGS.items() if data.startswith(head)), "img")
    name = hashlib.sha256(data).hexdigest()[:20]  # questions about one image share it
    return Picture(name=f"{name[:2]}/{name}.{ending}", make=write_bytes, arguments=(data,))


def write_bytes(path: Path, data: bytes) -> None:
    """A picture that is at hand already."""
    path.write_bytes(data)
