"""What a medical file holds before anything is chosen: frames of values, and where they lie in the patient.

Legend: F frames, R rows, C columns of a frame. Millimetres are of DICOM's patient coordinates, LPS: x grows to the
patient's left, y to the back, z to the head. Frames are decoded when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np

from healthgpt.images.windows import Table, Window


class Plane(StrEnum):
    """Planes of the body; a picture of one shows the head up, the patient's left on the right, the nose to the left."""

    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"


# Of every plane, the patient axes (0 x, 1 y, 2 z) that its normal, its rows and its columns follow, and whether rows
# run against theirs (from the head downwards).
_LAYOUTS: Mapping[Plane, tuple[int, int, int, bool]] = {
    Plane.AXIAL: (2, 1, 0, False),
    Plane.CORONAL: (1, 2, 0, True),
    Plane.SAGITTAL: (0, 2, 1, True),
}
_SHEARED = 5  # degrees by which axes may be off a right angle and slices across frames still look right


@dataclass(frozen=True, kw_only=True)
class Scan:
    """One image, series or volume.

    Attributes:
        name: how messages call it: the path as it was given.
        num_frames: F.
        frame: decodes one: (R, C) values after the file's rescaling, or (R, C, 3) uint8 colour.
        frames: gives all of them at once, where that is quicker.
        shape: R, C.
        spacing: millimetres between rows and between columns; None where the file does not say.
        affine: (4, 4), from (column, row, frame) to millimetres; None where it is unknown or they are no volume.
        modality: DICOM's code (CT, MR, US, ...); None where the file does not say.
        body_part: as the file says it, upper case.
        calibrated: whether CT values are Hounsfield units; None where that is not known.
        own_window: the file's own for a frame.
        padding: from the lowest to the highest value that stands for no pixel; None where there is none.
        inverted: whether the lowest value is white (MONOCHROME1).
        ready: whether values are a picture already (8 bit, or colour), which needs no window.
        picture: whether it is no scan but an ordinary picture, which may well be of one colour.
        unclear: why nobody can know which values are black and white, unless a window is given.
        default_plane: of slices, where no other is asked for; None for frames as they are stored.
        source: what an export refers to: the DICOM headers, the NIfTI header.
    """

    name: str
    num_frames: int
    frame: Callable[[int], np.ndarray]
    frames: Callable[[], np.ndarray] | None = None
    shape: tuple[int, int]
    spacing: tuple[float, float] | None = None
    affine: np.ndarray | None = None
    modality: str | None = None
    body_part: str | None = None
    calibrated: bool | None = None
    own_window: Callable[[int], Window | Table | None] = lambda _: None
    padding: tuple[float, float] | None = None
    inverted: bool = False
    ready: bool = False
    picture: bool = False
    unclear: str | None = None
    default_plane: Plane | None = None
    source: Any = None

    @cached_property
    def volume(self) -> np.ndarray:
        """All frames: (F, R, C), or (F, R, C, 3)."""
        return self.frames() if self.frames else np.stack([self.frame(i) for i in range(self.num_frames)])

    @cached_property
    def axes(self) -> tuple[tuple[int, bool], tuple[int, bool], tuple[int, bool]] | None:
        """Of the patient's x, y and z, the axis of `volume` that follows it most closely, and whether backwards.

        None without geometry.
        """
        if self.affine is None:
            return None
        from nibabel.orientations import io_orientation

        found: dict[int, tuple[int, bool]] = {}
        for i, (world, sign) in enumerate(io_orientation(self.affine)):  # of column, row, frame
            if np.isnan(world):
                return None
            found[int(world)] = (2 - i, bool(sign < 0))
        return found[0], found[1], found[2]

    @property
    def frame_plane(self) -> Plane | None:
        """The plane of the frames; None without geometry."""
        if self.axes is None:
            return None
        return next(plane for plane, (normal, *_) in _LAYOUTS.items() if self.axes[normal][0] == 0)

    def plane_of(self, plane: Plane | None) -> SlicePlan:
        """How slices of a plane are cut; None takes the scan's own.

        Raises:
            ValueError: a plane of frames that are not a volume in known orientation.
        """
        plane = plane or self.default_plane
        if plane is None:
            row, column = self.spacing or (None, None)
            between = None if self.affine is None else float(np.linalg.norm(self.affine[:3, 2]))
            return SlicePlan(self, None, (0, 1, 2), (False, False, False), (between, row, column))
        if self.axes is None:
            reason = "is one frame" if self.num_frames == 1 else "has frames without positions in the patient"
            raise ValueError(f"{self.name}: no {plane} plane can be cut: it {reason}")
        assert self.affine is not None
        if plane is not self.frame_plane and (degrees := self._shear()) > _SHEARED:
            raise ValueError(
                f"{self.name}: no {plane} plane can be cut: its frames are shifted against each other by "
                f"{degrees:.0f} degrees (a tilted gantry); its own plane is {self.frame_plane}"
            )
        normal, rows, columns, downwards = _LAYOUTS[plane]
        order = (self.axes[normal], self.axes[rows], self.axes[columns])
        flips = (order[0][1], order[1][1] != downwards, order[2][1])
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)[::-1]  # of frame, row, column
        spacing = tuple(float(lengths[axis]) for axis, _ in order)
        return SlicePlan(self, plane, tuple(axis for axis, _ in order), flips, spacing)  # type: ignore[arg-type]

    def _shear(self) -> float:
        """By how many degrees the axes are off right angles, at most."""
        assert self.affine is not None
        axes = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        between = np.abs(axes.T @ axes - np.eye(3)).max()
        return float(np.rad2deg(np.arcsin(min(1.0, between))))


def choose_volume(count: int, volume: int | None, name: str) -> int:
    """Which volume of a file of several.

    Raises:
        ValueError: none is chosen, or one that is not there.
    """
    if volume is None and count > 1:
        raise ValueError(f"{name}: has {count} volumes; choose one of 0 to {count - 1} (--volume)")
    if volume is not None and not 0 <= volume < count:
        raise ValueError(f"{name}: volume {volume} is not there; it has {count}")
    return volume or 0


@dataclass(frozen=True)
class SlicePlan:
    """How a scan is cut into slices of one plane.

    Attributes:
        plane: None for frames as they are stored.
        axes: which axes of the scan's volume slices are numbered along, and their rows and columns run along.
        flips: whether against them.
        spacing: millimetres between slices, rows and columns; None where it is unknown.
    """

    scan: Scan
    plane: Plane | None
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    spacing: tuple[float | None, float | None, float | None]

    @property
    def num_slices(self) -> int:
        return (self.scan.num_frames, *self.scan.shape)[self.axes[0]]

    def slice(self, i: int) -> np.ndarray:
        """The i-th slice as it is looked at: (rows, columns), or (rows, columns, 3)."""
        place = self.num_slices - 1 - i if self.flips[0] else i
        scan = self.scan
        cut = scan.frame(place) if self.axes[0] == 0 else np.take(scan.volume, place, axis=self.axes[0])
        if self.axes[1] > self.axes[2]:
            cut = cut.swapaxes(0, 1)
        return np.ascontiguousarray(cut[:: -1 if self.flips[1] else 1, :: -1 if self.flips[2] else 1])

    def frames(self, i: int) -> range:
        """The scan's frames that the i-th slice is cut from."""
        if self.axes[0] != 0:
            return range(self.scan.num_frames)
        place = self.num_slices - 1 - i if self.flips[0] else i
        return range(place, place + 1)

    def position(self, i: int) -> float | None:
        """Millimetres of the i-th slice's middle along the patient axis that the plane's normal follows."""
        plane = self.plane or self.scan.frame_plane
        if plane is None or self.scan.affine is None:
            return None
        sizes = np.array([self.scan.num_frames, *self.scan.shape])
        place = (sizes - 1) / 2
        place[self.axes[0]] = sizes[self.axes[0]] - 1 - i if self.flips[0] else i
        return float((self.scan.affine @ [*place[::-1], 1.0])[_LAYOUTS[plane][0]])

    def affine(self, i: int) -> np.ndarray | None:
        """(4, 4), from (column, row, 0) of the i-th slice to millimetres."""
        if self.scan.affine is None:
            return None
        sizes = (self.scan.num_frames, *self.scan.shape)
        change = np.zeros((4, 4))
        change[3, 3] = 1
        start = np.zeros(3)
        for new, (axis, flipped) in enumerate(zip(self.axes, self.flips, strict=True)):
            change[2 - axis, 2 - new] = -1 if flipped else 1
            start[axis] = sizes[axis] - 1 if flipped else 0
        start[self.axes[0]] = sizes[self.axes[0]] - 1 - i if self.flips[0] else i
        change[:3, 3] = start[::-1]
        return self.scan.affine @ change
