"""How near a drawn picture is to the true one; pictures are uint8, (S, S) grey or (S, S, 3) colour.

Everything is measured on grey values. Inside a mask, SSIM is the mean of its map there, and errors are of its pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import rgb2gray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Picture = NDArray[np.uint8]
Mask = NDArray[np.bool_]
WHITE = 255
PSNR_OF_EQUALS = 100.0  # dB; it would be infinite, which no mean survives


def ssim(drawn: Picture, truth: Picture, mask: Mask | None = None) -> float:
    """Structural similarity of the grey values, as Wang et al. 2004: Gaussian windows of 1.5 pixels, range 255."""
    mean, similarity = structural_similarity(
        as_grey(drawn),
        as_grey(truth),
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean if mask is None else similarity[mask].mean())


def psnr(drawn: Picture, truth: Picture, mask: Mask | None = None) -> float:
    """Peak signal-to-noise ratio of the grey values in dB, their range being 255; 100 where the pictures are equal."""
    left, right = as_grey(truth), as_grey(drawn)
    if mask is not None:
        left, right = left[mask], right[mask]
    if np.array_equal(left, right):
        return PSNR_OF_EQUALS
    return float(peak_signal_noise_ratio(left, right, data_range=1.0))


def mse(drawn: Picture, truth: Picture, mask: Mask | None = None) -> float:
    """Mean squared error of the grey values, from 0 to 255."""
    return float(np.mean(_errors(drawn, truth, mask) ** 2))


def mae(drawn: Picture, truth: Picture, mask: Mask | None = None, *, white: float = WHITE) -> float:
    """Mean absolute error.

    Args:
        white: what the range from black to white is worth: 255 grey values, or the Hounsfield units of a window.
    """
    return float(np.mean(np.abs(_errors(drawn, truth, mask)))) * white / WHITE


def as_grey(picture: Picture) -> NDArray[np.float64]:
    """(S, S) or (S, S, 3) uint8 -> (S, S) from 0 to 1."""
    return rgb2gray(picture) if picture.ndim == 3 else picture / WHITE


def _errors(drawn: Picture, truth: Picture, mask: Mask | None) -> NDArray[np.float64]:
    errors = (as_grey(drawn) - as_grey(truth)) * WHITE
    return errors if mask is None else errors[mask]
