"""Drawings against the truth, at the drawing's size: over the whole image and, where there is one, inside the mask.

    ssim, psnr (dB), mse (grey values from 0 to 255), mae (grey values)
    mae_hu      mean absolute error in Hounsfield units, where the truth is a CT of a known range
    ..._inside  the same inside the mask
    lpips       where its network is there (`networks.Lpips`)

The truth is brought to the drawing's size as the model's own targets are (LANCZOS), its mask without interpolation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.evaluation.networks import Lpips
from healthgpt.evaluation.pictures import Mask, Picture, mae, mse, psnr, ssim
from healthgpt.images import read_image
from healthgpt.tasks import TaskType

MEASURES = {"ssim": ssim, "psnr": psnr, "mse": mse, "mae": mae}


def score_drawing(
    drawing: Path, truth: Path, facts: Mapping[str, Any], mask: Path | None = None, lpips: Lpips | None = None
) -> dict[str, float]:
    """The columns of one drawing.

    Raises:
        FileNotFoundError, ValueError: an image that cannot be read.
    """
    drawn = np.asarray(read_image(drawing))
    true = at_size(read_image(truth), drawn, Image.Resampling.LANCZOS)
    inside = _inside(mask, drawn)
    hounsfield = _hounsfield_range(facts)
    columns: dict[str, float] = {}
    for suffix, where in (("", None), ("_inside", inside)):
        if suffix and where is None:
            continue
        columns |= {f"{name}{suffix}": measure(drawn, true, where) for name, measure in MEASURES.items()}
        if hounsfield is not None:
            columns[f"mae_hu{suffix}"] = mae(drawn, true, where, white=hounsfield)
    if lpips is not None:
        columns["lpips"] = lpips(drawn, true)
    return columns


def at_size(image: Image.Image, drawn: Picture, resampling: Image.Resampling) -> Picture:
    """An image at a drawing's size."""
    side = (drawn.shape[1], drawn.shape[0])
    return np.asarray(image if image.size == side else image.resize(side, resampling))


def _inside(mask: Path | None, drawn: Picture) -> Mask | None:
    """The mask at the drawing's size; None where there is none, or nothing in it."""
    if mask is None:
        return None
    inside = at_size(read_image(mask), drawn, Image.Resampling.NEAREST).max(axis=2) > 0
    return inside if inside.any() else None


def _hounsfield_range(facts: Mapping[str, Any]) -> float | None:
    """Hounsfield units from black to white, where what was to be drawn is a CT with a fixed range."""
    if "ct_range" not in facts or facts.get("kind") == TaskType.CT_TO_MRI:
        return None
    low, high = facts["ct_range"]
    return float(high) - float(low)
