"""Drawing of anatomy: soft shapes on a fine grid, textures, and the step down to the pixels of an image.

Coordinates are (x, y) from -1 to 1, x to the viewer's right, y down; arrays are (FINE, FINE) float64, grey values from
0 to 1, masks from 0 (outside) to 1 (inside). Images show the patient as radiologists view them: the patient's left is
on the viewer's right.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.draw import polygon2mask
from skimage.transform import downscale_local_mean

from healthgpt.data.phantoms.phantom import SIDE

OVERSAMPLING = 2
FINE = SIDE * OVERSAMPLING
Array = NDArray[np.float64]
Point = tuple[float, float]

_STEPS = (np.arange(FINE) + 0.5) / FINE * 2 - 1
X, Y = np.meshgrid(_STEPS, _STEPS)
_PIXEL = 2 / FINE


def ellipse(
    center: Point, radii: Point, angle: float = 0.0, *, wobble: float = 0.0, rng: np.random.Generator | None = None
) -> Array:
    """Mask of an ellipse with a soft edge of one fine pixel.

    Args:
        angle: radians, clockwise on the screen.
        wobble: how far its outline strays, as a share of the radius; needs `rng`.
    """
    dx, dy = X - center[0], Y - center[1]
    u = (dx * np.cos(angle) + dy * np.sin(angle)) / radii[0]
    v = (-dx * np.sin(angle) + dy * np.cos(angle)) / radii[1]
    radius = np.hypot(u, v)
    outline = np.ones_like(radius)
    if wobble and rng is not None:
        theta = np.arctan2(v, u)
        for order in range(2, 6):
            outline += wobble / order * rng.normal() * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    return np.clip((outline - radius) * min(radii) / _PIXEL + 0.5, 0, 1)


def polygon(points: list[Point], softness: float = 1.0) -> Array:
    """Mask of a polygon, its edge blurred by `softness` fine pixels."""
    corners = [((y + 1) / 2 * FINE - 0.5, (x + 1) / 2 * FINE - 0.5) for x, y in points]
    return gaussian_filter(polygon2mask((FINE, FINE), corners).astype(np.float64), softness)


def curve(points: NDArray[np.float64], width: float) -> Array:
    """Mask of a line of `width` through points (N, 2), dense enough that each step is below the width."""
    mask = np.zeros((FINE, FINE))
    margin = width / 2 + _PIXEL
    for start, end in itertools.pairwise(points):
        # Only the pixels around a segment: a whole grid per segment would be most of the time of a phantom.
        columns = _reach(min(start[0], end[0]) - margin, max(start[0], end[0]) + margin)
        rows = _reach(min(start[1], end[1]) - margin, max(start[1], end[1]) + margin)
        dx, dy = X[rows, columns] - start[0], Y[rows, columns] - start[1]
        along = end - start
        share = np.clip((dx * along[0] + dy * along[1]) / max(float(along @ along), 1e-9), 0, 1)
        distance = np.hypot(dx - share * along[0], dy - share * along[1])
        part = np.clip((width / 2 - distance) / _PIXEL + 0.5, 0, 1)
        mask[rows, columns] = np.maximum(mask[rows, columns], part)
    return mask


def _reach(low: float, high: float) -> slice:
    """The fine pixels of a range of coordinates."""
    return slice(*(min(max(round((value + 1) / _PIXEL), 0), FINE) for value in (low - _PIXEL, high + _PIXEL)))


def paint(image: Array, mask: Array, value: float | Array) -> Array:
    """The image with a value where the mask is 1, and a mixture at its edge."""
    return image + mask * (value - image)


def texture(rng: np.random.Generator, scale: float) -> Array:
    """Smooth random texture of mean 0 and deviation 1, its grains about `scale` fine pixels wide."""
    grains = gaussian_filter(rng.standard_normal((FINE, FINE)), scale, mode="wrap")
    return (grains - grains.mean()) / grains.std()


def to_pixels(*channels: Array) -> NDArray[np.uint8]:
    """One grey or three colour arrays (FINE, FINE) -> (SIDE, SIDE, 3) uint8."""
    small = [downscale_local_mean(channel, (OVERSAMPLING, OVERSAMPLING)) for channel in channels]
    stacked = np.stack(small * 3 if len(small) == 1 else small, axis=-1)
    return np.rint(np.clip(stacked, 0, 1) * 255).astype(np.uint8)


def label(lesions: list[Array]) -> NDArray[np.uint8]:
    """Masks of lesions -> (SIDE, SIDE) uint8: 0, or the number (from 1) of the lesion that covers most of a pixel."""
    labels = np.zeros((SIDE, SIDE), np.uint8)
    for i, mask in enumerate(lesions, start=1):
        labels[downscale_local_mean(mask, (OVERSAMPLING, OVERSAMPLING)) > 0.5] = i
    return labels


def window(center: Point, reach: float) -> tuple[slice, slice]:
    """Rows and columns of the fine pixels within `reach` of a place, to draw there alone when there is much to draw."""
    return _reach(center[1] - reach, center[1] + reach), _reach(center[0] - reach, center[0] + reach)


def inside(distance: Array) -> Array:
    """Mask of where a signed distance to an outline is positive, with a soft edge of one fine pixel."""
    return np.clip(distance / _PIXEL + 0.5, 0, 1)


def scatter(rng: np.random.Generator, allowed: Array, radii: list[float], gap: float) -> list[tuple[Point, float]]:
    """Centres and radii of circles at least `gap` apart; fewer than asked for where there is no room.

    Args:
        allowed: mask of where a centre may lie.
        radii: of the circles, in the order in which they are placed.
    """
    room = np.where(allowed > 0.5, np.inf, -np.inf)  # how large a circle may be at each place
    circles: list[tuple[Point, float]] = []
    for radius in radii:
        candidates = np.flatnonzero(room > radius)
        if not candidates.size:
            continue
        place = candidates[rng.integers(candidates.size)]
        center = (float(X.flat[place]), float(Y.flat[place]))
        circles.append((center, radius))
        room = np.minimum(room, np.hypot(X - center[0], Y - center[1]) - radius - gap)
    return circles


def rgb(red: float, green: float, blue: float) -> Array:
    """A colour, shaped (3, 1, 1) so that `paint` lays it on an image (3, FINE, FINE)."""
    return np.array([red, green, blue]).reshape(3, 1, 1)


def pick_finding(rng: np.random.Generator, names: list[str], healthy: float) -> str | None:
    """None, for a healthy patient (by the chance `healthy`), or one of the findings, each as likely as the others."""
    return None if rng.random() < healthy else names[rng.integers(len(names))]
