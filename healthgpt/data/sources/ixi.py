"""IXI: brain MRI of about 600 healthy subjects in T1, T2 and PD; super-resolution of axial slices.

    ROOT/**/IXI002-Guys-0828-T1.nii.gz    IXI<subject>-<Guys, HH or IOP>-<4 digits>-<T1, T2 or PD>

Files may lie in ROOT or in a folder for each modality; DTI and MRA are passed over. There is no official split: ours is
by subject from a seed. T1 and T2 of a subject are NOT registered to each other.

The target is a slice of the middle part of the volume, scaled by percentiles of the volume's values, with square pixels
and centred on a black square whose side is a multiple of the factor. The input is made from the target's pixels:

    kspace   the middle of its spectrum, as a scanner would have measured it in less time; magnitude
    bicubic  Pillow's bicubic filter

Both cover the same area, pixel for pixel: a pixel of the input lies in the middle of those that it stands for.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from healthgpt.data.preparation import Picture, Sample, Source, split_of
from healthgpt.data.records import IMAGE_MARK
from healthgpt.data.sources.drawings import (
    axial_slice,
    centred,
    check_percentiles,
    fingerprint,
    grey_of,
    percentile_window,
    read_volume,
    save_grey,
)
from healthgpt.data.sources.shared import PARTS, check_parts, listing_sha256
from healthgpt.images import Plane, read_scan
from healthgpt.images.windows import Window
from healthgpt.tasks import TaskType

logger = logging.getLogger(__name__)

MODALITIES = ("T1", "T2", "PD")
METHODS = ("kspace", "bicubic")
INSTRUCTIONS = (
    "Improve the resolution of this image.",
    "Could you improve the quality of this MRI image?",
    "Make this image sharper.",
    "Increase the resolution of this MRI.",
    "Super-resolve this image.",
    "Please show this scan in a higher resolution.",
)
_NAME = re.compile(
    r"(?P<subject>IXI\d{3})-(?P<site>Guys|HH|IOP)-(?P<number>\d{4})-(?P<modality>T1|T2|PD)\.nii(?:\.gz)?"
)


@dataclass(frozen=True, kw_only=True)
class _Volume:
    path: Path
    name: str
    subject: str
    site: str
    modality: str


@dataclass(frozen=True, kw_only=True)
class _Cut:
    """How pictures are made, the arguments of `ixi`."""

    method: str
    factor: int
    middle: tuple[float, float]
    every: int
    percentiles: tuple[float, float]

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}, expected {' or '.join(METHODS)}")
        if self.factor < 2:
            raise ValueError(f"factor is {self.factor}, expected at least 2")
        if not 0 <= self.middle[0] < self.middle[1] <= 1:
            raise ValueError(f"middle is {self.middle}, expected two parts between 0 and 1, the lower first")
        if self.every < 1:
            raise ValueError(f"every is {self.every}, expected at least 1")
        check_percentiles(self.percentiles)

    def slices(self, count: int) -> range:
        """Of so many slices, the indices of those that are taken."""
        first, last = (math.floor(part * count + 0.5) for part in self.middle)
        return range(first, last, self.every)


def ixi(
    root: Path,
    *,
    modalities: Sequence[str] = MODALITIES,
    method: str = "kspace",
    factor: int = 4,
    seed: int = 0,
    parts: Mapping[str, float] = PARTS,
    middle: tuple[float, float] = (0.25, 0.75),
    every: int = 1,
    percentiles: tuple[float, float] = (0.5, 99.5),
) -> Source:
    """The source in a folder.

    Args:
        modalities: T1, T2, PD.
        method: kspace or bicubic.
        factor: how many times fewer pixels a side of the input has.
        seed: of the splits.
        parts: the share of subjects of each split.
        middle: from which to which part of a volume, counted from the feet, slices are taken.
        every: takes every so-manieth of these slices.
        percentiles: of a volume's values, which become black and white.

    Raises:
        FileNotFoundError: no volume of these modalities.
        ValueError: a volume that is there twice, or an option that is none.
    """
    if not modalities or not set(modalities) <= set(MODALITIES):
        raise ValueError(f"modalities {', '.join(modalities) or 'are none'}: expected some of {', '.join(MODALITIES)}")
    check_parts(parts)
    cut = _Cut(method=method, factor=factor, middle=middle, every=every, percentiles=percentiles)
    volumes = _volumes(root, modalities)
    counts = Counter(volume.modality for volume in volumes)
    for modality in modalities:
        if not counts[modality]:
            logger.warning("IXI: there is no volume of %s", modality)
    logger.warning(
        "IXI: T1 AND T2 (AND PD) OF A SUBJECT ARE NOT REGISTERED TO EACH OTHER. Super-resolution is not concerned; "
        "conversions between them must not be trained from these files without registration."
    )
    return Source(
        name="ixi",
        samples=_samples(volumes, seed, parts, cut),
        inputs=[],
        options={
            "volumes": {modality: counts[modality] for modality in MODALITIES if modality in modalities},
            "volumes_sha256": listing_sha256({volume.name: volume.path for volume in volumes}),
            "seed": seed,
            "parts": dict(parts),
            **asdict(cut),
        },
    )


def _volumes(root: Path, modalities: Sequence[str]) -> list[_Volume]:
    """In the order of their names."""
    found: dict[str, list[_Volume]] = {}
    for path in sorted(root.rglob("IXI*.nii*")):
        match = _NAME.fullmatch(path.name)
        if match and match["modality"] in modalities and path.is_file():
            name = path.name.partition(".")[0]
            volume = _Volume(
                path=path, name=name, subject=match["subject"], site=match["site"], modality=match["modality"]
            )
            found.setdefault(name, []).append(volume)
    if not found:
        raise FileNotFoundError(f"{root}: has no volume such as IXI002-Guys-0828-{modalities[0]}.nii.gz")
    if twice := [name for name, volumes in found.items() if len(volumes) > 1]:
        raise ValueError(f"{root}: {len(twice)} volumes are there more than once: {', '.join(sorted(twice))}")
    return [found[name][0] for name in sorted(found)]


def _samples(volumes: Sequence[_Volume], seed: int, parts: Mapping[str, float], cut: _Cut) -> Iterator[Sample]:
    place = 0
    for volume in volumes:
        split = split_of(volume.subject, seed, parts)
        count = read_scan(volume.path).plane_of(Plane.AXIAL).num_slices
        for i in cut.slices(count):
            yield _sample(volume, i, count, split, place, cut)
            place += 1


def _sample(volume: _Volume, i: int, count: int, split: str, place: int, cut: _Cut) -> Sample:
    return Sample(
        id=f"ixi-{volume.name}-{i:03d}",
        split=split,
        group=volume.subject,
        question=f"{IMAGE_MARK}\n{INSTRUCTIONS[place % len(INSTRUCTIONS)]}",
        images=(_picture(volume, i, cut, f"{cut.method}{cut.factor}"),),
        target=_picture(volume, i, cut, "target"),
        metadata={
            "kind": str(TaskType.SUPER_RESOLUTION),
            "modality": volume.modality,
            "subject": volume.subject,
            "site": volume.site,
            "slice": i,
            "slices": count,
            "method": cut.method,
            "factor": cut.factor,
        },
    )


def _picture(volume: _Volume, i: int, cut: _Cut, part: str) -> Picture:
    mark = fingerprint(cut.factor, *cut.percentiles)  # the factor decides the target's side
    make = _write_target if part == "target" else _write_input
    return Picture(
        name=f"{volume.modality}/{volume.name}/{i:03d}-{part}-{mark}.png", make=make, arguments=(volume.path, i, cut)
    )


def _write_target(path: Path, volume: Path, i: int, cut: _Cut) -> None:
    save_grey(path, _target(volume, i, cut))


def _write_input(path: Path, volume: Path, i: int, cut: _Cut) -> None:
    shrink = shrink_by_kspace if cut.method == "kspace" else shrink_by_bicubic
    save_grey(path, shrink(_target(volume, i, cut), cut.factor))


@lru_cache(maxsize=2)  # the input is made from the target
def _target(volume: Path, i: int, cut: _Cut) -> NDArray[np.uint8]:
    pixels = grey_of(axial_slice(read_volume(volume), i, _window(volume, *cut.percentiles)))
    return centred(pixels, math.ceil(max(pixels.shape) / cut.factor) * cut.factor)


@lru_cache(maxsize=4)
def _window(volume: Path, low: float, high: float) -> Window:
    return percentile_window(read_volume(volume).volume, low, high, str(volume))


def shrink_by_kspace(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """(S, S) -> (S / factor, S / factor): the middle of the spectrum, back to an image of the same brightness."""
    size = len(pixels)
    small = size // factor
    start = size // 2 - small // 2
    spectrum = np.fft.fftshift(np.fft.fft2(pixels.astype(np.float64)))[start : start + small, start : start + small]
    # Without this phase a pixel would lie where the first of those that it stands for lies, and not in their middle.
    phase = np.exp(2j * np.pi * (np.arange(small) - small // 2) * (factor - 1) / 2 / size)
    image = np.abs(np.fft.ifft2(np.fft.ifftshift(spectrum * phase[:, None] * phase))) / factor**2
    return np.rint(np.clip(image, 0, 255)).astype(np.uint8)


def shrink_by_bicubic(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """(S, S) -> (S / factor, S / factor)."""
    size = len(pixels) // factor
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
