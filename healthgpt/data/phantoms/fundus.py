"""Fundus photography: the back of one eye, with its optic disc, vessels and macula.

The disc lies on the side of the nose: on the image's right in a right eye, on its left in a left eye.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from healthgpt.data.phantoms.canvas import (
    OVERSAMPLING,
    Array,
    Point,
    X,
    Y,
    curve,
    ellipse,
    inside,
    label,
    paint,
    pick_finding,
    rgb,
    scatter,
    texture,
    to_pixels,
)
from healthgpt.data.phantoms.phantom import SIDE, Finding, Phantom

PIXEL = 2 / SIDE  # of an image, in the units of the canvas
FIELD_RADIUS = 0.97
CUP_TO_DISC = {"healthy": (0.3, 0.38), "glaucomatous": (0.78, 0.84)}
BLOT_RADII = (2.6, 3.6)  # pixels
BLOT_GAP = 4.5  # pixels
EXUDATE_RADII = (1.1, 1.8)  # pixels
VEIN, ARTERY = rgb(0.42, 0.06, 0.05), rgb(0.6, 0.12, 0.07)
RIM, CUP = rgb(0.96, 0.66, 0.36), rgb(1.0, 0.95, 0.78)
BLOOD, LIPID = rgb(0.26, 0.0, 0.03), rgb(1.0, 0.93, 0.42)


@dataclass(frozen=True)
class _Eye:
    """Where things are; `nasal` is 1 where the nose is on the viewer's right, -1 where on the left."""

    nasal: int
    disc: Point
    disc_radius: float
    macula: Point

    @classmethod
    def place(cls, rng: np.random.Generator) -> _Eye:
        nasal = int(rng.choice([-1, 1]))
        disc = (nasal * rng.uniform(0.46, 0.56), rng.uniform(-0.12, 0.08))
        macula = (disc[0] - nasal * rng.uniform(0.78, 0.88), disc[1] + rng.uniform(0.02, 0.14))
        return cls(nasal, disc, rng.uniform(6.3, 7.4) * PIXEL, macula)


def _draw_background(eye: _Eye, rng: np.random.Generator) -> Array:
    """The orange-red retina, darker towards the edge and in the macula, (3, FINE, FINE)."""
    color = rng.uniform(0.78, 0.95) * rgb(1.0, rng.uniform(0.36, 0.5), rng.uniform(0.14, 0.24))
    center = np.hypot(X - rng.uniform(-0.15, 0.15), Y - rng.uniform(-0.15, 0.15))
    light = 1.05 - 0.25 * center**2 + 0.025 * texture(rng, 10)
    macula = np.exp(-((np.hypot(X - eye.macula[0], Y - eye.macula[1]) / rng.uniform(0.2, 0.26)) ** 2))
    darkening = 1 - rgb(0.35, 0.55, 0.5) * macula
    return color * light * darkening


def _vessel(eye: _Eye, up: int, temporal: bool, outwards: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """Courses of a vessel that leaves the disc upwards (`up` -1) or downwards, and of its branch, (N, 2) each.

    Temporal ones arch around the macula, nasal ones go straight to the edge; a branch may leave the arch outwards, or
    inwards to the macula.
    """
    t = np.linspace(0, 1, 9)
    if temporal:
        across = -1.45 * t**1.35
        along = rng.uniform(0.58, 0.72) * np.sin(np.pi * rng.uniform(0.62, 0.72) * t) ** 0.75
    else:
        across, along = rng.uniform(0.35, 0.6) * t**0.8, rng.uniform(0.5, 0.8) * t**1.3
    sway = 0.03 * np.sin(2 * np.pi * (rng.uniform(0.9, 1.5) * t + rng.random())) * t
    root = eye.disc[0] + eye.nasal * 0.3 * eye.disc_radius  # beside the cup, towards the nose
    course = np.stack([root + eye.nasal * (across + sway), eye.disc[1] + up * (along + sway)], axis=-1)
    heading = rng.uniform([-0.5, 0.3], [-0.2, 0.5]) if outwards else rng.uniform([-0.35, -0.3], [-0.2, -0.2])
    bow = np.linspace(0, 1, 4)[:, None]
    branch = course[rng.integers(2, 5)] + bow**1.2 * heading * [eye.nasal, up]
    return course, branch


def _draw_vessels(image: Array, eye: _Eye, cup: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """The image with four pairs of vein and artery; and the mask of them all."""
    visible = 0.85 * (1 - 0.75 * cup)  # in the cup the vessels run into the depth
    vessels = np.zeros_like(X)
    for color, width, outwards in ((VEIN, 1.6, True), (ARTERY, 1.1, False)):
        mask = np.zeros_like(X)
        for up, temporal in ((-1, True), (1, True), (-1, False), (1, False)):
            thick = width * (1.0 if temporal else 0.75) * rng.uniform(0.9, 1.1) * PIXEL
            course, branch = _vessel(eye, up, temporal, outwards, rng)
            mask = np.maximum(mask, np.maximum(curve(course[:6], thick), curve(course[5:], 0.7 * thick)))
            if temporal:
                mask = np.maximum(mask, curve(branch, 0.75 * thick))
        image = paint(image, mask * visible, color)
        vessels = np.maximum(vessels, mask)
    return image, vessels


def _draw_disc(image: Array, eye: _Eye, cupped: bool, rng: np.random.Generator) -> tuple[Array, Array]:
    """The image with the optic disc under the vessels' roots; and the mask of its cup."""
    share = rng.uniform(*CUP_TO_DISC["glaucomatous" if cupped else "healthy"])
    tall = rng.uniform(1.02, 1.08)
    disc = ellipse(eye.disc, (eye.disc_radius / tall, eye.disc_radius * tall))
    cup = ellipse(eye.disc, (share * eye.disc_radius / tall, share * eye.disc_radius * tall))
    image = paint(image, 0.9 * disc, RIM * rng.uniform(0.94, 1.02))
    return paint(image, 0.92 * cup, CUP), cup


def _free_places(eye: _Eye, margin: float) -> Array:
    """Mask of the retina clear of disc, macula and edge."""
    from_disc = np.hypot(X - eye.disc[0], Y - eye.disc[1]) - eye.disc_radius
    from_macula = np.hypot(X - eye.macula[0], Y - eye.macula[1]) - 3 * PIXEL
    from_edge = FIELD_RADIUS - np.hypot(X, Y)
    return inside(np.minimum(np.minimum(from_disc, from_macula), from_edge) - margin)


def _draw_hemorrhages(image: Array, eye: _Eye, vessels: Array, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """The image with one to three blots, and their masks."""
    radii = [rng.uniform(*BLOT_RADII) * PIXEL for _ in range(rng.integers(1, 4))]
    blots = []
    margin = max(radii) + 1.5 * PIXEL
    from_vessels = distance_transform_edt(vessels < 0.1) * PIXEL / OVERSAMPLING
    allowed = _free_places(eye, margin) * (from_vessels > margin)
    for center, radius in scatter(rng, allowed, radii, BLOT_GAP * PIXEL):
        stretch = rng.uniform(0.88, 1.12)
        blots.append(ellipse(center, (radius * stretch, radius / stretch), wobble=0.12, rng=rng))
        image = paint(image, 0.95 * blots[-1], BLOOD)
    return image, blots


def _draw_exudates(image: Array, eye: _Eye, rng: np.random.Generator) -> tuple[Array, Array]:
    """The image with a group of yellow spots near the macula, and the mask of them all."""
    radii = [rng.uniform(*EXUDATE_RADII) * PIXEL for _ in range(rng.integers(6, 11))]
    center = eye.macula[0] + eye.nasal * rng.uniform(-0.1, 0.2), eye.macula[1] + rng.uniform(-0.25, 0.25)
    near = ellipse(center, (0.42, 0.42)) * _free_places(eye, max(radii))
    spots = np.zeros_like(X)
    for place, radius in scatter(rng, near, radii, PIXEL):
        ends = np.array([place, place + rng.normal(0, 0.3, 2) * PIXEL])
        spots = np.maximum(spots, curve(ends, 2 * radius))
    return paint(image, spots, LIPID), spots


def draw_fundus(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One eye of a patient; `healthy` is the chance of no finding."""
    name = pick_finding(rng, ["hemorrhage", "hard exudates", "glaucomatous cupping"], healthy)
    eye = _Eye.place(rng)
    image = _draw_background(eye, rng)
    image, cup = _draw_disc(image, eye, name == "glaucomatous cupping", rng)
    image, vessels = _draw_vessels(image, eye, cup, rng)
    lesions: list[Array] = []
    if name == "hemorrhage":
        image, lesions = _draw_hemorrhages(image, eye, vessels, rng)
    elif name == "hard exudates":
        image, spots = _draw_exudates(image, eye, rng)
        lesions = [spots]
    elif name == "glaucomatous cupping":
        lesions = [cup]
    grain = 1 + 0.02 * texture(rng, OVERSAMPLING / 2)
    image = image * grain * inside(FIELD_RADIUS - np.hypot(X, Y))
    return Phantom(
        subject="fundus",
        organ="retina",
        plane=None,
        images={"fundus photography": to_pixels(*image)},
        finding=None if name is None else Finding(name=name, count=len(lesions)),
        lesions=label(lesions),
        facts={"eye": "right" if eye.nasal == 1 else "left"},
    )
