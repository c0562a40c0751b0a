"""A patient's body in registered volumes: where its mask is, and whether volumes lie on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from healthgpt.data.sources.drawings import read_volume
from healthgpt.images import Plane, Scan
from healthgpt.images.scan import SlicePlan

_APART = 0.5  # part of a voxel by which the volumes of a patient may lie apart


@dataclass(frozen=True)
class Body:
    """Where a patient is.

    Attributes:
        inside: (slices, rows, columns) as axial slices are looked at.
        rows, columns: the first one of all slices that it touches, and the one after the last.
    """

    inside: NDArray[np.bool_]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def slices(self, least: float) -> list[int]:
        """Those of which it covers so much."""
        covered = self.inside.mean(axis=(1, 2))
        return [int(i) for i in np.flatnonzero((covered >= least) & (covered > 0))]

    def box(self, margin: int) -> tuple[slice, slice]:
        """The rows and columns around it, through all slices."""
        rows, columns = (slice(max(0, start - margin), stop + margin) for start, stop in (self.rows, self.columns))
        return rows, columns


@lru_cache(maxsize=2)
def body_of(mask: Path) -> Body:
    """Where a mask's voxels are above 0.

    Raises:
        ValueError: nowhere.
    """
    plan = axial_plan(read_volume(mask))
    inside = np.stack([plan.slice(i) > 0 for i in range(plan.num_slices)])
    if not inside.any():
        raise ValueError(f"{mask}: the mask is empty")
    rows, columns = (np.flatnonzero(inside.any(axis=(0, axis))) for axis in (2, 1))
    return Body(inside, (int(rows[0]), int(rows[-1]) + 1), (int(columns[0]), int(columns[-1]) + 1))


def axial_plan(scan: Scan) -> SlicePlan:
    """How axial slices are cut from a volume."""
    return scan.plane_of(Plane.AXIAL)


def check_same_grid(mask: Scan, scan: Scan) -> None:
    """Volumes may be stored in other orders of their axes, but their voxels have to lie on one another.

    Raises:
        ValueError: they do not.
    """
    expected, found = _grid(mask), _grid(scan)
    if expected[0] != found[0]:
        sizes = ["x".join(map(str, grid[0])) for grid in (found, expected)]
        raise ValueError(f"{scan.name}: has {sizes[0]} voxels, and its mask {sizes[1]}")
    apart = float(np.abs(expected[1] - found[1]).max())
    if apart > _APART * min(length for length in axial_plan(mask).spacing if length is not None):
        raise ValueError(f"{scan.name}: lies {apart:.1f} mm apart from its mask")


def _grid(scan: Scan) -> tuple[tuple[Any, ...], NDArray[np.float64]]:
    """Slices, rows and columns of the axial plane; where the corners of the first and last slice are."""
    plan = axial_plan(scan)
    sizes = (scan.num_frames, *scan.shape)
    shape = tuple(sizes[axis] for axis in plan.axes)
    corners = np.array([(x, y, 0, 1) for x in (0, shape[2] - 1) for y in (0, shape[1] - 1)], float)
    affines = [affine for i in (0, shape[0] - 1) if (affine := plan.affine(i)) is not None]
    return shape, np.concatenate([(affine @ corners.T).T[:, :3] for affine in affines])
