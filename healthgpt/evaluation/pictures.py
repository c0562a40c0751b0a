"""How near a drawn picture is to the true one; pictures are uint8, (S, S) grey or (S, S, 3) colour."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Picture = NDArray[np.uint8]


def ssim(drawn: Picture, truth: Picture) -> float:
    """Structural similarity of the grey values, as Wang et al. 2004: Gaussian windows of 1.5 pixels, range 255."""
    return float(
        structural_similarity(
            as_grey(drawn),
            as_grey(truth),
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def psnr(drawn: Picture, truth: Picture) -> float:
    """Peak signal-to-noise ratio of the grey values in dB; 100 where the pictures are equal."""
    if np.array_equal(drawn, truth):
        return 100.0
    return float(peak_signal_noise_ratio(as_grey(truth), as_grey(drawn), data_range=1.0))


def as_grey(picture: Picture) -> NDArray[np.float64]:
    """(S, S) or (S, S, 3) uint8 -> (S, S) from 0 to 1."""
    return rgb2gray(picture) if picture.ndim == 3 else picture / 255.0
