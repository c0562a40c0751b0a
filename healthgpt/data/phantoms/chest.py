"""The chest as a frontal X-ray sees it: dark lungs, white heart, ribs, and findings where a report places them."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from healthgpt.data.phantoms.canvas import FINE, Array, Point, X, Y, curve, ellipse, label, polygon, texture, to_pixels
from healthgpt.data.phantoms.phantom import Finding, Phantom

FINDINGS = ("pleural effusion", "pneumothorax", "cardiomegaly", "consolidation", "nodule")
LUNG_X, LUNG_RADII = 0.40, (0.27, 0.60)  # of a lung's oval, in shares of the image's half side
BASE_Y = 0.42
_NODULE_SIZES = {"small": (0.085, 0.10), "large": (0.15, 0.18)}
_OPACITY_SIZES = {"small": (0.14, 0.17), "large": (0.25, 0.30)}
# How far an effusion's level, and a collapsed lung's edge, reach into the lung.
_LEVELS = {"small": (0.20, 0.26), "large": (0.50, 0.60)}
_COLLAPSES = {"small": (0.10, 0.12), "large": (0.19, 0.23)}
_NOISE = 0.016  # of a fine pixel


def draw_chest(rng: np.random.Generator, healthy: float = 0.25) -> Phantom:
    """One chest; `healthy` is the chance of no finding."""
    finding = None if rng.random() < healthy else _choose(rng)
    wide = finding is not None and finding.name == "cardiomegaly"
    shift = rng.uniform(-0.02, 0.02), rng.uniform(-0.03, 0.03)
    scale = rng.uniform(0.96, 1.03)
    lungs = {side: _lung(rng, sign * scale, shift) for side, sign in (("right", -1), ("left", 1))}
    image = _draw_body(rng, lungs, shift, scale)
    image, heart = _draw_heart(rng, image, wide, shift)
    masks: list[Array] = [heart] if wide else []
    if finding is not None and finding.side is not None:
        sides = ("left", "right") if finding.side == "both" else (finding.side,)
        for side in sides:
            image, mask = _draw_finding(rng, image, finding, lungs[side], -1 if side == "right" else 1, shift)
            masks.append(mask)
    image = gaussian_filter(image, 0.8) + _NOISE * texture(rng, 0.5)
    return Phantom(
        subject="chest",
        organ="chest",
        plane="frontal",
        images={"X-ray": to_pixels(image)},
        finding=finding,
        lesions=label(masks),
    )


def _choose(rng: np.random.Generator) -> Finding:
    name = FINDINGS[rng.integers(len(FINDINGS))]
    if name == "cardiomegaly":
        return Finding(name=name)
    size = "small" if rng.random() < 0.5 else "large"
    side = "left" if rng.random() < 0.5 else "right"
    both = name in ("pleural effusion", "nodule") and rng.random() < 0.2
    return Finding(name=name, side="both" if both else side, size=size, count=2 if both else 1)


def _lung(rng: np.random.Generator, sign: float, shift: Point) -> Array:
    """Mask of one lung: an oval, cut off by the dome of the diaphragm below and the mediastinum inside."""
    x = shift[0] + sign * LUNG_X
    oval = ellipse((x, shift[1] - 0.04), (LUNG_RADII[0] * abs(sign), LUNG_RADII[1] * rng.uniform(0.98, 1.04)))
    oval = np.maximum(oval, ellipse((x + np.sign(sign) * 0.03, shift[1] + 0.16), (0.28, 0.42)))
    base = shift[1] + BASE_Y + rng.uniform(-0.02, 0.02) - (0.04 if sign < 0 else 0.0)  # the liver lifts the right one
    dome = base + 0.9 * (X - x + np.sign(sign) * 0.05) ** 2
    return oval * np.clip((dome - Y) * 32, 0, 1)


def _draw_body(rng: np.random.Generator, lungs: dict[str, Array], shift: Point, scale: float) -> Array:
    """Soft tissue, lungs with their vessels, ribs, clavicles, spine."""
    image = np.full_like(X, 0.03)
    trunk = polygon([(-0.30, -1.1), (-0.42, -0.86), (-0.95, -0.62), (-0.90, 1.1), (0.90, 1.1), (0.95, -0.62),
                     (0.42, -0.86), (0.30, -1.1)], softness=4)  # fmt: skip
    image += 0.50 * trunk
    image += 0.24 * np.clip((Y - shift[1] - 0.35) * 4, 0, 1) * trunk  # the abdomen
    image += 0.17 * np.exp(-(((X - shift[0]) / 0.13) ** 2))  # spine and mediastinum
    for lung in lungs.values():
        image -= 0.40 * gaussian_filter(lung, 1.2)
    air = np.maximum(lungs["left"], lungs["right"])
    for side in (-1, 1):
        hilum = shift[0] + side * 0.17, shift[1] - 0.02
        for angle in (-1.05, -0.45, 0.15, 0.75):
            end = hilum[0] + side * 0.30 * np.cos(angle), hilum[1] + 0.36 * np.sin(angle)
            image += 0.07 * gaussian_filter(curve(np.array([hilum, end]), 0.03), 1.0) * air
        image += 0.10 * np.exp(-(((X - hilum[0]) / 0.08) ** 2 + ((Y - hilum[1]) / 0.12) ** 2))
    return image + _bones(shift, scale)


def _bones(shift: Point, scale: float) -> Array:
    """Ribs and clavicles, faint arcs over the lungs."""
    bones = np.zeros_like(X)
    steps = np.linspace(0, 1, 6)
    for side in (-1, 1):
        for y in (-0.52, -0.30, -0.08, 0.14, 0.36):
            xs = shift[0] + side * scale * (0.12 + 0.56 * steps)
            bones += 0.06 * curve(np.stack([xs, shift[1] + y + 0.16 * steps**2], axis=1), 0.05)
        ends = [(shift[0] + side * 0.08, shift[1] - 0.60), (shift[0] + side * 0.62, shift[1] - 0.72)]
        bones += 0.10 * curve(np.array(ends), 0.06)
    return bones


def _draw_heart(rng: np.random.Generator, image: Array, wide: bool, shift: Point) -> tuple[Array, Array]:
    """The heart, mostly on the patient's left; more than half of the chest's width where it is enlarged."""
    width = rng.uniform(0.47, 0.52) if wide else rng.uniform(0.28, 0.31)
    center = shift[0] + (0.06 if wide else 0.10), shift[1] + 0.20
    shape = ellipse(center, (width, 0.30 if wide else 0.25), 0.35)
    shape = shape * np.clip((shift[1] + 0.50 - Y) * 16, 0, 1)
    soft = gaussian_filter(shape, 1.5)
    return image + soft * (0.78 - image), shape


def _draw_finding(
    rng: np.random.Generator, image: Array, finding: Finding, lung: Array, sign: int, shift: Point
) -> tuple[Array, Array]:
    """Paints a finding into one lung; returns the image and the finding's mask."""
    size = finding.size or "small"
    center_x = shift[0] + sign * LUNG_X
    if finding.name == "pleural effusion":
        level = shift[1] + BASE_Y + 0.10 - rng.uniform(*_LEVELS[size])
        meniscus = level - 0.9 * np.clip(sign * (X - center_x), -0.1, 0.3) ** 2 - 0.18 * sign * (X - center_x)
        mask = np.clip((Y - meniscus) * 24, 0, 1) * lung
        return image + mask * (0.77 - image), mask
    if finding.name == "pneumothorax":
        lateral = np.clip(0.5 + (sign * (X - center_x) + 0.10) * 8, 0, 1)
        return _draw_pneumothorax(image, lung, lateral, rng.uniform(*_COLLAPSES[size]))
    if finding.name == "consolidation":
        radius = rng.uniform(*_OPACITY_SIZES[size])
        center = center_x + sign * rng.uniform(0.0, 0.05), shift[1] + rng.uniform(-0.30, 0.02)
        mask = ellipse(center, (radius * 0.85, radius), wobble=0.25, rng=rng) * lung
        soft = gaussian_filter(mask, 3.0)
        return image + 0.72 * soft * (0.74 - image), mask
    radius = rng.uniform(*_NODULE_SIZES[size])
    center = center_x + sign * rng.uniform(-0.02, 0.06), shift[1] + rng.uniform(-0.38, 0.02)
    mask = ellipse(center, (radius, radius))
    return image + 0.9 * mask * (0.84 - image), mask


def _draw_pneumothorax(image: Array, lung: Array, lateral: Array, depth: float) -> tuple[Array, Array]:
    """Air without vessels between the chest wall and the thin white edge of the collapsed lung, widest at the apex."""
    top = float(Y[np.any(lung > 0.5, axis=1), 0].min())
    inward = gaussian_filter(lung, depth * FINE / 2)
    threshold = 0.86 - 0.45 * np.clip(Y - top, 0, 1)
    mask = np.clip((threshold - inward) * 12, 0, 1) * lung * lateral * (Y - top < 0.85)
    edge = np.clip(gaussian_filter(mask, 1.2) * (1 - mask) * 4, 0, 1) * lung * lateral
    return image + mask * (0.03 - image) + 0.30 * edge * (1 - image), mask
