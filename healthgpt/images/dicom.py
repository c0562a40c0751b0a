"""DICOM, by pydicom: a file, its frames, or a series of files, sorted by their positions.

No value of a header enters a message or a log, but for what says how pixels are to be read.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from healthgpt.images.containers import Member
from healthgpt.images.limits import check_size
from healthgpt.images.scan import Scan
from healthgpt.images.windows import Window

logger = logging.getLogger(__name__)

_EXPLICIT_VRS = (b"UL", b"UI", b"CS", b"LO", b"SH", b"DA", b"TM")
# Files without the preamble begin with a tag of group 0002 or 0008, in either byte order.
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_PARALLEL = 1e-3  # how far direction cosines of one series may differ
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
    return _scan_of([_Instance(dataset, name, lambda: dataset)], name)


def read_series(files: Sequence[Member], name: str) -> Scan:
    """A series: one frame per file, sorted along the normal of the frames.

    Raises:
        ValueError: a damaged file, several series, or frames that do not belong together.
    """
    instances = []
    for file in files:
        with file.open() as opened:
            dataset = _dataset(opened, file.name, headers_only=True)
        if "Rows" in dataset:
            instances.append(_Instance(dataset, file.name, partial(_read_whole, file)))
    if len(instances) < len(files):
        logger.info("%d files without pixels are left out", len(files) - len(instances))
    if not instances:
        raise ValueError(f"{name}: none of its {len(files)} DICOM files has pixels")
    series = {str(instance.dataset.get("SeriesInstanceUID", "")) for instance in instances}
    if len(series) > 1:
        raise ValueError(f"{name}: files of {len(series)} series; name a folder of one, or one file")
    if len(instances) == 1:
        return _scan_of(instances, instances[0].name)
    for instance in instances:
        _check_fits(instances[0], instance)
    return _scan_of(_sorted(instances, name), name)


class _Instance:
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
        value = self.group(frame, sequence).get(field)
        try:
            found = np.array([float(number) for number in value], float)
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
        found = self.numbers(frame, "PixelMeasuresSequence", "PixelSpacing", 2)
        if found is None:
            found = self.numbers(frame, "PixelMeasuresSequence", "ImagerPixelSpacing", 2)
        return (float(found[0]), float(found[1])) if found is not None and (found > 0).all() else None


def _read_whole(file: Member) -> Any:
    return _dataset(io.BytesIO(file.read()), file.name)


def _dataset(file: BinaryIO, name: str, headers_only: bool = False) -> Any:
    from pydicom import dcmread

    without_preamble = file.read(132)[128:] != b"DICM"
    file.seek(0)
    with _quiet():
        try:
            return dcmread(file, force=without_preamble, stop_before_pixels=headers_only)
        except Exception as error:  # a damaged header ends in errors of every kind
            raise ValueError(f"{name}: a damaged DICOM file ({type(error).__name__})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without pydicom's warnings and messages, which quote headers."""
    messages = logging.getLogger("pydicom")
    level = messages.level
    messages.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        messages.setLevel(level)


def _check_fits(first: _Instance, other: _Instance) -> None:
    for field in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"):
        expected, found = first.dataset.get(field), other.dataset.get(field)
        if expected != found:
            raise ValueError(f"{other.name}: {field} is {found}, elsewhere in its series it is {expected}")
    if other.num_frames != 1:
        raise ValueError(f"{other.name}: has {other.num_frames} frames; a series has one in each file")
    a, b = first.directions(0), other.directions(0)
    if (a is None) != (b is None) or (a is not None and b is not None and np.abs(a - b).max() > _PARALLEL):
        raise ValueError(f"{other.name}: lies in another plane than the rest of its series")


def _sorted(instances: list[_Instance], name: str) -> list[_Instance]:
    """By place along the normal; by number where positions are missing."""
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


def _scan_of(instances: list[_Instance], name: str) -> Scan:
    try:
        return _described(instances, name)
    except ValueError as error:
        if str(error).startswith(tuple({name, *(instance.name for instance in instances)})):
            raise
        raise ValueError(f"{name}: a damaged DICOM header ({type(error).__name__})") from None
    except Exception as error:  # pydicom converts values when they are asked for, and its errors are of every kind
        raise ValueError(f"{name}: a damaged DICOM header ({type(error).__name__})") from None


def _described(instances: list[_Instance], name: str) -> Scan:
    first = instances[0]
    header = first.dataset
    modality = _code(header, "Modality")
    if "Rows" not in header or "Columns" not in header:
        raise ValueError(f"{name}: a DICOM file without pixels ({modality or 'of no modality'})")
    rows, columns = int(header.Rows), int(header.Columns)
    check_size((columns, rows, sum(instance.num_frames for instance in instances)), name)
    frames = [(instance, frame) for instance in instances for frame in range(instance.num_frames)]
    colour = int(header.get("SamplesPerPixel", 1)) > 1 or header.get("PhotometricInterpretation") == "PALETTE COLOR"
    windows = () if colour else _windows(first, 0)
    table = None if colour else _table(header, name)
    slope, intercept = _rescale(first, 0)
    stored = int(header.get("BitsStored") or 16)
    plain = (slope, intercept) == (1, 0) and not header.get("ModalityLUTSequence")
    bare = plain and not windows and table is None and not header.get("PixelRepresentation")
    ready = colour or (bare and stored <= 8)
    return Scan(
        name=name,
        num_frames=len(frames),
        frame=_FrameReader(frames, 255 / (2**stored - 1) if ready and not colour else None),
        shape=(rows, columns),
        spacing=first.spacing(0),
        affine=_affine(frames),
        modality=modality,
        body_part=_code(header, "BodyPartExamined"),
        calibrated=_calibrated(header, plain),
        windows=windows,
        lookup=table,
        inverted=header.get("PhotometricInterpretation") == "MONOCHROME1",
        ready=ready,
        source=tuple(instance.dataset for instance in instances),
    )


class _FrameReader:
    """Decodes frames: (R, C) after the modality's rescaling, or (R, C, 3) uint8."""

    def __init__(self, frames: list[tuple[_Instance, int]], scale: float | None):
        self._frames = frames
        self._scale = scale  # of pictures of fewer bits than eight
        self._open: tuple[_Instance, Any] | None = None

    def __call__(self, i: int) -> np.ndarray:
        instance, frame = self._frames[i]
        if self._open is None or self._open[0] is not instance:
            self._open = (instance, instance.read())
        dataset = self._open[1]
        pixels = _pixels(dataset, frame, instance.name)
        if pixels.ndim == 3:
            return pixels
        if self._scale is not None:
            return np.rint(pixels * self._scale).astype(np.uint8)
        return _rescaled(pixels, instance, frame)


def _pixels(dataset: Any, frame: int, name: str) -> np.ndarray:
    """Stored values of a frame; colour as RGB of 8 bits."""
    from pydicom.pixels import apply_color_lut, pixel_array

    if not any(field in dataset for field in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise ValueError(f"{name}: a DICOM file without pixels ({_code(dataset, 'Modality') or 'of no modality'})")
    with _quiet():
        try:
            if not hasattr(dataset, "file_meta") or "TransferSyntaxUID" not in dataset.file_meta:
                _assume_transfer_syntax(dataset)
            pixels = pixel_array(dataset, index=frame)
            if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
                pixels = apply_color_lut(pixels, dataset)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # decoders raise errors of every kind at damaged data, panics of Rust among them
            raise ValueError(f"{name}: pixels that cannot be decoded ({type(error).__name__})") from None
    if pixels.ndim == 2:
        return pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise ValueError(f"{name}: pixels of shape {pixels.shape} are no picture")
    pixels = pixels[:, :, :3]
    if pixels.dtype in (np.uint16, np.uint32):
        most = 2 ** int(dataset.get("BitsStored") or 8 * pixels.itemsize) - 1
        if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
            most = 2 ** int(dataset.RedPaletteColorLookupTableDescriptor[2]) - 1
        pixels = np.rint(pixels * (255 / most)).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise ValueError(f"{name}: colour of {pixels.dtype} cannot be shown")
    return pixels


def _assume_transfer_syntax(dataset: Any) -> None:
    """Files without a preamble do not name it: as they were read, so their pixels are."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta = getattr(dataset, "file_meta", FileMetaDataset())
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _rescale(instance: _Instance, frame: int) -> tuple[float, float]:
    """Slope and intercept of a frame."""
    group = instance.group(frame, "PixelValueTransformationSequence")
    slope, intercept = group.get("RescaleSlope"), group.get("RescaleIntercept")
    found = (1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    if not np.isfinite(found).all() or found[0] == 0:
        raise ValueError(f"{instance.name}: a rescaling of slope {found[0]} and intercept {found[1]} is none")
    return found


def _rescaled(pixels: np.ndarray, instance: _Instance, frame: int) -> np.ndarray:
    """Stored values -> the modality's."""
    from pydicom.pixels import apply_modality_lut

    if instance.dataset.get("ModalityLUTSequence"):
        return apply_modality_lut(pixels, instance.dataset)
    slope, intercept = _rescale(instance, frame)
    return pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept


def _calibrated(header: Any, plain: bool) -> bool | None:
    """Whether values are Hounsfield units; CT with no rescaling at all may be anything."""
    if header.get("Modality") != "CT":
        return None
    return str(header.get("RescaleType") or "HU") == "HU" and not (plain and "RescaleSlope" not in header)


def _windows(instance: _Instance, frame: int) -> tuple[Window, ...]:
    """The file's windows; those that are none are left out."""
    group = instance.group(frame, "FrameVOILUTSequence")
    levels, widths = (_listed(group.get(field)) for field in ("WindowCenter", "WindowWidth"))
    function = str(group.get("VOILUTFunction") or "LINEAR").upper()
    found = []
    for level, width in zip(levels, widths, strict=False):
        try:
            found.append(Window(float(width), float(level), "file", function))
        except (TypeError, ValueError):
            continue
    return tuple(found)


def _listed(value: Any) -> Sequence[Any]:
    if value is None or isinstance(value, str):
        return [] if not value else [value]
    return list(value) if hasattr(value, "__iter__") else [value]


def _table(header: Any, name: str) -> Callable[[np.ndarray], np.ndarray] | None:
    """The file's own table from values to 0...1."""
    sequence = header.get("VOILUTSequence")
    if not sequence:
        return None
    from pydicom.pixels import apply_voi

    try:
        most = 2 ** int(sequence[0].LUTDescriptor[2]) - 1
    except (AttributeError, IndexError, TypeError, ValueError):
        raise ValueError(f"{name}: a damaged VOILUTSequence") from None

    def look_up(values: np.ndarray) -> np.ndarray:
        with _quiet():
            return apply_voi(np.rint(values).astype(np.int64), header) / most

    return look_up


def _code(header: Any, field: str) -> str | None:
    """A field of one of DICOM's code strings; anything else in it is no code."""
    text = str(header.get(field) or "").strip().upper()
    return text if re.fullmatch(r"[A-Z0-9 _]{1,16}", text) else None


def _affine(frames: list[tuple[_Instance, int]]) -> np.ndarray | None:
    """(4, 4) from (column, row, frame) to millimetres; None unless frames stand evenly on their common normal."""
    instance, frame = frames[0]
    directions, spacing, start = instance.directions(frame), instance.spacing(frame), instance.position(frame)
    if directions is None or spacing is None or start is None:
        return None
    normal = np.cross(*directions)
    step = normal * float(instance.group(frame, "PixelMeasuresSequence").get("SliceThickness") or 1)
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
