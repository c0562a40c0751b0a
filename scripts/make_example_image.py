"""Draws the demos' example image, a Shepp-Logan head phantom (Shepp & Logan 1974; Toft's contrast) of 256x256 pixels.

python scripts/make_example_image.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

# Ellipses: intensity added, half axes, centre, tilt in degrees; coordinates in [-1, 1].
ELLIPSES = (
    (1.0, 0.69, 0.92, 0.0, 0.0, 0),
    (-0.8, 0.6624, 0.874, 0.0, -0.0184, 0),
    (-0.2, 0.11, 0.31, 0.22, 0.0, -18),
    (-0.2, 0.16, 0.41, -0.22, 0.0, 18),
    (0.1, 0.21, 0.25, 0.0, 0.35, 0),
    (0.1, 0.046, 0.046, 0.0, 0.1, 0),
    (0.1, 0.046, 0.046, 0.0, -0.1, 0),
    (0.1, 0.046, 0.023, -0.08, -0.605, 0),
    (0.1, 0.023, 0.023, 0.0, -0.606, 0),
    (0.1, 0.023, 0.046, 0.06, -0.605, 0),
)
SIDE = 256


def main() -> None:
    axis = np.linspace(-1, 1, SIDE)
    x, y = np.meshgrid(axis, -axis)
    phantom = np.zeros((SIDE, SIDE))
    for intensity, width, height, center_x, center_y, tilt in ELLIPSES:
        cos, sin = np.cos(np.radians(tilt)), np.sin(np.radians(tilt))
        u = (x - center_x) * cos + (y - center_y) * sin
        v = (y - center_y) * cos - (x - center_x) * sin
        phantom[(u / width) ** 2 + (v / height) ** 2 <= 1] += intensity
    pixels = np.uint8(np.clip(phantom, 0, 1) * 255)
    path = Path(__file__).parents[1] / "healthgpt" / "examples" / "shepp_logan.png"
    Image.fromarray(pixels).save(path)
    print(path)


if __name__ == "__main__":
    main()
