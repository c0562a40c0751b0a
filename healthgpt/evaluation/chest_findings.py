"""Reads findings off a phantom's chest X-ray by pixel rules: an independent check of what was drawn from a report.

Boxes are in the phantoms' coordinates: from -1 to 1, x towards the patient's left, y down. Thresholds were set on
phantoms of the validation split, in the middle between those with and without a finding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from healthgpt.evaluation.pictures import Picture, as_grey

_SIDES = {"left": 1, "right": -1}
# (x from, x to, y from, y to), x on the patient's left, mirrored for the right.
_ANGLE = (0.57, 0.64, 0.30, 0.38)  # between diaphragm and ribs, where an effusion gathers
_APEX = (0.34, 0.56, -0.60, -0.40)
_FIELD = (0.37, 0.60, -0.44, 0.10)  # of the lung, without the heart
_RIGHT_HEART = (0.22, 0.34, 0.14, 0.26)  # where only an enlarged heart reaches
_FLUID, _FREE_AIR, _OPACITY, _DENSE, _HEART = 0.45, 0.115, 0.43, 0.645, 0.60
_DARKEST, _BRIGHTEST = 6, 5  # pixels that are averaged


def read_findings(picture: Picture) -> set[tuple[str, str | None]]:
    """(S, S[, 3]) -> the findings seen, each with its side; both sides are two of them."""
    grey = as_grey(picture)
    smooth = uniform_filter(grey, 3)
    found: set[tuple[str, str | None]] = set()
    for name, sign in _SIDES.items():
        if _values(grey, _ANGLE, sign).mean() > _FLUID:
            found.add(("pleural effusion", name))
        if np.sort(_values(smooth, _APEX, sign))[:_DARKEST].mean() < _FREE_AIR:
            found.add(("pneumothorax", name))
    if not found and _values(grey, _RIGHT_HEART, -1).mean() > _HEART:
        return {("cardiomegaly", None)}
    for name, sign in _SIDES.items():
        opacity = np.sort(_values(smooth, _FIELD, sign))[-_BRIGHTEST:].mean()
        if ("pleural effusion", name) not in found and opacity > _OPACITY:
            found.add(("nodule" if opacity > _DENSE else "consolidation", name))
    return found


def _values(grey: NDArray[np.float64], box: tuple[float, float, float, float], sign: int) -> NDArray[np.float64]:
    """The pixels of a box on one side."""
    steps = (np.arange(len(grey)) + 0.5) / len(grey) * 2 - 1
    x, y = np.meshgrid(sign * steps, steps)
    left, right, top, bottom = box
    return grey[(x >= left) & (x <= right) & (y >= top) & (y <= bottom)]
