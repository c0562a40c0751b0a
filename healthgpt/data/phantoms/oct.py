"""OCT of the retina: a cross-section through the fovea, the vitreous above and the choroid below.

Depths are those of the canvas, down the image. The layers inside the outer plexiform one thin out in the foveal pit,
the outer ones keep their distance from the retinal pigment epithelium (RPE).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from healthgpt.data.phantoms.canvas import (
    OVERSAMPLING,
    Array,
    X,
    Y,
    ellipse,
    inside,
    label,
    paint,
    pick_finding,
    texture,
    to_pixels,
)
from healthgpt.data.phantoms.phantom import SIDE, Finding, Phantom

PIXEL = 2 / SIDE  # of an image, in the units of the canvas
VITREOUS = 0.05
FLUID = 0.04
# Share of the inner retina's thickness, from the vitreous, and its echo: nerve fibres, ganglion cells with inner
# plexiform layer, inner nuclear layer, outer plexiform layer.
INNER_SHARES = (0.0, 0.2, 0.26, 0.58, 0.64, 0.84, 0.9, 1.0)
INNER_ECHOES = (0.8, 0.78, 0.5, 0.5, 0.26, 0.26, 0.58, 0.55)
# Height above the RPE's lower edge, and echo: RPE, outer segments, ellipsoid zone, outer nuclear layer.
OUTER_HEIGHTS = (0.0, 0.07, 0.085, 0.11, 0.125, 0.16, 0.18)
OUTER_ECHOES = (0.95, 0.92, 0.42, 0.42, 0.72, 0.72, 0.2)
RPE_HEIGHT = 0.078  # where the retina ends and the RPE begins, above the RPE's lower edge
EDEMA = {"small": (2.2, 0.08, 0.1), "large": (3.9, 0.2, 0.28)}  # cysts' radius (pixels), half spread, swelling
FLUID_DOMES = {"small": (0.27, 0.16), "large": (0.58, 0.33)}  # half-width, height


@dataclass
class _Retina:
    """The surfaces of a retina, as depth at each place.

    Attributes:
        fovea: x of the pit.
        membrane: upper end of the retina.
        plexiform: lower end of the inner retina.
        base: lower end of the neurosensory retina, lifted by fluid; its outer layers hang above it.
        rpe: lower edge of the RPE.
    """

    fovea: float
    membrane: Array
    plexiform: Array
    base: Array
    rpe: Array


def _bump(center: float, half_width: float) -> Array:
    """A bell of height 1 around an x."""
    return np.exp(-(((X - center) / half_width) ** 2))


def _dome(center: float, half_width: float) -> Array:
    """A rounder bell of height 1 around an x."""
    return np.exp(-(np.abs((X - center) / half_width) ** 3))


def _healthy(rng: np.random.Generator, pit_depth: float) -> _Retina:
    fovea = rng.uniform(-0.2, 0.2)
    level = rng.uniform(0.2, 0.35) + rng.uniform(-0.15, 0.15) * X - rng.uniform(-0.02, 0.16) * X**2
    outer = rng.uniform(0.31, 0.35)  # thickness
    inner = rng.uniform(0.38, 0.44) * (1 - pit_depth * _bump(fovea, rng.uniform(0.26, 0.34)))
    inner = inner * (1 - 0.12 * (X - fovea) ** 2)
    return _Retina(fovea, level - outer - inner, level - outer, level, level)


def _swell(retina: _Retina, size: str, rng: np.random.Generator) -> Array:
    """Thicken the retina; returns the mask of the cysts in it."""
    radius, spread, swelling = EDEMA[size]
    rise = swelling * _bump(retina.fovea, spread + 0.2)
    retina.membrane = retina.membrane - rise
    retina.plexiform = retina.plexiform - 0.4 * rise
    cysts = np.zeros_like(X)
    depth = float(np.interp(retina.fovea, X[0], retina.plexiform[0]))
    for place in (-1.0, 0.0, 1.0):
        width = radius * PIXEL * (rng.uniform(0.9, 1.05) if place == 0 else rng.uniform(0.6, 0.9))
        x = retina.fovea + place * (spread + width) + rng.normal(0, 0.01)
        y = depth + rng.normal(0, 0.02) + 0.03 * abs(place)
        cysts = np.maximum(cysts, ellipse((x, y), (width, 1.25 * width), wobble=0.05, rng=rng))
    return cysts


def _lift_retina(retina: _Retina, size: str, rng: np.random.Generator) -> Array:
    """Lift the retina off the RPE; returns the mask of the fluid between them."""
    half_width, height = FLUID_DOMES[size]
    center = retina.fovea + rng.uniform(-0.12, 0.12)
    across = np.clip(1 - ((X - center) / (half_width * rng.uniform(0.95, 1.15))) ** 2, 0, None)
    lift = height * rng.uniform(0.92, 1.08) * across**1.3
    retina.membrane = retina.membrane - lift
    retina.plexiform = retina.plexiform - lift
    retina.base = retina.base - lift
    return inside(np.minimum(lift - (retina.rpe - RPE_HEIGHT - Y), retina.rpe - RPE_HEIGHT - Y))


def _lift_rpe(retina: _Retina, rng: np.random.Generator) -> Array:
    """Raise the RPE over drusen; returns their mask."""
    count = int(rng.integers(2, 5))
    membrane = retina.rpe
    lift = np.zeros_like(X)
    for center in np.linspace(-0.62, 0.62, count) + rng.uniform(-0.08, 0.08, count):
        lift = np.maximum(lift, rng.uniform(0.14, 0.18) * _dome(center, rng.uniform(0.11, 0.145)))
    retina.rpe = membrane - lift
    retina.base = membrane - lift
    retina.plexiform = retina.plexiform - 0.5 * lift
    return inside(np.minimum(membrane - Y, Y - retina.rpe)) * (lift > 0.03)


def _draw_layers(retina: _Retina, rng: np.random.Generator) -> Array:
    """The retina between vitreous and choroid."""
    below = np.maximum(Y - retina.rpe, 0)
    vessels = 1 + 0.17 * texture(rng, 5)
    image = np.where(retina.rpe < Y, (0.6 * np.exp(-below / rng.uniform(0.2, 0.3)) + 0.04) * vessels, VITREOUS)
    inner = np.maximum(retina.plexiform - retina.membrane, 0.02)
    echo = np.interp((Y - retina.membrane) / inner, INNER_SHARES, INNER_ECHOES)
    image = paint(image, inside(np.minimum(Y - retina.membrane, retina.rpe - Y)), echo)
    outer = np.interp(retina.base - Y, OUTER_HEIGHTS, OUTER_ECHOES)
    image = paint(image, inside(np.minimum(Y - retina.plexiform, retina.base - Y)), outer)
    return paint(image, inside(np.minimum(Y - retina.rpe + RPE_HEIGHT, retina.rpe - Y)), OUTER_ECHOES[0])


def draw_oct(rng: np.random.Generator, healthy: float = 0.35) -> Phantom:
    """One patient's macula; `healthy` is the chance of no finding."""
    name = pick_finding(rng, ["macular edema", "drusen", "subretinal fluid"], healthy)
    size = None if name in (None, "drusen") else str(rng.choice(["small", "large"]))
    retina = _healthy(rng, pit_depth=0.1 if name == "macular edema" else rng.uniform(0.7, 0.85))
    lesions: list[Array] = []
    if name == "macular edema":
        lesions = [_swell(retina, str(size), rng)]
    elif name == "drusen":
        lesions = [_lift_rpe(retina, rng)]
    elif name == "subretinal fluid":
        lesions = [_lift_retina(retina, str(size), rng)]
    image = _draw_layers(retina, rng)
    for lesion in lesions:
        image = paint(image, lesion, 0.5 if name == "drusen" else FLUID)
    image = image * rng.uniform(0.85, 1.05) * (1 + 0.04 * texture(rng, OVERSAMPLING))
    return Phantom(
        subject="OCT",
        organ="retina",
        plane=None,
        images={"OCT": to_pixels(image)},
        finding=None if name is None else Finding(name=name, size=size),
        lesions=label(lesions),
    )
