"""Arrays of NumPy: `.npy` files, of one image or several."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from healthgpt.images.limits import check_size
from healthgpt.images.scan import Scan, choose_volume

_MAGIC = b"\x93NUMPY"


def is_array(head: bytes) -> bool:
    """Whether a file that begins so is NumPy's."""
    return head.startswith(_MAGIC)


def read_array(source: Path | bytes, name: str, volume: int | None = None) -> Scan:
    """A `.npy` file: (R, C), (R, C, 3 or 4) of uint8, (F, R, C), or several of these volumes.

    Raises:
        ValueError: damaged, objects, or of another shape.
    """
    try:
        values = np.load(source if isinstance(source, Path) else io.BytesIO(source), allow_pickle=False)
    except Exception as error:  # damaged headers are evaluated, and end in errors of every kind
        reason = "it holds Python objects" if "Object arrays" in str(error) else "a damaged NumPy file"
        raise ValueError(f"{name}: {reason}") from None
    if values.dtype == bool:
        values = values.astype(np.uint8) * 255
    if not np.issubdtype(values.dtype, np.number):
        raise ValueError(f"{name}: an array of {values.dtype} has no pixels")
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: complex values; save their magnitude")
    colour = values.ndim >= 3 and values.shape[-1] in (3, 4) and values.dtype == np.uint8
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    grid = values.shape[:-1] if colour else values.shape
    if not 2 <= len(grid) <= 4:
        raise ValueError(
            f"{name}: an array of shape {values.shape} is no image, expected (H, W), (H, W, 3) or (F, H, W)"
        )
    check_size(grid[::-1], name)
    place = choose_volume(grid[0] if len(grid) == 4 else 1, volume, name)
    frames: Any = values[place] if len(grid) == 4 else values[None] if len(grid) == 2 else values
    if colour:
        frames = frames[..., :3]
    ready = values.dtype == np.uint8
    return Scan(
        name=name,
        num_frames=len(frames),
        frame=lambda i: frames[i],
        frames=lambda: frames,
        shape=(grid[-2], grid[-1]),
        ready=ready,
        picture=True,
        unclear=None if ready else f"an array of {values.dtype} has no known black and white",
    )
