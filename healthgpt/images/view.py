"""From a scan to pictures: which slice, of which plane, in which window.

What was chosen for the user is said: it is part of the picture's facts, and the commands print it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.images.scan import Plane, Scan, SlicePlan
from healthgpt.images.windows import (
    AUTO,
    FILE,
    WINDOWS,
    Percentiles,
    Window,
    WindowChoice,
    parse_window,
    window_of_body_part,
)

_MONTAGE = 9  # slices, unless told
_SQUARE = 0.01  # by which the spacings of rows and columns may differ and pixels still be square
# Values as low as air's and no lower than a CT's lowest: nothing but CT is stored so.
_AIR, _LOWEST_HU = -900, -4096


@dataclass(frozen=True, kw_only=True)
class View:
    """How an image is to be looked at.

    Attributes:
        window: `windows.parse_window`'s.
        slice: an index (`12`), millimetres (`-31.5mm`), a part (`50%`), `middle`, `montage` or `montage:N`, several of
            the first four with commas between; None where there is one slice only.
        plane: None for the file's own.
        volume: which of several in one file.
    """

    window: WindowChoice = AUTO
    slice: str | None = None
    plane: Plane | None = None
    volume: int | None = None

    @classmethod
    def of(
        cls,
        window: str | None = None,
        slice: str | int | None = None,
        plane: str | None = None,
        volume: int | None = None,
    ) -> View:
        """A view from text.

        Raises:
            ValueError: a window or plane that is none.
        """
        if plane is not None and plane not in set(Plane):
            raise ValueError(f"plane {plane!r} is none of {', '.join(Plane)}")
        return cls(
            window=parse_window(window or AUTO),
            slice=None if slice is None else str(slice),
            plane=Plane(plane) if plane else None,
            volume=volume,
        )


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One picture of a scan.

    Attributes:
        pixels: (R, C) or (R, C, 3) uint8.
        spacing: millimetres between rows and columns; None where it is unknown, and for montages.
        frames: those of the scan that it was cut from.
        slices: the indices shown; positions: their millimetres along the plane's normal.
        window: what was black and white, in words.
        affine: (4, 4), from (column, row, 0) to millimetres; None where it is unknown, and for montages.
    """

    scan: Scan
    pixels: np.ndarray
    plane: Plane | None
    spacing: tuple[float, float] | None
    frames: tuple[int, ...]
    slices: tuple[int, ...]
    positions: tuple[float | None, ...]
    num_slices: int
    window: str
    affine: np.ndarray | None

    def facts(self) -> dict[str, Any]:
        """What `healthgpt view --json` says; nothing of it names a patient."""
        one = len(self.slices) == 1
        positions = [None if place is None else round(place, 3) for place in self.positions]
        return {
            "modality": self.scan.modality,
            "body_part": self.scan.body_part,
            "window": self.window,
            "plane": self.plane,
            "spacing": [round(length, 6) for length in self.spacing] if self.spacing else None,
            "shape": list(self.pixels.shape),
            "slice": self.slices[0] if one else list(self.slices),
            "position_mm": positions[0] if one else positions,
            "slices": self.num_slices,
            "frames": self.scan.num_frames,
        }

    def native(self) -> Image.Image:
        """The pixels as they are: 8-bit grey, or RGB."""
        return Image.fromarray(self.pixels)

    def picture(self) -> Image.Image:
        """RGB for the model, with square pixels: of rows and columns, those that lie farther apart are stretched."""
        image = self.native().convert("RGB")
        if self.spacing is None:
            return image
        row, column = self.spacing
        if abs(row - column) <= _SQUARE * min(row, column):
            return image
        finest = min(row, column)
        size = (max(1, round(image.width * column / finest)), max(1, round(image.height * row / finest)))
        return image.resize(size, Image.Resampling.BICUBIC)


def look(scan: Scan, view: View = View()) -> list[Seen]:
    """The pictures that a view shows of a scan.

    Raises:
        ValueError: a slice is needed or is not there, a window does not fit, or values that are no numbers.
    """
    plan = scan.plane_of(view.plane)
    montage, indices = _chosen_slices(plan, view.slice)
    brightness, words = _chosen_window(scan, plan, view.window, indices)
    pictures = [_shown(scan, plan.slice(i), brightness) for i in indices]
    if not scan.ready and not any(np.ptp(picture) for picture in pictures):
        raise ValueError(f"{scan.name}: there is nothing to see in the window {words}, all is of one brightness")
    positions = [plan.position(i) for i in indices]
    row, column = plan.spacing[1:]
    spacing = (row, column) if row is not None and column is not None else None
    shared: dict[str, Any] = {
        "scan": scan,
        "plane": plan.plane or scan.frame_plane,
        "num_slices": plan.num_slices,
        "window": words,
    }
    if montage:
        return [
            Seen(
                pixels=_montage(pictures),
                spacing=None,
                frames=tuple(sorted({frame for i in indices for frame in plan.frames(i)})),
                slices=tuple(indices),
                positions=tuple(positions),
                affine=None,
                **shared,
            )
        ]
    return [
        Seen(
            pixels=pixels,
            spacing=spacing,
            frames=tuple(plan.frames(i)),
            slices=(i,),
            positions=(position,),
            affine=plan.affine(i),
            **shared,
        )
        for i, pixels, position in zip(indices, pictures, positions, strict=True)
    ]


def _chosen_slices(plan: SlicePlan, text: str | None) -> tuple[bool, list[int]]:
    """Whether one montage is wanted, and the slices' indices."""
    count, name = plan.num_slices, plan.scan.name
    if text is None:
        if count > 1:
            raise ValueError(
                f"{name}: has {count} slices; choose with --slice: an index (0 to {count - 1}), middle, 50%, "
                "12.5mm, montage, or several with commas"
            )
        return False, [0]
    if match := re.fullmatch(r"montage(?::(\d+))?", text.strip().lower()):
        wanted = min(count, int(match[1] or _MONTAGE))
        if wanted < 1:
            raise ValueError(f"slice {text!r}: a montage has at least one")
        return True, [round((i + 0.5) * count / wanted - 0.5) for i in range(wanted)]
    return False, [_one_slice(plan, part.strip().lower()) for part in text.split(",")]


def _one_slice(plan: SlicePlan, text: str) -> int:
    count, name = plan.num_slices, plan.scan.name
    if text == "middle":
        return count // 2
    if match := re.fullmatch(r"([-+]?\d+(?:\.\d+)?)\s*mm", text):
        return _nearest(plan, float(match[1]))
    if match := re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", text):
        part = float(match[1]) / 100
    elif re.fullmatch(r"0?\.\d+|1\.0*", text):
        part = float(text)
    elif re.fullmatch(r"\d+", text):
        if int(text) >= count:
            raise ValueError(f"{name}: slice {text} is not there; it has {count}, numbered from 0")
        return int(text)
    else:
        raise ValueError(f"slice {text!r} is none; expected an index, middle, 50%, 12.5mm or montage")
    if part > 1:
        raise ValueError(f"slice {text!r} is past the end")
    return min(count - 1, math.floor(part * count))


def _nearest(plan: SlicePlan, place: float) -> int:
    positions = [plan.position(i) for i in range(plan.num_slices)]
    if positions[0] is None:
        raise ValueError(f"{plan.scan.name}: slices have no positions in millimetres; choose one by its index")
    known = np.array(positions, float)
    i = int(np.abs(known - place).argmin())
    step = plan.spacing[0] or 0
    if abs(known[i] - place) > max(step, 1e-6):
        raise ValueError(
            f"{plan.scan.name}: {place:g} mm is outside; its slices lie from {known.min():g} to {known.max():g} mm"
        )
    return i


def _chosen_window(
    scan: Scan, plan: SlicePlan, choice: WindowChoice, indices: list[int]
) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """How values become brightness (0...1), and that in words."""
    if choice == AUTO:
        choice = _automatic(scan, plan, indices)
    if choice == FILE:
        if scan.lookup:
            return scan.lookup, "the file's table"
        if scan.windows:
            return scan.windows[0].apply, str(scan.windows[0])
        if scan.ready:
            return _as_stored, "as stored"
        raise ValueError(f"{scan.name}: names no window of its own; give --window WIDTH/LEVEL or a name")
    if scan.ready and len(plan.slice(indices[0]).shape) == 3:
        raise ValueError(f"{scan.name}: a window is for grey values, and this is a colour image")
    if isinstance(choice, Percentiles):
        low, high = _percentiles(scan, plan, choice, indices)
        exact = Window(high - low, (low + high) / 2, f"percentile {choice.low:g}-{choice.high:g}", "LINEAR_EXACT")
        return exact.apply, str(exact)
    assert isinstance(choice, Window)
    if choice.name in WINDOWS and (scan.modality not in (None, "CT") or scan.calibrated is False or scan.ready):
        kind = scan.modality if scan.modality not in (None, "CT") else "not calibrated"
        raise ValueError(f"{scan.name}: the window {choice} is in Hounsfield units, and the image is {kind}")
    return choice.apply, str(choice)


def _automatic(scan: Scan, plan: SlicePlan, indices: list[int]) -> WindowChoice:
    """The window where the user names none."""
    if scan.ready or scan.lookup or scan.windows:
        return FILE
    if scan.unclear:
        raise ValueError(f"{scan.name}: {scan.unclear}; give --window WIDTH/LEVEL, percentile or minmax")
    if scan.modality == "CT" and scan.calibrated:
        return window_of_body_part(scan.body_part)
    if scan.modality is None:
        values = plan.slice(indices[0])
        if _LOWEST_HU <= values.min() <= _AIR:
            return WINDOWS["soft tissue"]
    return Percentiles()


def _percentiles(scan: Scan, plan: SlicePlan, choice: Percentiles, indices: list[int]) -> tuple[float, float]:
    """Black and white by all of a volume, so that its slices are alike; by the frame, where frames are no volume."""
    whole = scan.axes is not None and scan.num_frames > 1
    values = scan.volume if whole else np.stack([plan.slice(i) for i in indices])
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ValueError(f"{scan.name}: has no value that is a number")
    low, high = np.percentile(finite, [choice.low, choice.high])
    if low == high:
        low, high = finite.min(), finite.max()
    if low == high:
        raise ValueError(f"{scan.name}: all values are {low:g}; there is nothing to see")
    return float(low), float(high)


def _shown(scan: Scan, values: np.ndarray, brightness: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A slice's values -> uint8."""
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"{scan.name}: {count} of the slice's {values.size} values are no finite numbers")
    grey = values if brightness is _as_stored else np.rint(brightness(values) * 255)
    pixels = grey.astype(np.uint8)
    return 255 - pixels if scan.inverted else pixels


def _as_stored(values: np.ndarray) -> np.ndarray:
    return values


def _montage(pictures: list[np.ndarray]) -> np.ndarray:
    """Pictures of one size in rows, the grid about square; what is left of it is black."""
    across = math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    rows, columns = pictures[0].shape[:2]
    sheet = np.zeros((down * rows, across * columns, *pictures[0].shape[2:]), np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, across)
        sheet[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = picture
    return sheet
