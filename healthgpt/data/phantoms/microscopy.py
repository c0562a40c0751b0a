"""Microscopy: a section of colon in hematoxylin and eosin, or a blood smear in Giemsa."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healthgpt.data.phantoms.canvas import (
    FINE,
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
    window,
)
from healthgpt.data.phantoms.phantom import SIDE, Finding, Phantom

PIXEL = 2 / SIDE  # of an image, in the units of the canvas
# Colon: lengths in pixels.
GLAND_SPACING = 23
GLAND_RADII = (8.2, 9.6)
NUCLEI_PER_GLAND = (13, 17)
TUMOR_RADII = (21, 27)
TUMOR_NUCLEUS_RADII = (1.5, 2.5)
TUMOR_NUCLEUS_SPACING = 5.4
STROMA_NUCLEI = 9
# Blood: lengths in pixels.
RED_CELL_RADII = (5.4, 6.2)
WHITE_CELL_RADII = (7.8, 8.8)
CELL_GAP = 1.2
WHITE_CELL_GAP = 3
RED_CELLS = 14  # tried to place; fewer where white cells take the room
WHOLE_RED_CELLS = 7  # of these, not cut by the image's border: those that parasites may live in
PARASITE_RADIUS = 2.1


@dataclass(frozen=True)
class _Patch:
    """The part of an image around a place: drawing there alone keeps an image of a hundred nuclei quick.

    Attributes:
        dx: of each of its pixels from the place; `dy` likewise.
    """

    pixels: tuple[slice, slice]
    dx: Array
    dy: Array

    @classmethod
    def around(cls, center: Point, reach: float) -> _Patch:
        pixels = window(center, reach)
        return cls(pixels, X[pixels] - center[0], Y[pixels] - center[1])

    def turned(self, angle: float) -> tuple[Array, Array]:
        """Distances along and across an axis (radians, clockwise on the screen)."""
        cos, sin = np.cos(angle), np.sin(angle)
        return self.dx * cos + self.dy * sin, -self.dx * sin + self.dy * cos

    def oval(self, length: float, width: float, angle: float) -> Array:
        """Mask of an ellipse around the place, by its half axes."""
        u, v = self.turned(angle)
        return inside((1 - np.hypot(u / length, v / width)) * width)

    def paint(self, image: Array, mask: Array, color: Array) -> None:
        """Lay a colour on the image, in place."""
        part = image[:, *self.pixels]
        image[:, *self.pixels] = paint(part, mask, color)


def _gland_centers(rng: np.random.Generator) -> list[Point]:
    """Centres of glands packed as test tubes are, each a little off its place."""
    turn, origin = rng.uniform(0, np.pi / 3), rng.uniform(-0.4, 0.4, 2)
    step = GLAND_SPACING * PIXEL
    centers = []
    for row in range(-3, 4):
        for column in range(-3, 4):
            x, y = step * (column + row / 2), step * row * np.sqrt(3) / 2
            x, y = x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)
            center = np.array([x, y]) + origin + rng.normal(0, 0.02, 2)
            if np.abs(center).max() < 1 + step / 3:
                centers.append((float(center[0]), float(center[1])))
    return centers


def _draw_gland(image: Array, center: Point, hematoxylin: Array, rng: np.random.Generator) -> None:
    """A crypt: pale lumen, lilac epithelium, a row of purple nuclei around."""
    patch = _Patch.around(center, 1.25 * GLAND_RADII[1] * PIXEL)
    stretch = rng.uniform(1.0, 1.14)
    u, v = patch.turned(rng.uniform(0, np.pi))
    distance, theta = np.hypot(u / stretch, v * stretch), np.arctan2(v, u)
    radius = rng.uniform(*GLAND_RADII) * PIXEL * (1 + 0.05 * np.cos(3 * theta + rng.uniform(0, 2 * np.pi)))
    patch.paint(image, inside(radius - distance), rgb(0.86, 0.7, 0.85))
    patch.paint(image, inside(rng.uniform(0.36, 0.46) * radius - distance), rgb(0.97, 0.93, 0.96))
    count = rng.integers(NUCLEI_PER_GLAND[0], NUCLEI_PER_GLAND[1] + 1)
    around = np.clip(1.6 * np.cos(count * theta + rng.uniform(0, 2 * np.pi)) + 0.9, 0, 1)
    ring = inside(1.15 * PIXEL - np.abs(distance - 0.83 * radius))
    patch.paint(image, ring * (0.35 + 0.65 * around), hematoxylin)


def _draw_stroma_nuclei(image: Array, glands: list[Point], hematoxylin: Array, rng: np.random.Generator) -> None:
    """Sparse thin nuclei between the glands."""
    stroma = np.ones_like(X)
    clearance = (GLAND_RADII[1] + 1.5) * PIXEL
    for center in glands:
        patch = _Patch.around(center, clearance)
        stroma[patch.pixels] *= 1 - patch.oval(clearance, clearance, 0)
    for center, _ in scatter(rng, stroma, [PIXEL] * STROMA_NUCLEI, 2 * PIXEL):
        patch = _Patch.around(center, 3 * PIXEL)
        patch.paint(image, 0.8 * patch.oval(1.5 * PIXEL, 0.8 * PIXEL, rng.uniform(0, np.pi)), hematoxylin)


def _draw_tumor(image: Array, hematoxylin: Array, rng: np.random.Generator) -> Array:
    """A mass of crowded, dark, irregular nuclei in place of glands; returns its mask."""
    middle = rng.uniform(-0.45, 0.45, 2)
    radii = (rng.uniform(*TUMOR_RADII) * PIXEL, rng.uniform(*TUMOR_RADII) * PIXEL)
    mass = ellipse((middle[0], middle[1]), radii, rng.uniform(0, np.pi), wobble=0.12, rng=rng)
    image[:] = paint(image, mass, rgb(0.82, 0.54, 0.74))
    reach = int(1.5 * max(TUMOR_RADII) / TUMOR_NUCLEUS_SPACING)
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1.0)] * 2), axis=-1).reshape(-1, 2)
    steps[:, 0] += 0.5 * (steps[:, 1] % 2)  # rows offset against each other, as things pack
    centers = middle + (steps * [1, 0.87] * TUMOR_NUCLEUS_SPACING + rng.normal(0, 0.7, steps.shape)) * PIXEL
    at = np.clip(((centers + 1) / 2 * FINE).astype(int), 0, FINE - 1)
    for x, y in centers[(mass[at[:, 1], at[:, 0]] > 0.5) & (np.abs(centers).max(axis=1) < 1 + 2 * PIXEL)]:
        patch = _Patch.around((x, y), TUMOR_NUCLEUS_RADII[1] * 1.5 * PIXEL)
        width = rng.uniform(*TUMOR_NUCLEUS_RADII) * PIXEL
        nucleus = patch.oval(width * rng.uniform(1.1, 1.5), width, rng.uniform(0, np.pi)) * mass[patch.pixels]
        patch.paint(image, nucleus, rng.uniform(0.6, 0.9) * hematoxylin)
    return mass


def _draw_colon(name: str | None, rng: np.random.Generator) -> tuple[Array, list[Array]]:
    """A section of mucosa across its glands; and the masks of lesions."""
    stroma = rgb(rng.uniform(0.88, 0.95), rng.uniform(0.58, 0.68), rng.uniform(0.72, 0.8))
    hematoxylin = rgb(rng.uniform(0.36, 0.46), rng.uniform(0.2, 0.27), rng.uniform(0.52, 0.6))
    image = stroma * (1 + 0.03 * texture(rng, 5))
    centers = _gland_centers(rng)
    for center in centers:
        _draw_gland(image, center, hematoxylin, rng)
    _draw_stroma_nuclei(image, centers, hematoxylin, rng)
    if name is None:
        return image, []
    return image, [_draw_tumor(image, hematoxylin, rng)]


def _draw_red_cell(image: Array, center: Point, radius: float, color: Array, rng: np.random.Generator) -> None:
    """A disc that is paler in its middle."""
    stretch = rng.uniform(0.95, 1.05)
    patch = _Patch.around(center, 1.1 * radius)
    cell = patch.oval(radius * stretch, radius / stretch, rng.uniform(0, np.pi))
    pallor = np.exp(-((np.hypot(patch.dx, patch.dy) / (0.45 * radius)) ** 2))
    patch.paint(image, cell, color * rng.uniform(0.96, 1.04))
    patch.paint(image, 0.75 * pallor * cell, rgb(0.97, 0.86, 0.84))


def _draw_white_cell(image: Array, center: Point, radius: float, rng: np.random.Generator) -> None:
    """A neutrophil: pale lilac, its purple nucleus of three or four lobes in a chain."""
    patch = _Patch.around(center, 1.1 * radius)
    stretch = rng.uniform(0.95, 1.05)
    patch.paint(image, patch.oval(radius * stretch, radius / stretch, rng.uniform(0, np.pi)), rgb(0.8, 0.74, 0.88))
    lobes = int(rng.integers(3, 5))
    angles = rng.uniform(0, 2 * np.pi) + np.arange(lobes) * rng.uniform(1.25, 1.5)
    places = np.array(center) + 0.45 * radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    nucleus = curve(places, 0.3 * radius)
    for place in places:
        nucleus = np.maximum(nucleus, curve(np.array([place, place]), 2 * rng.uniform(0.3, 0.36) * radius))
    patch.paint(image, nucleus[patch.pixels], rgb(0.36, 0.16, 0.55))


def _draw_parasite(image: Array, cell: Point, rng: np.random.Generator) -> Array:
    """A ring form in a red cell: a purple ring with a dark dot on it; returns its mask."""
    offset, angle = rng.uniform(0.5, 1.5) * PIXEL, rng.uniform(0, 2 * np.pi)
    center = cell[0] + offset * np.cos(angle), cell[1] + offset * np.sin(angle)
    radius = PARASITE_RADIUS * PIXEL
    patch = _Patch.around(center, 2 * radius)
    distance = np.hypot(patch.dx, patch.dy)
    patch.paint(image, inside(0.6 * PIXEL - np.abs(distance - 0.75 * radius)), rgb(0.36, 0.12, 0.5))
    turn = rng.uniform(0, 2 * np.pi)
    dot = 0.75 * radius * np.cos(turn), 0.75 * radius * np.sin(turn)
    chromatin = inside(1.1 * PIXEL - np.hypot(patch.dx - dot[0], patch.dy - dot[1]))
    patch.paint(image, chromatin, rgb(0.22, 0.02, 0.3))
    mask = np.zeros_like(X)
    mask[patch.pixels] = np.maximum(inside(radius - distance), chromatin)
    return mask


def _take_room(free: Array, center: Point, radius: float) -> None:
    """Take from the places where the centre of a red cell may lie those too close to a cell."""
    free *= np.hypot(X - center[0], Y - center[1]) > radius + (RED_CELL_RADII[1] + CELL_GAP) * PIXEL


def _draw_blood(name: str | None, rng: np.random.Generator) -> tuple[Array, list[Array], int]:
    """A smear; the masks of lesions; and the number of white cells, each wholly in the image."""
    background = rgb(rng.uniform(0.93, 0.97), rng.uniform(0.9, 0.94), rng.uniform(0.87, 0.93))
    color = rgb(rng.uniform(0.84, 0.92), rng.uniform(0.52, 0.6), rng.uniform(0.52, 0.6))
    image = background * np.ones_like(X)
    free = np.ones_like(X)  # where the centre of a red cell may lie
    border = 1 - np.maximum(np.abs(X), np.abs(Y))
    radii = [rng.uniform(*WHITE_CELL_RADII) * PIXEL for _ in range(rng.integers(4))]
    whites = scatter(rng, inside(border - (WHITE_CELL_RADII[1] + 1) * PIXEL), radii, WHITE_CELL_GAP * PIXEL)
    for center, radius in whites:
        _draw_white_cell(image, center, radius, rng)
        _take_room(free, center, radius)
    sizes = [rng.uniform(*RED_CELL_RADII) * PIXEL for _ in range(RED_CELLS)]
    whole = scatter(rng, free * inside(border - RED_CELL_RADII[1] * PIXEL), sizes[:WHOLE_RED_CELLS], CELL_GAP * PIXEL)
    for center, radius in whole:
        _take_room(free, center, radius)
    for center, radius in whole + scatter(rng, free, sizes[WHOLE_RED_CELLS:], CELL_GAP * PIXEL):
        _draw_red_cell(image, center, radius, color, rng)
    if name is None:
        return image, [], len(whites)
    parasites = np.zeros_like(X)
    for i in rng.permutation(len(whole))[: rng.integers(3, 7)]:
        parasites = np.maximum(parasites, _draw_parasite(image, whole[i][0], rng))
    return image, [parasites], len(whites)


def draw_microscopy(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One patient's colon or blood; `healthy` is the chance of no finding."""
    organ = "colon" if rng.random() < 0.5 else "blood"
    name = pick_finding(rng, ["adenocarcinoma" if organ == "colon" else "malaria parasites"], healthy)
    facts = {}
    if organ == "colon":
        image, lesions = _draw_colon(name, rng)
    else:
        image, lesions, white_cells = _draw_blood(name, rng)
        facts["white cells"] = str(white_cells)
    image = image * (1 + 0.018 * texture(rng, OVERSAMPLING / 2))
    return Phantom(
        subject="microscopy",
        organ=organ,
        plane=None,
        images={"microscopy": to_pixels(*image)},
        finding=None if name is None else Finding(name=name),
        lesions=label(lesions),
        facts=facts,
    )
