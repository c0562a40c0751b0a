"""CT and MRI of the same anatomy: every tissue is painted into both, then each scanner adds its own artefacts."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from healthgpt.data.phantoms.canvas import FINE, Array, X, Y, paint, texture

NOISE = 0.016  # of a fine pixel; half of it remains in the image's pixels
BIAS = 0.06  # how far an MRI coil's sensitivity strays over the image
CUPPING = 0.05  # how much darker beam hardening makes the middle of a CT
_BLUR = 0.9  # fine pixels: the scanners' point spread


class TwoScans:
    """One body in two contrasts; values are pairs (CT, MRI) of grey from 0 to 1."""

    def __init__(self) -> None:
        self._ct = np.zeros((FINE, FINE))
        self._mri = np.zeros((FINE, FINE))

    def paint(self, mask: Array, values: tuple[float, float], strength: float = 1.0) -> None:
        """Fills a mask with a tissue, or lets it shine through what is there where `strength` is below 1."""
        self._ct = paint(self._ct, mask * strength, values[0])
        self._mri = paint(self._mri, mask * strength, values[1])

    def ct(self, rng: np.random.Generator, cupping: Array) -> Array:
        """The CT: beam hardening darkens the middle of the `cupping` mask; noise in the body, none in the air."""
        depth = gaussian_filter(cupping, FINE / 10)
        image = gaussian_filter(self._ct - CUPPING * depth * cupping, _BLUR)
        return image + NOISE * texture(rng, 0.5) * (image > 0.02)

    def mri(self, rng: np.random.Generator) -> Array:
        """The MRI: a coil's uneven sensitivity, and Rician noise, which is positive in the air."""
        direction = rng.uniform(0, 2 * np.pi)
        field = 1 + BIAS * (X * np.cos(direction) + Y * np.sin(direction))
        image = gaussian_filter(self._mri, _BLUR) * field
        return np.hypot(image + NOISE * texture(rng, 0.5), 0.6 * NOISE * texture(rng, 0.5))
