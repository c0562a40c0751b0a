"""From a scan to pictures: which slice, of which plane, in which window.

What was chosen for the user is said: it is part of the picture's facts, and the commands print it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
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
    Table,
    Window,
    WindowChoice,
    parse_window,
    window_of_body_part,
)

_MONTAGE = 9  # slices, unless told
_SLICE = r"middle|[-+]?\d+(\.\d+)?\s*mm|\d+(\.\d+)?\s*%|0?\.\d+|1\.0*|\d+"
_SLICES = re.compile(rf"montage(:\d+)?|\s*({_SLICE})\s*(,\s*({_SLICE})\s*)*")
_NO_SLICE = "is none; expected an index, middle, 50%, -12.5mm or montage"
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
            ValueError: a window, slice or plane that is none.
        """
        if slice is not None and not _SLICES.fullmatch(str(slice).strip().lower()):
            raise ValueError(f"slice {str(slice)!r} {_NO_SLICE}")
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
    windows = _chosen_windows(scan, plan, view.window, indices)
    pictures = [_shown(scan, plan.slice(i), window) for i, window in zip(indices, windows, strict=True)]
    words = ["as stored" if window is None else str(window) for window in windows]
    if not (scan.picture and scan.ready) and not any(np.ptp(picture) for picture in pictures):
        raise ValueError(f"{scan.name}: there is nothing to see in the window {words[0]}, all is of one brightness")
    positions = [plan.position(i) for i in indices]
    row, column = plan.spacing[1:]
    spacing = (row, column) if row is not None and column is not None else None
    shared: dict[str, Any] = {
        "scan": scan,
        "plane": plan.plane or scan.frame_plane,
        "num_slices": plan.num_slices,
    }
    if montage:
        return [
            Seen(
                pixels=_montage(pictures, scan.name),
                window=", ".join(dict.fromkeys(words)),
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
            window=window,
            affine=plan.affine(i),
            **shared,
        )
        for i, pixels, position, window in zip(indices, pictures, positions, words, strict=True)
    ]


def _chosen_slices(plan: SlicePlan, text: str | None) -> tuple[bool, list[int]]:
    """Whether one montage is wanted, and the slices' indices."""
    count, name = plan.num_slices, plan.scan.name
    if text is None:
        if count > 1:
            raise ValueError(
                f"{name}: has {count} slices; choose with --slice: an index (0 to {count - 1}), middle, 50%, "
                "-12.5mm, montage, or several with commas"
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
        raise ValueError(f"slice {text!r} {_NO_SLICE}")
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


def _chosen_windows(
    scan: Scan, plan: SlicePlan, choice: WindowChoice, indices: list[int]
) -> Sequence[Window | Table | None]:
    """How the values of each slice become brightness; None where they are a picture already."""
    own = [scan.own_window(frames[len(frames) // 2]) for frames in map(plan.frames, indices)]
    if choice == AUTO:
        choice = FILE if scan.ready or None not in own else _automatic(scan)
    if choice == FILE:
        if not scan.ready and None in own:
            raise ValueError(f"{scan.name}: names no window of its own; give --window WIDTH/LEVEL or a name")
        return own
    if scan.ready and plan.slice(indices[0]).ndim == 3:
        raise ValueError(f"{scan.name}: a window is for grey values, and this is a colour image")
    if isinstance(choice, Percentiles):
        return [_between_percentiles(scan, plan, choice, indices)] * len(indices)
    assert isinstance(choice, Window)
    if choice.name in WINDOWS and (scan.modality not in (None, "CT") or scan.calibrated is False or scan.ready):
        kind = scan.modality if scan.modality not in (None, "CT") else "not calibrated"
        raise ValueError(f"{scan.name}: the window {choice} is in Hounsfield units, and the image is {kind}")
    return [choice] * len(indices)


def _automatic(scan: Scan) -> WindowChoice:
    """The window where neither the user nor the file names one."""
    if scan.unclear:
        raise ValueError(f"{scan.name}: {scan.unclear}; give --window WIDTH/LEVEL, percentile or minmax")
    if scan.modality == "CT" and scan.calibrated:
        return window_of_body_part(scan.body_part)
    if scan.modality is None:
        values = _finite(scan.volume)
        if values.size and _LOWEST_HU <= values.min() <= _AIR:
            return WINDOWS["soft tissue"]
    return Percentiles()


def _between_percentiles(scan: Scan, plan: SlicePlan, choice: Percentiles, indices: list[int]) -> Window:
    """Black and white by all of a volume, so that its slices are alike; by the slices, where frames are no volume."""
    whole = scan.axes is not None and scan.num_frames > 1
    values = _finite(scan.volume if whole else np.concatenate([plan.slice(i).ravel() for i in indices]))
    if scan.padding is not None:
        values = values[(values < scan.padding[0]) | (values > scan.padding[1])]
    if not values.size:
        raise ValueError(f"{scan.name}: has no value that is a number")
    low, high = (float(value) for value in np.percentile(values, [choice.low, choice.high]))
    if low == high:
        low, high = float(values.min()), float(values.max())
    if low == high:
        raise ValueError(f"{scan.name}: all values are {low:g}; there is nothing to see")
    if not np.isfinite(high - low):
        raise ValueError(f"{scan.name}: values from {low:g} to {high:g} are too far apart for a window")
    return Window(high - low, low / 2 + high / 2, f"percentile {choice.low:g}-{choice.high:g}", "LINEAR_EXACT")


def _finite(values: np.ndarray) -> np.ndarray:
    """The values that are numbers, without a copy where all have to be."""
    return values if np.issubdtype(values.dtype, np.integer) else values[np.isfinite(values)]


def _shown(scan: Scan, values: np.ndarray, window: Window | Table | None) -> np.ndarray:
    """A slice's values -> uint8."""
    if not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise ValueError(f"{scan.name}: {count} of the slice's {values.size} values are no finite numbers")
    grey = values if window is None else np.rint(window.apply(values) * 255)
    pixels = grey.astype(np.uint8)
    return 255 - pixels if scan.inverted else pixels


def _montage(pictures: list[np.ndarray], name: str) -> np.ndarray:
    """Pictures of one size in rows, the grid about square; what is left of it is black."""
    if len({picture.shape for picture in pictures}) > 1:
        raise ValueError(f"{name}: its slices are of several sizes, expected one for a montage")
    across = math.ceil(math.sqrt(len(pictures)))
    down = math.ceil(len(pictures) / across)
    rows, columns = pictures[0].shape[:2]
    sheet = np.zeros((down * rows, across * columns, *pictures[0].shape[2:]), np.uint8)
    for i, picture in enumerate(pictures):
        row, column = divmod(i, across)
        sheet[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns] = picture
    return sheet
