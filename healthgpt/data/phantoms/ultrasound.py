"""Abdominal ultrasound: the fan of a curved probe over the liver, or over the gallbladder lying in it.

What matters in such an image follows the beams: fluid lets more sound through, so that what lies behind it is brighter
(posterior enhancement), and a stone lets none through (acoustic shadow).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    scatter,
    texture,
    to_pixels,
)
from healthgpt.data.phantoms.phantom import SIDE, Finding, Phantom

PIXEL = 2 / SIDE  # of an image, in the units of the canvas
BEAM_EDGE = 1.5 * PIXEL  # over which a shadow or an enhancement fades sideways
ANECHOIC = 0.03  # grey of fluid
VEIN_SHARE = 0.75  # of the veins lie in the plane of the image
LESION_RADII = {"small": (3.2, 4.0), "large": (6.2, 7.2)}  # pixels
LESION_GAP = 4.5  # pixels
STONE_RADII = (2.2, 2.6)  # pixels
# Depth under the probe's face and echo of skin, fat and muscle, until the liver begins.
WALL_DEPTHS = (0.0, 0.05, 0.08, 0.15, 0.18, 0.22, 0.25)
WALL_ECHOES = (0.75, 0.7, 0.35, 0.3, 0.65, 0.6, 0.0)


@dataclass(frozen=True)
class _Beams:
    """The fan: each place's depth under the probe's centre of curvature and angle from the vertical (radians)."""

    apex: Point
    depth: Array
    angle: Array
    near: float
    far: float
    half_angle: float

    @classmethod
    def aim(cls, rng: np.random.Generator) -> _Beams:
        near = rng.uniform(0.3, 0.45)
        apex = (rng.uniform(-0.05, 0.05), -0.95 - near)
        dx, dy = X - apex[0], Y - apex[1]
        half_angle = rng.uniform(0.6, 0.72)
        return cls(apex, np.hypot(dx, dy), np.arctan2(dx, dy), near, near + rng.uniform(1.78, 1.88), half_angle)

    def field(self, margin: float = 0.0) -> Array:
        """Mask of what the probe sees, less a margin."""
        sideways = (self.half_angle - np.abs(self.angle)) * self.depth
        return inside(np.minimum(np.minimum(self.depth - self.near, self.far - self.depth), sideways) - margin)

    def behind(self, center: Point, half_width: float, fade: float) -> Array:
        """Mask of the beams that have passed a thing, weaker with depth by a factor of e per `fade`."""
        dx, dy = center[0] - self.apex[0], center[1] - self.apex[1]
        depth = float(np.hypot(dx, dy))
        spread = half_width / depth - np.abs(self.angle - np.arctan2(dx, dy))
        beyond = self.depth - depth
        edge = np.clip(spread * self.depth / BEAM_EDGE + 0.5, 0, 1)
        return edge * inside(beyond) * np.exp(-np.maximum(beyond, 0) / fade)


def _liver(beams: _Beams, echo: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """The liver under the abdominal wall, down to the bright diaphragm; and its depth inside (negative beyond)."""
    image = echo * (1 + 0.08 * texture(rng, 12))
    dome_radius = rng.uniform(1.0, 1.2)
    dome = (beams.apex[0] + rng.uniform(-0.3, 0.3), rng.uniform(0.72, 0.88) - dome_radius)
    within = dome_radius - np.hypot(X - dome[0], Y - dome[1])
    deep = inside(Y - dome[1])
    image = paint(image, inside(-within) * deep, 0.16)
    image = paint(image, 0.9 * np.exp(-((within / 0.035) ** 2)) * deep, 0.9)
    under_probe = beams.depth - beams.near
    wall = np.interp(under_probe, WALL_DEPTHS, WALL_ECHOES)
    image = paint(image, inside(WALL_DEPTHS[-2] - under_probe), wall)
    depth_inside = np.minimum(np.where(deep > 0, within, np.inf), under_probe - WALL_DEPTHS[-1])
    return image, depth_inside


def _vein(rng: np.random.Generator, side: int) -> Array:
    """Mask of a hepatic vein: a thin bent tube running down towards the middle."""
    start = np.array([side * rng.uniform(0.25, 0.6), rng.uniform(-0.3, 0.15)])
    end = np.array([side * rng.uniform(-0.05, 0.15), rng.uniform(0.4, 0.62)])
    bend = (start + end) / 2 + rng.normal(0, 0.12, 2)
    t = np.linspace(0, 1, 7)[:, None]
    course = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
    width = rng.uniform(1.3, 1.7) * PIXEL
    return np.maximum(curve(course, width), curve(course[3:], 1.5 * width))  # wider towards the heart


def _draw_veins(image: Array, beams: _Beams, lesions: list[Array], rng: np.random.Generator) -> Array:
    """The image with those veins that keep clear of lesions: the stump of one would look like a cyst."""
    field = beams.field(0.05)
    for side in (-1, 1):
        vein = _vein(rng, side)
        if rng.random() < VEIN_SHARE and not any((vein * lesion).any() for lesion in lesions):
            image = paint(image, 0.75 * vein * field, 0.1)
    return image


def _draw_liver_lesions(
    image: Array, beams: _Beams, depth_inside: Array, name: str, rng: np.random.Generator
) -> tuple[Array, list[Array], str]:
    """The image with cysts or masses, their masks and their size."""
    size = str(rng.choice(list(LESION_RADII)))
    radii = [rng.uniform(*LESION_RADII[size]) * PIXEL for _ in range(rng.integers(1, 4))]
    allowed = inside(depth_inside - max(radii) - 2.5 * PIXEL) * beams.field(max(radii) + 2 * PIXEL)
    circles = scatter(rng, allowed, radii, LESION_GAP * PIXEL)
    lesions = []
    halos = []
    for center, radius in circles:
        wobble = 0.05 if name == "cyst" else 0.12
        stretch = rng.uniform(0.92, 1.08)
        lesions.append(ellipse(center, (radius * stretch, radius / stretch), wobble=wobble, rng=rng))
        halos.append(ellipse(center, (radius + 2 * PIXEL, radius + 2 * PIXEL)))
    image = _draw_veins(image, beams, halos, rng)
    if name == "cyst":
        for center, radius in circles:
            image = image * (1 + 0.7 * beams.behind(center, 0.9 * radius, fade=0.35))
    for lesion in lesions:
        image = paint(image, lesion, ANECHOIC if name == "cyst" else rng.uniform(0.82, 0.92))
    return image, lesions, size


@dataclass(frozen=True)
class _Gallbladder:
    """A pear: `u` runs along its axis from -1 at the neck to 1 at the fundus, `v` across it, deeper when positive.

    Attributes:
        tilt: radians by which the fundus lies deeper than the neck.
        facing: 1 with the fundus on the viewer's right, -1 on the left.
    """

    center: Point
    tilt: float
    facing: int
    length: float
    width: float

    def half_width(self, u: Array | float) -> Array:
        return self.width * np.sqrt(np.maximum(1 - np.square(u), 0)) * (1 + 0.35 * np.asarray(u))

    def mask(self, thicker: float = 0.0) -> Array:
        dx, dy = self.facing * (X - self.center[0]), Y - self.center[1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        u, v = (dx * cos + dy * sin) / (self.length + thicker), -dx * sin + dy * cos
        return inside(self.half_width(u) * (1 + thicker / self.width) - np.abs(v))

    def place(self, u: float, v: float) -> Point:
        """Where on the canvas a place of the pear is."""
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        along = u * self.length
        return self.center[0] + self.facing * (along * cos - v * sin), self.center[1] + along * sin + v * cos


def _draw_gallbladder(image: Array, beams: _Beams, rng: np.random.Generator) -> tuple[Array, _Gallbladder]:
    """The image with an empty gallbladder, its wall and the enhancement behind it."""
    pear = _Gallbladder(
        center=(rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.12)),
        tilt=rng.uniform(-0.2, 0.45),
        facing=int(rng.choice([-1, 1])),
        length=rng.uniform(0.48, 0.55),
        width=rng.uniform(0.21, 0.25),
    )
    image = image * (1 + 0.6 * beams.behind(pear.center, 0.8 * pear.length, fade=0.4))
    image = paint(image, pear.mask(1.6 * PIXEL), 0.75)
    return paint(image, pear.mask(), ANECHOIC), pear


def _draw_stones(
    image: Array, beams: _Beams, pear: _Gallbladder, rng: np.random.Generator
) -> tuple[Array, list[Array]]:
    """The image with stones on the deep wall of the gallbladder, and their masks."""
    count = int(rng.integers(1, 4))
    slots = {1: [rng.uniform(-0.3, 0.5)], 2: [-0.3, 0.45], 3: [-0.56, 0.02, 0.6]}[count]
    stones = []
    for slot in slots:
        u = slot + rng.uniform(-0.03, 0.03)
        radius = rng.uniform(*STONE_RADII) * PIXEL
        center = pear.place(u, float(pear.half_width(u)) - radius)
        stone = ellipse(center, (radius, radius), wobble=0.05, rng=rng)
        image = image * (1 - 0.88 * beams.behind(center, radius, fade=5.0))
        body = np.clip((center[1] + 0.6 * radius - Y) / radius, 0, 1)  # only the face towards the probe echoes
        image = paint(image, stone, 0.3 + 0.68 * body)
        stones.append(stone)
    return image, stones


def _expose(image: Array, beams: _Beams, rng: np.random.Generator) -> Array:
    """The image as the probe shows it: weaker with depth, speckled, black outside the fan."""
    attenuation = np.exp(-rng.uniform(0.1, 0.22) * (beams.depth - beams.near))
    speckle = 1 + 0.07 * texture(rng, OVERSAMPLING)
    return np.clip(image, 0, 0.98) * attenuation * speckle * beams.field()


def draw_ultrasound(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One patient's liver or gallbladder; `healthy` is the chance of no finding."""
    organ = "liver" if rng.random() < 0.5 else "gallbladder"
    name = pick_finding(rng, ["cyst", "hyperechoic mass"] if organ == "liver" else ["gallstone"], healthy)
    beams = _Beams.aim(rng)
    image, depth_inside = _liver(beams, rng.uniform(0.36, 0.48), rng)
    lesions: list[Array] = []
    size = None
    if organ == "gallbladder":
        image, pear = _draw_gallbladder(image, beams, rng)
        if name is not None:
            image, lesions = _draw_stones(image, beams, pear, rng)
    elif name is not None:
        image, lesions, size = _draw_liver_lesions(image, beams, depth_inside, name, rng)
    else:
        image = _draw_veins(image, beams, [], rng)
    return Phantom(
        subject="ultrasound",
        organ=organ,
        plane=None,
        images={"ultrasound": to_pixels(_expose(image, beams, rng))},
        finding=None if name is None else Finding(name=name, size=size, count=len(lesions)),
        lesions=label(lesions),
    )
