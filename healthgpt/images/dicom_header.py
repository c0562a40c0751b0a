"""What a DICOM file's header says of its frames: geometry, rescaling, windows.

No value of a header enters a message or a log, but for what says how pixels are to be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from healthgpt.images.quiet import quiet
from healthgpt.images.windows import Table, Window


class Instance:
    """A DICOM file of which the header is at hand; `read` gives it with its pixels."""

    def __init__(self, dataset: Any, name: str, read: Callable[[], Any]):
        self.dataset = dataset
        self.name = name
        self.read = read

    @property
    def num_frames(self) -> int:
        return int(self.dataset.get("NumberOfFrames", 1) or 1)

    def group(self, frame: int, sequence: str) -> Any:
        """Where a functional group's fields are: the frame's, the shared ones, or the header itself."""
        for outer, place in (("PerFrameFunctionalGroupsSequence", frame), ("SharedFunctionalGroupsSequence", 0)):
            groups = self.dataset.get(outer)
            if groups and place < len(groups) and groups[place].get(sequence):
                return groups[place][sequence][0]
        return self.dataset

    def numbers(self, frame: int, sequence: str, field: str, count: int) -> np.ndarray | None:
        """A field's numbers, or None where it is missing or is not of so many finite ones."""
        try:
            found = np.array([float(number) for number in listed(self.group(frame, sequence).get(field))], float)
        except (TypeError, ValueError):
            return None
        return found if found.shape == (count,) and np.isfinite(found).all() else None

    def position(self, frame: int) -> np.ndarray | None:
        return self.numbers(frame, "PlanePositionSequence", "ImagePositionPatient", 3)

    def directions(self, frame: int) -> np.ndarray | None:
        """(2, 3): along a row (to the next column), and along a column."""
        found = self.numbers(frame, "PlaneOrientationSequence", "ImageOrientationPatient", 6)
        if found is None or np.linalg.norm(np.cross(found[:3], found[3:])) < 0.5:
            return None
        return found.reshape(2, 3)

    def spacing(self, frame: int) -> tuple[float, float] | None:
        """Millimetres between rows and between columns."""
        found = self.numbers(frame, "PixelMeasuresSequence", "PixelSpacing", 2)
        if found is None:
            found = self.numbers(frame, "PixelMeasuresSequence", "ImagerPixelSpacing", 2)
        return (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else None

    def thickness(self, frame: int) -> float:
        """Millimetres; 1 where the file does not say."""
        found = self.numbers(frame, "PixelMeasuresSequence", "SliceThickness", 1)
        return float(found[0]) if found is not None and found[0] > 0 else 1.0

    def rescale(self, frame: int) -> tuple[float, float]:
        """Slope and intercept.

        Raises:
            ValueError: they make no values.
        """
        group = self.group(frame, "PixelValueTransformationSequence")
        slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
        found = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
        if not np.isfinite(found).all() or found[0] == 0:
            raise ValueError(f"{self.name}: a rescaling of slope {found[0]} and intercept {found[1]} is none")
        return found

    def is_plain(self) -> bool:
        """Whether stored values are the modality's."""
        return self.rescale(0) == (1, 0) and not self.dataset.get("ModalityLUTSequence")

    def is_calibrated(self) -> bool | None:
        """Whether values are Hounsfield units; CT with no rescaling at all may be anything. None of others."""
        if self.dataset.get("Modality") != "CT":
            return None
        if table := self.dataset.get("ModalityLUTSequence"):
            return table[0].get("ModalityLUTType") == "HU"
        group = self.group(0, "PixelValueTransformationSequence")
        return "RescaleSlope" in group and str(group.get("RescaleType") or "HU") == "HU"

    def padding(self) -> tuple[float, float] | None:
        """From the lowest to the highest of the modality's values that stand for no pixel."""
        value = self.dataset.get("PixelPaddingValue")
        if value is None or self.dataset.get("ModalityLUTSequence"):
            return None
        slope, intercept = self.rescale(0)
        limit = self.dataset.get("PixelPaddingRangeLimit")
        low, high = sorted(int(end) * slope + intercept for end in (value, value if limit is None else limit))
        return low, high

    def window(self, frame: int) -> Window | Table | None:
        """The file's own: its table, else its first window that is one."""
        if self.dataset.get("VOILUTSequence"):
            return self._table()
        group = self.group(frame, "FrameVOILUTSequence")
        function = str(group.get("VOILUTFunction") or "LINEAR").upper()
        for level, width in zip(listed(group.get("WindowCenter")), listed(group.get("WindowWidth")), strict=False):
            try:
                return Window(float(width), float(level), "file", function)
            except (TypeError, ValueError):
                continue
        return None

    def _table(self) -> Table:
        from pydicom.pixels import apply_voi

        most = 2 ** int(self.dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1

        def look_up(values: np.ndarray) -> np.ndarray:
            with readable(self.name):
                return apply_voi(np.rint(values).astype(np.int64), self.dataset) / most

        return Table(look_up)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """pydicom converts values when they are asked for: with its errors, which are of every kind, in words of ours."""
    try:
        with quiet("pydicom"):
            yield
    except Exception as error:
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name}: a damaged DICOM header ({type(error).__name__})") from None


def code(header: Any, field: str) -> str | None:
    """A field of one of DICOM's code strings; anything else in it is no code."""
    text = str(header.get(field) or "").strip().upper()
    return text if re.fullmatch(r"[A-Z0-9 _]{1,16}", text) else None


def listed(value: Any) -> Sequence[Any]:
    """The values of a field, of which pydicom gives one as itself and several as a list."""
    if value is None or isinstance(value, str):
        return [] if not value else [value]
    return list(value) if hasattr(value, "__iter__") else [value]
