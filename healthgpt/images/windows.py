"""Windows: which values are black and which are white.

A window of width w and level c maps x to ((x - (c - 0.5)) / (w - 1) + 0.5), cut to 0...1: DICOM's LINEAR function
(PS3.3 C.11.2.1.2). Named ones are in Hounsfield units.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Window:
    """A width and a level (the middle), in the image's values.

    Attributes:
        function: DICOM's: LINEAR, LINEAR_EXACT or SIGMOID.
    """

    width: float
    level: float
    name: str | None = None
    function: str = "LINEAR"

    def __post_init__(self) -> None:
        least = 1 if self.function == "LINEAR" else 0
        if not (np.isfinite(self.width) and np.isfinite(self.level)):
            raise ValueError(f"a window of width {self.width} and level {self.level} is none")
        if self.width < least or self.width == 0:
            raise ValueError(f"a window's width is {self.width:g}, expected at least 1")

    def __str__(self) -> str:
        numbers = f"{self.width:g}/{self.level:g}"
        return f"{self.name} ({numbers})" if self.name else numbers

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Values -> brightness in 0...1, float64, of the same shape."""
        values = values.astype(np.float64)
        if self.function == "SIGMOID":
            with np.errstate(over="ignore"):  # far below the level, where 1 / infinity is the 0 that is meant
                return 1 / (1 + np.exp(-4 * (values - self.level) / self.width))
        if self.function == "LINEAR_EXACT":
            return np.clip((values - self.level) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (values > self.level - 0.5).astype(np.float64)
        return np.clip((values - (self.level - 0.5)) / (self.width - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class Table:
    """A file's own table.

    Attributes:
        apply: values -> brightness in 0...1.
    """

    apply: Callable[[np.ndarray], np.ndarray]

    def __str__(self) -> str:
        return "the file's table"


WINDOWS: Mapping[str, Window] = {
    name: Window(width, level, name)
    for name, width, level in (
        ("brain", 80, 40),
        ("subdural", 215, 75),
        ("stroke", 40, 40),
        ("bone", 1800, 400),
        ("lung", 1500, -600),
        ("mediastinum", 350, 50),
        ("abdomen", 400, 50),
        ("liver", 150, 30),
        ("soft tissue", 400, 40),
    )
}
# DICOM's BodyPartExamined -> the window in which a CT of it is mostly read.
_BY_BODY_PART = (
    (("HEAD", "BRAIN", "SKULL"), "brain"),
    (("CHEST", "LUNG", "THORAX"), "lung"),
    (("LIVER",), "liver"),
    (("ABDOMEN", "PELVIS", "KIDNEY", "COLON"), "abdomen"),
    (("SPINE", "EXTREMITY", "KNEE", "HIP", "ANKLE", "FOOT", "HAND", "WRIST", "ELBOW", "SHOULDER"), "bone"),
)  # fmt: skip


@dataclass(frozen=True)
class Percentiles:
    """Black and white by the values' own percentiles, for scanners without units (MRI, ultrasound)."""

    low: float = 0.5
    high: float = 99.5

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 100:
            raise ValueError(f"percentiles {self.low:g}-{self.high:g}, expected two between 0 and 100, the lower first")

    def __str__(self) -> str:
        return f"percentile ({self.low:g}-{self.high:g})"


AUTO, FILE = "auto", "file"
WindowChoice = Window | Percentiles | str


def parse_window(text: str) -> WindowChoice:
    """`auto`, `file` (the file's own), a name, `WIDTH/LEVEL`, `percentile`, `percentile:LOW-HIGH` or `minmax`.

    Raises:
        ValueError: something else.
    """
    name = " ".join(text.lower().replace("_", " ").replace("-", " ").split()) if text[:1].isalpha() else text
    if name in WINDOWS:
        return WINDOWS[name]
    if name in (AUTO, FILE):
        return name
    if name == "percentile":
        return Percentiles()
    if name == "minmax":
        return Percentiles(0, 100)
    number = r"([-+]?\d+(?:\.\d+)?)"
    if match := re.fullmatch(rf"percentile:{number}-{number}", text.lower()):
        return Percentiles(float(match[1]), float(match[2]))
    if match := re.fullmatch(rf"\s*{number}\s*/\s*{number}\s*", text):
        return Window(float(match[1]), float(match[2]))
    names = ", ".join(sorted(WINDOWS))
    raise ValueError(f"window {text!r} is none; expected auto, file, WIDTH/LEVEL, percentile, minmax or one of {names}")


def window_of_body_part(body_part: str | None) -> Window:
    """The window of a CT whose file names none."""
    for parts, name in _BY_BODY_PART:
        if body_part and any(part in body_part for part in parts):
            return WINDOWS[name]
    return WINDOWS["soft tissue"]
