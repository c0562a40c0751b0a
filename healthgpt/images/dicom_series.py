"""Whether DICOM files are one series, and the order of its slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from healthgpt.images.dicom_header import Instance, code

_PARALLEL = 1e-3  # how far direction cosines of one series may differ
_SAME_SPACING = 0.01  # part of it by which spacings may differ


def in_order(instances: Sequence[Instance], name: str) -> list[Instance]:
    """The files of a series by their place along the normal of the frames; by number where positions are missing.

    Raises:
        ValueError: several series, frames that do not belong together, or no order to be known.
    """
    series = {str(instance.dataset.get("SeriesInstanceUID", "")) for instance in instances}
    if len(series) > 1:
        raise ValueError(f"{name}: files of {len(series)} series; name a folder of one, or one file")
    if len(instances) > 1:
        for instance in instances:
            _check_fits(instances[0], instance)
        _check_plane(instances)
    return _sorted(instances, name) if len(instances) > 1 else list(instances)


def _check_fits(first: Instance, other: Instance) -> None:
    for field in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"):
        if first.dataset.get(field) != other.dataset.get(field):
            expected, found = code(first.dataset, field), code(other.dataset, field)
            raise ValueError(f"{other.name}: {field} is {found}, elsewhere in its series it is {expected}")
    if other.num_frames != 1:
        raise ValueError(f"{other.name}: has {other.num_frames} frames; a series has one in each file")
    spacings = first.spacing(0), other.spacing(0)
    if not np.allclose(spacings[0] or (0, 0), spacings[1] or (0, 0), rtol=_SAME_SPACING):
        expected, found = ("unknown" if not spacing else "{:g}x{:g} mm".format(*spacing) for spacing in spacings)
        raise ValueError(f"{other.name}: the pixels' spacing is {found}, elsewhere in its series it is {expected}")


def _check_plane(instances: Sequence[Instance]) -> None:
    planes: list[tuple[np.ndarray | None, list[Instance]]] = []
    for instance in instances:
        own = instance.directions(0)
        for directions, members in planes:
            if _parallel(own, directions):
                members.append(instance)
                break
        else:
            planes.append((own, [instance]))
    if len(planes) > 1:
        odd = min((members for _, members in planes), key=len)[0]
        raise ValueError(f"{odd.name}: lies in another plane than the rest of its series, as localizers do")


def _parallel(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else bool(np.abs(a - b).max() <= _PARALLEL)


def _sorted(instances: Sequence[Instance], name: str) -> list[Instance]:
    directions = instances[0].directions(0)
    positions = [instance.position(0) for instance in instances]
    if directions is not None and all(position is not None for position in positions):
        normal = np.cross(*directions)
        places = [float(normal @ position) for position in positions]
        if len(set(np.round(places, 3))) < len(places):
            times = len(places) / len(set(np.round(places, 3)))
            raise ValueError(f"{name}: {times:g} frames per position; name a folder of one volume")
        return [instances[i] for i in np.argsort(places)]
    numbers = [instance.dataset.get("InstanceNumber") for instance in instances]
    if any(number is None for number in numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"{name}: its files have neither positions nor numbers that say their order")
    return [instances[i] for i in np.argsort([int(number) for number in numbers])]
