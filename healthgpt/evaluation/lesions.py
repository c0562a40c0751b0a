"""Lesions in converted images, which the similarity of whole images hides: are they there, and are none invented?

The truth is the phantom's own image in the target modality; its healthy twin is the same patient without the lesions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_opening, gaussian_filter
from scipy.ndimage import label as connected

from healthgpt.evaluation.pictures import Picture, as_grey

_SHARE = 0.5  # of what a lesion changes that must be drawn
_STRANGE = 0.15  # of the grey range: a deviation that a reader would call a lesion
_SMALLEST = 12  # pixels: less than the smallest lesion of a phantom covers


def lesions_kept(drawn: Picture, truth: Picture, healthy: Picture, lesions: NDArray[np.uint8]) -> bool:
    """Whether every lesion is there, in its place and of its contrast.

    What a lesion changes is truth - healthy over its pixels. The share of it that is drawn is the least-squares factor
    of drawn - healthy on it: 1 in the truth, 0 where nothing is drawn, negative where dark was drawn bright.
    """
    for number in range(1, int(lesions.max()) + 1):
        where = lesions == number
        base = as_grey(healthy)[where]
        change, found = as_grey(truth)[where] - base, as_grey(drawn)[where] - base
        if (found @ change) / (change @ change) < _SHARE:
            return False
    return True


def lesion_invented(drawn: Picture, truth: Picture) -> bool:
    """Whether a healthy patient's drawn image has a spot as large and as strange as a lesion."""
    deviation = np.abs(gaussian_filter(as_grey(drawn) - as_grey(truth), 0.7)) > _STRANGE
    # Opening removes thin lines, which are edges drawn a pixel beside their place.
    spots, count = connected(binary_opening(deviation, np.ones((3, 3))))
    return any((spots == i).sum() >= _SMALLEST for i in range(1, count + 1))
