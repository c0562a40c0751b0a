"""How large an image may be before it is taken for an attack or a damaged header."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

MAX_PIXELS = 178_956_970  # of a picture; Pillow's own bound on decompression bombs
MAX_VOXELS = 2**31  # of a volume
MAX_UNPACKED = 4 * 2**30  # bytes that an archive or a compressed file may unpack to

_most_pixels = ContextVar("most_pixels", default=MAX_PIXELS)


@contextmanager
def at_most(pixels: int) -> Iterator[None]:
    """A tighter bound on pictures, for what is read meanwhile."""
    before = _most_pixels.set(min(pixels, MAX_PIXELS))
    try:
        yield
    finally:
        _most_pixels.reset(before)


def check_size(size: tuple[int, ...], name: str) -> None:
    """
    Args:
        size: width, height, and more for volumes.

    Raises:
        ValueError: nothing, or too much to be an image.
    """
    shown = "x".join(map(str, size))
    count = 1
    for length in size:
        count *= length
    if count <= 0 or min(size) <= 0:
        raise ValueError(f"{name}: an image of size {shown} has no pixels")
    if size[0] * size[1] > _most_pixels.get():
        raise ValueError(f"{name}: {shown} is more than {_most_pixels.get()} pixels")
    if count > MAX_VOXELS:
        raise ValueError(f"{name}: {shown} is more than {MAX_VOXELS} voxels")
