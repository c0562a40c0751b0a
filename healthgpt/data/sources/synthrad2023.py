"""SynthRAD2023, task 1: CT and MRI of 360 patients, registered; conversions of axial slices between the two.

    ROOT/Task1/{brain,pelvis}/<id>/{mr,ct,mask}.nii.gz    (or .nii; ROOT may be Task1 or a region's folder as well)

A patient is a folder with volumes of these names, whatever its own name; others (`overview/`) are passed over. The
validation set has no CT and is refused. There is no official split of the training set: ours is by subject from a seed.

A picture is a slice in which the mask covers enough, cropped to the box around the mask of the whole volume and centred
on a black square, so that all slices of a patient are of one size and lie on one another. What is outside the mask is
black. MRI is scaled by percentiles of the volume's values inside the mask. CT is scaled by a fixed range, so that
a grey value is one HU value everywhere:

    brain   -1000...2000 HU, 11.8 a step    the skull's hardest bone reaches 1500 to 2000; enamel and metal are more
    pelvis  -1000...1000 HU,  7.8 a step    soft tissue differs by little, so steps are finer; the femur's hardest
                                            cortex and metal are more, and as white as 1000

HU = low + grey / 255 * (high - low), with `ct_range` in a record's metadata. The mask of a slice is a picture too: the
record's `target_focus`, and `mask` in its metadata (a path below images/), white inside.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from healthgpt.data.phantoms.instructions import INSTRUCTIONS
from healthgpt.data.preparation import Picture, Sample, Source, split_of
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.bodies import axial_plan, body_of, check_same_grid
from healthgpt.data.sources.drawings import (
    axial_slice,
    centred,
    check_percentiles,
    exact_window,
    fingerprint,
    grey_of,
    percentile_window,
    read_volume,
    save_grey,
)
from healthgpt.data.sources.shared import PARTS, check_parts, listing_sha256, slug
from healthgpt.images.windows import Window
from healthgpt.tasks import TaskType

logger = logging.getLogger(__name__)

REGIONS = ("brain", "pelvis")
CT_LOW = -1000.0  # air
CT_HIGH: Mapping[str, float] = {"brain": 2000.0, "pelvis": 1000.0}
DIRECTIONS = (TaskType.CT_TO_MRI, TaskType.MRI_TO_CT)
_VOLUMES = ("mr", "ct", "mask")
_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class _Patient:
    region: str
    name: str
    mr: Path
    ct: Path
    mask: Path


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """How pictures are cut, the arguments of `synthrad2023`; `ct_high` of every region."""

    least_mask: float
    every: int
    ct_low: float
    ct_high: Mapping[str, float]
    percentiles: tuple[float, float]
    margin: int
    keep_outside: bool

    def __post_init__(self) -> None:
        if not 0 <= self.least_mask <= 1:
            raise ValueError(f"least_mask is {self.least_mask}, expected a part between 0 and 1")
        if self.every < 1:
            raise ValueError(f"every is {self.every}, expected at least 1")
        if self.margin < 0:
            raise ValueError(f"margin is {self.margin}, expected at least 0")
        for region, high in self.ct_high.items():
            if self.ct_low >= high:
                raise ValueError(f"{region}: ct_low is {self.ct_low:g} and ct_high {high:g}, expected the lower first")
        check_percentiles(self.percentiles)

    def mark(self, region: str) -> str:
        """What a picture's pixels depend on."""
        ct_range = (self.ct_low, self.ct_high[region])
        return fingerprint(*ct_range, *self.percentiles, self.margin, self.keep_outside)


def synthrad2023(
    root: Path,
    *,
    region: str | None = None,
    directions: Sequence[str] = DIRECTIONS,
    seed: int = 0,
    parts: Mapping[str, float] = PARTS,
    least_mask: float = 0.05,
    every: int = 1,
    ct_low: float = CT_LOW,
    ct_high: float | None = None,
    percentiles: tuple[float, float] = (0.5, 99.5),
    margin: int = 8,
    keep_outside: bool = False,
) -> Source:
    """The source in a folder.

    Args:
        region: brain or pelvis; None for those that are there.
        directions: ct2mri, mri2ct.
        seed: of the splits.
        parts: the share of subjects of each split.
        least_mask: the part of a slice that the mask has to cover.
        every: takes every so-manieth of these slices.
        ct_low: HU that become black.
        ct_high: HU that become white; None for the region's own.
        percentiles: of an MRI's values inside the mask, which become black and white.
        margin: pixels around the mask's box, as far as the volume goes.
        keep_outside: shows what is outside the mask too.

    Raises:
        FileNotFoundError: no such region.
        ValueError: patients without CT or another volume (all are listed), or an option that is none.
    """
    if not directions or not set(directions) <= set(DIRECTIONS):
        raise ValueError(f"directions {', '.join(directions) or 'are none'}: expected {' or '.join(DIRECTIONS)}")
    check_parts(parts)
    folders = _region_folders(root, region)
    cut = _Cut(
        least_mask=least_mask,
        every=every,
        ct_low=ct_low,
        ct_high={name: CT_HIGH[name] if ct_high is None else ct_high for name in folders},
        percentiles=percentiles,
        margin=margin,
        keep_outside=keep_outside,
    )
    patients = _patients(root, folders)
    wanted = [kind for kind in DIRECTIONS if kind in directions]
    return Source(
        name="synthrad2023",
        samples=_samples(patients, wanted, seed, parts, cut),
        inputs=[],
        options={
            "patients": {name: sum(patient.region == name for patient in patients) for name in folders},
            "volumes_sha256": listing_sha256(
                {
                    f"{patient.region}/{patient.name}/{part}": getattr(patient, part)
                    for patient in patients
                    for part in _VOLUMES
                }
            ),
            "directions": [str(kind) for kind in wanted],
            "seed": seed,
            "parts": dict(parts),
            "least_mask": least_mask,
            "every": every,
            "ct_range": {name: [ct_low, high] for name, high in cut.ct_high.items()},
            "percentiles": list(percentiles),
            "margin": margin,
            "keep_outside": keep_outside,
        },
    )


def _region_folders(root: Path, region: str | None) -> dict[str, Path]:
    if region is not None and region not in REGIONS:
        raise ValueError(f"region is {region!r}, expected {' or '.join(REGIONS)}")
    base = root / "Task1" if (root / "Task1").is_dir() else root
    found = {name: base / name for name in REGIONS if (base / name).is_dir()}
    if not found and base.is_dir() and base.resolve().name in REGIONS:
        found = {base.resolve().name: base}
    found = {name: folder for name, folder in found.items() if region in (None, name)}
    if not found:
        names = [region] if region else REGIONS
        raise FileNotFoundError(f"{root}: has no folder {' or '.join(f'Task1/{name}' for name in names)}")
    return found


def _patients(root: Path, folders: Mapping[str, Path]) -> list[_Patient]:
    found: list[_Patient] = []
    without_ct, incomplete = [], []
    for region, folder in folders.items():
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            volumes = _volumes(path)
            name = f"{region}/{path.name}"
            if len(volumes) == len(_VOLUMES):
                found.append(_Patient(region=region, name=path.name, **volumes))
            elif "mr" in volumes and "mask" in volumes:
                without_ct.append(name)
            elif volumes:
                incomplete.append(f"{name} (no {', '.join(part for part in _VOLUMES if part not in volumes)})")
    count = len(found) + len(without_ct) + len(incomplete)
    if incomplete:
        incomplete += [f"{name} (no ct)" for name in without_ct]
        raise ValueError(f"{root}: {len(incomplete)} of {count} patients lack volumes: {', '.join(incomplete)}")
    if without_ct and not found:
        raise ValueError(f"{root}: none of {count} patients has a CT: this is the validation set, which has no CT")
    if without_ct:
        raise ValueError(f"{root}: {len(without_ct)} of {count} patients have no CT: {', '.join(without_ct)}")
    if not found:
        raise FileNotFoundError(f"{root}: no folder of {', '.join(folders)} has mr, ct and mask volumes")
    return found


def _volumes(folder: Path) -> dict[str, Path]:
    """The volumes of a patient's folder by their names; none for other folders."""
    paths = {name: [folder / f"{name}{ending}" for ending in _ENDINGS] for name in _VOLUMES}
    return {name: path for name, both in paths.items() for path in reversed(both) if path.is_file()}


def _samples(
    patients: Sequence[_Patient], directions: Sequence[TaskType], seed: int, parts: Mapping[str, float], cut: _Cut
) -> Iterator[Sample]:
    place = num_empty = 0
    for patient in patients:
        split = split_of(patient.name, seed, parts)
        body = body_of(patient.mask)
        indices = body.slices(cut.least_mask)[:: cut.every]
        num_empty += not indices
        for i in indices:
            for kind in directions:
                yield _sample(patient, i, len(body.inside), kind, split, place, cut)
            place += 1
    if num_empty:
        logger.warning("%d patients have no slice with a mask over %g of it", num_empty, cut.least_mask)


def _sample(patient: _Patient, i: int, count: int, kind: TaskType, split: str, place: int, cut: _Cut) -> Sample:
    mr, ct, mask = (_picture(patient, part, i, cut) for part in _VOLUMES)
    wordings = INSTRUCTIONS[kind]
    return Sample(
        id=f"synthrad2023-{patient.region}-{slug(patient.name)}-{i:03d}-{kind}",
        split=split,
        group=patient.name,
        question=f"{IMAGE_MARK}\n{wordings[place % len(wordings)]}",
        images=(ct if kind == TaskType.CT_TO_MRI else mr,),
        target=mr if kind == TaskType.CT_TO_MRI else ct,
        focus=mask,
        metadata={
            "kind": str(kind),
            "region": patient.region,
            "subject": patient.name,
            "slice": i,
            "slices": count,
            "ct_range": [cut.ct_low, cut.ct_high[patient.region]],
            "mask": mask.name,
        },
    )


def _picture(patient: _Patient, part: str, i: int, cut: _Cut) -> Picture:
    name = f"{patient.region}/{patient.name}/{i:03d}-{part}-{cut.mark(patient.region)}.png"
    return Picture(name=name, make=_write, arguments=(patient, part, i, cut))


def _write(path: Path, patient: _Patient, part: str, i: int, cut: _Cut) -> None:
    """Writes one slice of one of a patient's volumes."""
    body = body_of(patient.mask)
    volume = read_volume(getattr(patient, part))
    check_same_grid(read_volume(patient.mask), volume)
    seen = axial_slice(volume, i, _window(patient, part, cut))
    rows, columns = body.box(cut.margin)
    inside = replace(seen, pixels=np.where(body.inside[i][rows, columns], np.uint8(255), np.uint8(0)))
    mask = np.where(grey_of(inside) > 127, np.uint8(255), np.uint8(0))
    if part == "mask":
        pixels = mask
    else:
        pixels = grey_of(replace(seen, pixels=seen.pixels[rows, columns]))
        pixels = pixels if cut.keep_outside else np.where(mask > 0, pixels, np.uint8(0))
    save_grey(path, centred(pixels, max(pixels.shape)))


def _window(patient: _Patient, part: str, cut: _Cut) -> Window:
    if part == "mr":
        return _mr_window(patient.mr, patient.mask, *cut.percentiles)
    if part == "ct":
        return exact_window(cut.ct_low, cut.ct_high[patient.region], "fixed range")
    return exact_window(0, 1, "mask")


@lru_cache(maxsize=4)
def _mr_window(mr: Path, mask: Path, low: float, high: float) -> Window:
    plan, inside = axial_plan(read_volume(mr)), body_of(mask).inside
    check_same_grid(read_volume(mask), plan.scan)
    return percentile_window(
        np.concatenate([plan.slice(i)[inside[i]] for i in range(plan.num_slices)]), low, high, str(mr)
    )
