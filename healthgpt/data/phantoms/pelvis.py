"""The pelvis at the level of the bladder and the hip joints, axial, as CT (soft-tissue window) and T2 MRI see it."""

from __future__ import annotations

import numpy as np

from healthgpt.data.phantoms.canvas import Array, Point, ellipse, label, to_pixels
from healthgpt.data.phantoms.phantom import Finding, Phantom
from healthgpt.data.phantoms.scanners import TwoScans

FINDINGS = ("pelvic mass", "fluid collection", "bone metastasis")
_SIZES = {"small": (0.105, 0.125), "large": (0.18, 0.215)}
# Inside a femoral head there is less room.
_BONE_SIZES = {"small": (0.075, 0.085), "large": (0.13, 0.15)}
# Grey values (CT, T2) of tissues, each in its window.
SKIN, FAT, MUSCLE, URINE, WALL, CORTICAL, MARROW, GAS, STOOL = (
    (0.50, 0.35), (0.18, 0.72), (0.54, 0.22), (0.40, 1.00), (0.56, 0.30), (1.00, 0.04), (0.80, 0.55), (0.0, 0.02),
    (0.45, 0.45),
)  # fmt: skip
MASS, FLUID, LYSIS = (0.66, 0.46), (0.40, 0.98), (0.42, 0.95)


class Pelvis:
    """Position and size of one pelvis: the frame in which its parts are placed."""

    def __init__(self, rng: np.random.Generator):
        self.center = (rng.uniform(-0.03, 0.03), rng.uniform(-0.04, 0.04))
        self.radii = (rng.uniform(0.86, 0.94), rng.uniform(0.62, 0.72))
        self.tilt = rng.uniform(-0.06, 0.06)

    def at(self, x: float, y: float) -> Point:
        """A point given as shares of the body's radii (x towards the patient's left, y backwards)."""
        x, y = x * self.radii[0], y * self.radii[1]
        cos, sin = np.cos(self.tilt), np.sin(self.tilt)
        return self.center[0] + x * cos - y * sin, self.center[1] + x * sin + y * cos

    def oval(self, x: float, y: float, radii: Point, angle: float = 0.0) -> Array:
        """An ellipse at a place of the body, turning with it; its radii are shares of the image's half side."""
        return ellipse(self.at(x, y), radii, self.tilt + angle)


def draw_pelvis(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One pelvis; `healthy` is the chance of no finding."""
    pelvis, scans = Pelvis(rng), TwoScans()
    body = pelvis.oval(0, 0, pelvis.radii)
    hip = rng.uniform(0.165, 0.18)  # radius of a femoral head
    _draw_anatomy(rng, pelvis, scans, hip)
    finding: Finding | None = None
    masks: list[Array] = []
    if rng.random() >= healthy:
        finding, masks = _draw_lesion(rng, pelvis, scans)
    return Phantom(
        subject="pelvis",
        organ="pelvis",
        plane="axial",
        images={"CT": to_pixels(scans.ct(rng, cupping=body)), "MRI": to_pixels(scans.mri(rng))},
        finding=finding,
        lesions=label(masks),
    )


def _draw_anatomy(rng: np.random.Generator, pelvis: Pelvis, scans: TwoScans, hip: float) -> None:
    """Skin, fat, muscles, hips, sacrum, bladder and rectum."""
    rx, ry = pelvis.radii
    scans.paint(pelvis.oval(0, 0, (rx, ry)), SKIN)
    scans.paint(pelvis.oval(0, 0, (rx - 0.03, ry - 0.03)), FAT)
    fat = rng.uniform(0.07, 0.12)  # thickness under the skin
    scans.paint(pelvis.oval(0, 0, (rx - fat, ry - fat)), MUSCLE)
    scans.paint(pelvis.oval(0, -0.12, (0.52, 0.42)), FAT)  # around the organs
    for side in (-1, 1):
        scans.paint(pelvis.oval(side * 0.42, 0.62, (0.25, 0.17), side * -0.35), MUSCLE)  # gluteus
        scans.paint(pelvis.oval(side * 0.30, -0.72, (0.10, 0.07)), MUSCLE)  # rectus
        scans.paint(pelvis.oval(side * 0.30, 0.30, (0.07, 0.13), side * 0.5), MUSCLE)  # obturator
        scans.paint(pelvis.oval(side * 0.61, 0.03, (hip + 0.035, hip + 0.035)), CORTICAL)
        scans.paint(pelvis.oval(side * 0.61, 0.03, (hip, hip)), MARROW)
        scans.paint(pelvis.oval(side * 0.86, 0.10, (0.05, 0.085)), CORTICAL)  # greater trochanter
    scans.paint(pelvis.oval(0, 0.70, (0.12, 0.05)), CORTICAL)  # coccyx
    rectum = rng.uniform(0.09, 0.12)
    scans.paint(pelvis.oval(0, 0.42, (rectum + 0.025, rectum + 0.01)), WALL)
    scans.paint(pelvis.oval(0, 0.42, (rectum - 0.02, rectum - 0.03)), STOOL)
    scans.paint(pelvis.oval(0, 0.36, (rectum * 0.5, rectum * 0.35)), GAS)
    bladder = rng.uniform(0.15, 0.20), rng.uniform(0.12, 0.17)
    y = rng.uniform(-0.30, -0.22)
    scans.paint(pelvis.oval(0, y, (bladder[0] + 0.03, bladder[1] + 0.03)), WALL)
    scans.paint(pelvis.oval(0, y, bladder), URINE)


def _draw_lesion(rng: np.random.Generator, pelvis: Pelvis, scans: TwoScans) -> tuple[Finding, list[Array]]:
    name = FINDINGS[rng.integers(len(FINDINGS))]
    size = "small" if rng.random() < 0.5 else "large"
    side = -1 if rng.random() < 0.5 else 1
    radius = rng.uniform(*(_BONE_SIZES if name == "bone metastasis" else _SIZES)[size])
    radii = (radius, radius * rng.uniform(0.88, 1.0))
    if name == "bone metastasis":
        room = 0.02 if size == "large" else 0.06
        center = pelvis.at(side * 0.61 + rng.uniform(-room, room), 0.03 + rng.uniform(-room, room))
    else:
        center = pelvis.at(side * rng.uniform(0.36, 0.40), rng.uniform(-0.36, -0.22))
    shape = ellipse(center, radii, rng.uniform(0, np.pi), wobble=0.08, rng=rng)
    scans.paint(shape, {"pelvic mass": MASS, "fluid collection": FLUID, "bone metastasis": LYSIS}[name])
    return Finding(name=name, side="left" if side > 0 else "right", size=size), [shape]
