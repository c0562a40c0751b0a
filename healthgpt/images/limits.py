"""How large an image may be before it is taken for an attack or a damaged header."""

from __future__ import annotations

MAX_PIXELS = 178_956_970  # of a picture; Pillow's own bound on decompression bombs
MAX_VOXELS = 2**31  # of a volume
MAX_UNPACKED = 4 * 2**30  # bytes that an archive or a compressed file may unpack to


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
    if size[0] * size[1] > MAX_PIXELS:
        raise ValueError(f"{name}: {shown} is more than {MAX_PIXELS} pixels")
    if count > MAX_VOXELS:
        raise ValueError(f"{name}: {shown} is more than {MAX_VOXELS} voxels")
