"""The head at the level of the lateral ventricles, axial, as CT (brain window) and T2-weighted MRI see it.

On CT the skull is white, fluid nearly black, blood bright; on T2 the skull is black, fluid bright, blood dark.
"""

from __future__ import annotations

import numpy as np

from healthgpt.data.phantoms.canvas import Array, Point, X, Y, curve, ellipse, label, to_pixels
from healthgpt.data.phantoms.phantom import Finding, Phantom
from healthgpt.data.phantoms.scanners import TwoScans

FINDINGS = ("hemorrhage", "infarct", "tumor")
# Radii of lesions as shares of the image's half side (32 pixels), with a gap between small and large.
_SIZES = {"small": (0.11, 0.13), "large": (0.20, 0.25)}
_TUMOR_GROWTH, _NECROTIC_SHARE = 1.25, 0.62  # a tumor is larger than other lesions, so that its ring can be seen
# Grey values (CT, T2) of tissues, each in its window.
SCALP, BONE, FLUID, CORTEX, WHITE = (0.35, 0.50), (1.0, 0.06), (0.10, 0.95), (0.50, 0.58), (0.42, 0.40)
BLOOD, CLOT_RIM, ISCHEMIA, EDEMA, TUMOR, NECROSIS = (
    (0.85, 0.12), (0.34, 0.75), (0.22, 0.84), (0.30, 0.74), (0.78, 0.16), (0.30, 0.95),
)  # fmt: skip


class Head:
    """Position, size and tilt of one head: the frame in which its parts are placed."""

    def __init__(self, rng: np.random.Generator):
        self.center = (rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04))
        self.radii = (rng.uniform(0.66, 0.76), rng.uniform(0.80, 0.90))
        self.tilt = rng.uniform(-0.14, 0.14)

    def at(self, x: float, y: float) -> Point:
        """A point given as shares of the head's radii (x towards the patient's left, y backwards)."""
        x, y = x * self.radii[0], y * self.radii[1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.center[0] + x * cos - y * sin, self.center[1] + x * sin + y * cos

    def oval(self, x: float, y: float, radii: Point, angle: float = 0.0) -> Array:
        """An ellipse at a place of the head, turning with it; its radii are shares of the head's."""
        return ellipse(self.at(x, y), (radii[0] * self.radii[0], radii[1] * self.radii[1]), self.tilt + angle)


def draw_brain(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One head; `healthy` is the chance of no finding."""
    head, scans = Head(rng), TwoScans()
    brain = _draw_anatomy(rng, head, scans)
    finding: Finding | None = None
    masks: list[Array] = []
    if rng.random() >= healthy:
        finding, masks = _draw_lesions(rng, head, scans, brain)
    return Phantom(
        subject="brain",
        organ="brain",
        plane="axial",
        images={
            "CT": to_pixels(scans.ct(rng, cupping=brain)),
            "MRI": to_pixels(scans.mri(rng)),
        },
        finding=finding,
        lesions=label(masks),
    )


def _draw_anatomy(rng: np.random.Generator, head: Head, scans: TwoScans) -> Array:
    """Scalp, skull, cortex, white matter, ventricles; returns the mask of the brain."""
    skull = rng.uniform(0.075, 0.10)  # thickness, as a share of the head's radius
    scans.paint(head.oval(0, 0, (1.0, 1.0)), SCALP)
    scans.paint(head.oval(0, 0, (0.96, 0.96)), BONE)
    inside = 0.96 - skull
    scans.paint(head.oval(0, 0, (inside, inside)), FLUID)
    brain = head.oval(0, 0, (inside - 0.03, inside - 0.03))
    scans.paint(brain, CORTEX)
    for side in (-1, 1):
        white = head.oval(side * 0.36, 0.0, (0.30, 0.62), side * -0.06)
        scans.paint(white, WHITE)
        scans.paint(head.oval(side * 0.27, 0.02, (0.11, 0.20), side * -0.3), CORTEX)  # basal ganglia
    _draw_sulci(rng, head, scans, inside)
    width, length = rng.uniform(0.055, 0.10), rng.uniform(0.20, 0.27)
    for side in (-1, 1):
        scans.paint(head.oval(side * (0.05 + width), -0.22, (width, length), side * -0.30), FLUID)  # frontal horn
        scans.paint(head.oval(side * (0.08 + width), 0.32, (0.9 * width, length), side * 0.32), FLUID)  # occipital horn
    scans.paint(head.oval(0, 0.05, (0.03, 0.12)), FLUID)  # third ventricle
    return brain


def _draw_sulci(rng: np.random.Generator, head: Head, scans: TwoScans, inside: float) -> None:
    """Fluid in the fissure between the hemispheres and in some folds of the cortex."""
    for start, end in ((-0.52, -inside), (0.60, inside)):
        scans.paint(curve(np.array([head.at(0, start), head.at(0, end)]), 0.035), FLUID, strength=0.75)
    for side in (-1, 1):
        for angle in rng.uniform(-0.12, 0.12) + np.array([-0.9, -0.1, 0.75]):
            outer = head.at(side * 0.83 * np.cos(angle), 0.83 * np.sin(angle))
            inner = head.at(side * 0.66 * np.cos(angle + 0.07), 0.66 * np.sin(angle + 0.07))
            scans.paint(curve(np.array([outer, inner]), 0.03), FLUID, strength=0.6)


def _draw_lesions(rng: np.random.Generator, head: Head, scans: TwoScans, brain: Array) -> tuple[Finding, list[Array]]:
    """One or two lesions of one kind and size, one per hemisphere."""
    name = FINDINGS[rng.integers(len(FINDINGS))]
    size = "small" if rng.random() < 0.5 else "large"
    count = 2 if rng.random() < 0.25 else 1
    sides = (-1, 1) if count == 2 else (-1 if rng.random() < 0.5 else 1,)
    masks = []
    for side in sides:
        center = head.at(side * rng.uniform(0.47, 0.55), rng.uniform(-0.36, 0.36))
        masks.append(_draw_lesion(rng, scans, name, center, rng.uniform(*_SIZES[size]), brain))
    where = "both" if count == 2 else "left" if sides[0] > 0 else "right"
    return Finding(name=name, side=where, size=size, count=count), masks


def _draw_lesion(
    rng: np.random.Generator, scans: TwoScans, name: str, center: Point, radius: float, brain: Array
) -> Array:
    angle = rng.uniform(0, np.pi)
    radius *= _TUMOR_GROWTH if name == "tumor" else 1.0
    radii = (radius * rng.uniform(0.95, 1.1), radius * rng.uniform(0.85, 1.0))
    shape = ellipse(center, radii, angle, wobble=0.10, rng=rng) * brain
    if name == "hemorrhage":
        scans.paint(ellipse(center, (radii[0] * 1.3, radii[1] * 1.3), angle) * brain, CLOT_RIM, strength=0.6)
        scans.paint(shape, BLOOD)
    elif name == "infarct":
        scans.paint(shape, ISCHEMIA)
    else:
        halo = np.exp(-(((X - center[0]) / radii[0]) ** 2 + ((Y - center[1]) / radii[1]) ** 2) / 2.5)
        scans.paint(np.clip(halo * 1.6, 0, 0.8) * (shape < 0.5) * brain, EDEMA, strength=0.7)
        scans.paint(shape, TUMOR)
        scans.paint(ellipse(center, (radii[0] * _NECROTIC_SHARE, radii[1] * _NECROTIC_SHARE), angle) * brain, NECROSIS)
    return shape
