"""DICOM, by pydicom: a file, its frames, or a series of files, sorted by their positions.

No value of a header enters a message or a log, but for what says how pixels are to be read.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from healthgpt.images.containers import Member
from healthgpt.images.dicom_header import Instance, code, readable
from healthgpt.images.dicom_pixels import FrameReader
from healthgpt.images.dicom_series import in_order
from healthgpt.images.limits import check_size
from healthgpt.images.quiet import quiet
from healthgpt.images.scan import Scan
from healthgpt.images.windows import Table, Window

logger = logging.getLogger(__name__)

_EXPLICIT_VRS = (b"UL", b"UI", b"CS", b"LO", b"SH", b"DA", b"TM")
# Files without the preamble begin with a tag of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_UNEVEN = 0.02  # part of the spacing by which slices may be off their places


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins so is DICOM."""
    if head[128:132] == b"DICM":
        return True
    if head[:2] not in _FIRST_GROUPS or len(head) < 8:
        return False
    return head[4:6] in _EXPLICIT_VRS or (head[3] == 0 and 0 < int.from_bytes(head[4:8], "little") < 256)


def read_dicom(data: bytes, name: str) -> Scan:
    """One DICOM file.

    Raises:
        ValueError: it is damaged, has no pixels, or they are of a kind that cannot be read.
    """
    return scan_of_dataset(_dataset(io.BytesIO(data), name), name)


def scan_of_dataset(dataset: Any, name: str) -> Scan:
    """A dataset of pydicom with its pixels."""
    with readable(name):
        return _described([Instance(dataset, name, lambda: dataset)], name)


def read_series(files: Sequence[Member], name: str) -> Scan:
    """A series: one frame per file, sorted along the normal of the frames.

    Raises:
        ValueError: a damaged file, several series, or frames that do not belong together.
    """
    instances: list[Instance] = []
    others: list[Instance] = []
    for file in files:
        with file.open() as opened:
            dataset = _dataset(opened, file.name, headers_only=True)
        found = Instance(dataset, file.name, partial(_read_whole, file))
        (instances if "Rows" in dataset else others).append(found)
    if not instances:
        raise ValueError(f"{name}: none of its {len(files)} DICOM files has pixels")
    kinds = {instance.dataset.get("SOPClassUID") for instance in instances}
    if damaged := [other.name for other in others if other.dataset.get("SOPClassUID") in kinds]:
        raise ValueError(f"{damaged[0]}: a damaged DICOM file (truncated: it has no pixels, unlike others of its kind)")
    if others:
        logger.info("%d DICOM files without pixels are left out", len(others))
    if len(instances) == 1:
        name = instances[0].name
    with readable(name):
        return _described(in_order(instances, name), name)


def _read_whole(file: Member) -> Any:
    return _dataset(io.BytesIO(file.read()), file.name)


def _dataset(file: BinaryIO, name: str, headers_only: bool = False) -> Any:
    from pydicom import dcmread

    without_preamble = file.read(132)[128:] != b"DICM"
    file.seek(0)
    with quiet("pydicom"):
        try:
            dataset = dcmread(file, force=without_preamble, stop_before_pixels=headers_only)
        except Exception as error:  # a damaged header ends in errors of every kind
            raise ValueError(f"{name}: a damaged DICOM file ({type(error).__name__})") from None
    if not len(dataset):  # what is read of a header that ends too soon
        raise ValueError(f"{name}: a damaged DICOM file (truncated, or nothing in it)")
    return dataset


def _described(instances: list[Instance], name: str) -> Scan:
    first = instances[0]
    header = first.dataset
    modality = code(header, "Modality")
    if "DirectoryRecordSequence" in header:
        raise ValueError(f"{name}: a DICOMDIR, which only lists files; name a file, or the folder of a series")
    if "Rows" not in header or "Columns" not in header:
        raise ValueError(f"{name}: a DICOM file without pixels ({modality or 'of no modality'})")
    rows, columns = int(header.Rows), int(header.Columns)
    check_size((columns, rows, sum(instance.num_frames for instance in instances)), name)
    frames = [(instance, frame) for instance in instances for frame in range(instance.num_frames)]
    colour = int(header.get("SamplesPerPixel", 1)) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR"
    stored = int(header.get("BitsStored") or 16)
    bare = first.is_plain() and first.window(0) is None and not header.get("PixelRepresentation")
    ready = colour or (bare and stored <= 8)

    def own_window(i: int) -> Window | Table | None:
        instance, frame = frames[i]
        with readable(instance.name):
            return instance.window(frame)

    return Scan(
        name=name,
        num_frames=len(frames),
        frame=FrameReader(frames, 255 / (2**stored - 1) if ready and not colour else None),
        shape=(rows, columns),
        spacing=first.spacing(0),
        affine=_affine(frames),
        modality=modality,
        body_part=code(header, "BodyPartExamined"),
        calibrated=first.is_calibrated(),
        own_window=(lambda _: None) if ready else own_window,
        padding=first.padding(),
        inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
        ready=ready,
        source=tuple(instance.dataset for instance in instances),
    )


def _affine(frames: list[tuple[Instance, int]]) -> np.ndarray | None:
    """(4, 4) from (column, row, frame) to millimetres; None unless frames stand evenly on their common normal."""
    instance, frame = frames[0]
    directions, spacing, start = instance.directions(frame), instance.spacing(frame), instance.position(frame)
    if directions is None or spacing is None or start is None:
        return None
    step = np.cross(*directions) * instance.thickness(frame)
    if len(frames) > 1:
        places = [other.position(number) for other, number in frames]
        if any(place is None for place in places):
            return None
        steps = np.diff(np.array(places), axis=0)
        step = steps.mean(axis=0)
        length = np.linalg.norm(step)
        if length == 0 or np.linalg.norm(steps - step, axis=1).max() > max(_UNEVEN * length, 0.01):
            return None
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = directions[0] * spacing[1], directions[1] * spacing[0], step
    affine[:3, 3] = start
    return affine
