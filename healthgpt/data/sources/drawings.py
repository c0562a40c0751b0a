"""What sources of drawings share: volumes that are read once, grey pictures cut from them."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from healthgpt.images import Plane, Scan, Seen, View, look, read_scan
from healthgpt.images.windows import Window

_VOLUMES = 4  # that a process keeps: those of one patient, and one more while it goes on to the next


def fingerprint(*settings: Any) -> str:
    """In a picture's name, what its pixels depend on: one made with other settings is not taken for it."""
    return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]


@lru_cache(maxsize=_VOLUMES)
def read_volume(path: Path) -> Scan:
    """A volume that is going to be cut into many slices.

    Raises:
        FileNotFoundError, ValueError: as `read_scan`.
    """
    return read_scan(path)


def axial_slice(scan: Scan, i: int, window: Window) -> Seen:
    """The i-th axial slice, counted from the feet, in 8 bit."""
    return look(scan, View(window=window, slice=str(i), plane=Plane.AXIAL))[0]


def exact_window(low: float, high: float, name: str) -> Window:
    """A window of which `low` is 0 and `high` is 255."""
    return Window(high - low, (low + high) / 2, name, "LINEAR_EXACT")


def percentile_window(values: NDArray[Any], low: float, high: float, name: str) -> Window:
    """A window between two percentiles of values.

    Args:
        name: of their file, for messages.

    Raises:
        ValueError: there is nothing between the two.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"{name}: has no value that is a number")
    black, white = (float(value) for value in np.percentile(finite, [low, high]))
    if black == white:
        raise ValueError(f"{name}: its percentiles {low:g} and {high:g} are both {black:g}; there is nothing to see")
    return exact_window(black, white, f"percentile {low:g}-{high:g}")


def check_percentiles(percentiles: tuple[float, float]) -> None:
    """
    Raises:
        ValueError: not two of them, the lower first.
    """
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles {low:g} and {high:g}: expected two between 0 and 100, the lower first")


def grey_of(seen: Seen) -> NDArray[np.uint8]:
    """A grey picture's pixels, square ones: rows or columns that lie farther apart than the others are stretched."""
    return np.asarray(seen.picture().convert("L"))


def centred(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture in the middle of a black square (offsets rounded down)."""
    height, width = pixels.shape
    top, left = (side - height) // 2, (side - width) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = pixels
    return square


def save_grey(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Writes an 8-bit grey PNG."""
    Image.fromarray(pixels).save(path, format="PNG")
