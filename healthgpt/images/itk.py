"""MetaImage (`.mha`, `.mhd`) and NRRD, by SimpleITK."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from healthgpt.images.limits import check_size
from healthgpt.images.nifti import oriented
from healthgpt.images.scan import Scan, choose_volume

_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")
_NRRD, _METAIMAGE = b"NRRD", (b"ObjectType", b"NDims", b"Comment =")
_LONGEST_HEADER = 2**20
_REQUIRED = ("NDims", "DimSize", "ElementType", "ElementDataFile")
# Of every type, how many bytes a value takes at least.
_BYTES = {
    "CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "LONG_LONG": 8,
    "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip


def is_itk(head: bytes) -> bool:
    """Whether a file that begins so is MetaImage or NRRD."""
    return head[:4] == _NRRD or head.lstrip().startswith(_METAIMAGE)


def read_itk(source: Any, name: str, volume: int | None = None) -> Scan:
    """A MetaImage or NRRD file.

    Args:
        source: a path, a file's bytes, or an image of SimpleITK.

    Raises:
        ValueError: damaged, more than one volume where none is chosen, or values that are no picture.
    """
    if not isinstance(source, bytes | Path):
        return _scan_of(source, name, volume)
    if isinstance(source, Path) and source.suffix.lower() in _ENDINGS:
        return _scan_of(_read(source, source.parent, name), name, volume)
    data = source if isinstance(source, bytes) else source.read_bytes()
    with tempfile.TemporaryDirectory(prefix="healthgpt-") as folder:  # ITK goes by endings, we by content
        path = Path(folder) / ("volume.nrrd" if data[:4] == _NRRD else "volume.mha")
        path.write_bytes(data)
        return _scan_of(_read(path, None, name), name, volume)


def _read(path: Path, folder: Path | None, name: str) -> Any:
    """An image of SimpleITK.

    Args:
        folder: where a file of values may lie that a header names.
    """
    import SimpleITK as sitk  # noqa: N813 (its own documentation's name)

    with path.open("rb") as file:
        head = file.read(_LONGEST_HEADER)
    if head[:4] == _NRRD:
        named = re.search(rb"(?im)^data ?file: *(.*?)\r?$", head.partition(b"\n\n")[0])
        _values_file(named[1] if named else b"LOCAL", folder, name)
    else:
        _check_metaimage(head, path, folder, name)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_size(tuple(int(length) for length in reader.GetSize()), name)
        return reader.Execute()
    except RuntimeError:
        raise ValueError(f"{name}: a damaged or truncated volume") from None


def _check_metaimage(head: bytes, path: Path, folder: Path | None, name: str) -> None:
    """Refuses what ITK would complain of over several lines of standard error."""
    end = re.search(rb"(?m)^\s*ElementDataFile\s*[=:](.*)$\n?", head)
    text = head[: end.end() if end else None].decode("latin-1")
    fields = {key: value.strip() for key, value in re.findall(r"(?m)^\s*(\w+)\s*[=:](.*)$", text)}
    if end is None or any(field not in fields for field in _REQUIRED):
        missing = [field for field in _REQUIRED if field not in fields]
        raise ValueError(f"{name}: a damaged or truncated volume, its header has no {', '.join(missing)}")
    sizes = fields["DimSize"].split()
    if not all(size.isdecimal() for size in sizes) or fields["NDims"] != str(len(sizes)):
        raise ValueError(f"{name}: a damaged or truncated volume, its NDims and DimSize do not agree")
    if _type(fields) not in _BYTES:
        raise ValueError(f"{name}: values of type {fields['ElementType']!r}, expected MET_SHORT or another number")
    values = _values_file(end[1], folder, name)
    found = values.stat().st_size if values else path.stat().st_size - end.end()
    if found < _num_bytes(fields):
        raise ValueError(f"{name}: a damaged or truncated volume")


def _num_bytes(fields: Mapping[str, str]) -> int:
    """How many bytes the values take at least."""
    if fields.get("CompressedData", "")[:1].upper() == "T":
        packed = fields.get("CompressedDataSize", "1")
        return int(packed) if packed.isdecimal() else 1
    text = fields.get("BinaryData", "")[:1].upper() == "F"
    channels = fields.get("ElementNumberOfChannels", "1")
    count = math.prod(map(int, fields["DimSize"].split())) * (int(channels) if channels.isdecimal() else 1)
    return count * (1 if text else _BYTES[_type(fields)])


def _type(fields: Mapping[str, str]) -> str:
    return fields["ElementType"].removeprefix("MET_").removesuffix("_ARRAY")


def _values_file(named: bytes, folder: Path | None, name: str) -> Path | None:
    """The file of values that a header names; None where they are behind the header.

    Raises:
        ValueError: it is none that lies beside the header.
    """
    target = named.strip().decode("utf-8", "replace")
    if target.upper() == "LOCAL":
        return None
    if not target:
        raise ValueError(f"{name}: a damaged or truncated volume, its header does not say where its values are")
    if target.split()[0].upper() == "LIST" or "%" in target:
        raise ValueError(f"{name}: its values are in a list of files; save it as one file")
    if len(PurePath(target).parts) != 1 or target == "..":
        raise ValueError(f"{name}: its values are in {target}, expected a file beside it")
    if folder is None:
        raise ValueError(f"{name}: its values are in {target}; expected a .mhd or .nhdr file beside it, in no archive")
    if not (folder / target).is_file():
        raise ValueError(f"{name}: its values are in {target}, which is not beside it")
    return folder / target


def _scan_of(image: Any, name: str, volume: int | None) -> Scan:
    import SimpleITK as sitk  # noqa: N813

    size, channels = tuple(int(length) for length in image.GetSize()), image.GetNumberOfComponentsPerPixel()
    if not 2 <= len(size) <= 4:
        raise ValueError(f"{name}: values of shape {'x'.join(map(str, size))}, expected two to four dimensions")
    place = choose_volume(size[3] if len(size) > 3 else 1, volume, name)
    values = sitk.GetArrayFromImage(image)  # volumes (of several), frames (of a volume), rows, columns, channels
    colour = channels > 1
    if colour and (channels not in (3, 4) or values.dtype != np.uint8):
        raise ValueError(f"{name}: {channels} channels of {values.dtype} are no picture")
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: complex values; save their magnitude")
    frames = values[place] if len(size) == 4 else values[None] if len(size) == 2 else values
    if colour:
        frames = frames[..., :3]
    affine = np.eye(4)
    dimensions = min(len(size), 3)
    directions = np.array(image.GetDirection()).reshape(len(size), len(size))[:dimensions, :dimensions]
    affine[:dimensions, :dimensions] = directions * np.array(image.GetSpacing())[:dimensions]
    affine[:dimensions, 3] = image.GetOrigin()[:dimensions]
    spacing = image.GetSpacing()
    scan = Scan(
        name=name,
        num_frames=frames.shape[0],
        frame=lambda k: frames[k],
        frames=lambda: frames,
        shape=(frames.shape[1], frames.shape[2]),
        spacing=(float(spacing[1]), float(spacing[0])),
        affine=affine if len(size) > 2 else None,
        ready=frames.dtype == np.uint8,
    )
    return oriented(scan)
