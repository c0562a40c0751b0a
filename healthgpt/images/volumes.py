"""Volumes: NIfTI by nibabel, MetaImage and NRRD by SimpleITK, arrays of NumPy."""

from __future__ import annotations

import gzip
import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from healthgpt.images.limits import MAX_UNPACKED, check_size
from healthgpt.images.scan import Plane, Scan

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_ITK_ENDINGS = (".mha", ".mhd", ".nrrd", ".nhdr")


def read_nifti(source: Any, name: str, volume: int | None = None) -> Scan:
    """A NIfTI file (`.nii`, `.nii.gz`, `.hdr` beside `.img`), in nibabel's orientation.

    Args:
        source: a path, a file's bytes, or an image of nibabel.
        volume: which of a 4-D file's volumes.

    Raises:
        ValueError: damaged, more than one volume where none is chosen, or values that are no numbers.
    """
    import nibabel

    if isinstance(source, Path) and not _is_known_by_name(source):
        source = source.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Any = nibabel.load(source) if isinstance(source, Path) else _nifti_of(source, name)
            header = image.header
            shape = tuple(int(length) for length in image.shape)
            affine = np.asarray(image.affine, float)
    except ValueError as error:
        raise ValueError(str(error) if str(error).startswith(name) else f"{name}: a damaged NIfTI file") from None
    except Exception as error:  # damaged headers end in errors of every kind
        raise ValueError(f"{name}: a damaged NIfTI file ({type(error).__name__})") from None
    while len(shape) > 4 and shape[-1] == 1:
        shape = shape[:-1]
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"{name}: values of shape {'x'.join(map(str, shape))}, expected two to four dimensions")
    check_size(shape, name)
    place = _chosen(shape[3:], volume, name)
    columns, rows, frames = (*shape, 1)[:3]
    colour = image.get_data_dtype().names == ("R", "G", "B")
    if not colour and not np.issubdtype(image.get_data_dtype(), np.number):
        raise ValueError(f"{name}: values of type {image.get_data_dtype()} are no picture")
    if np.issubdtype(image.get_data_dtype(), np.complexfloating):
        raise ValueError(f"{name}: complex values; save their magnitude")

    def frame(k: int) -> np.ndarray:
        cut: Any = (slice(None), slice(None), k) if len(shape) > 2 else (slice(None), slice(None))
        cut += (place,) if len(shape) > 3 else ()
        cut += (0,) * (len(image.shape) - len(cut))
        try:
            values = np.asarray(image.dataobj[cut])
        except Exception as error:
            raise ValueError(f"{name}: a truncated or damaged NIfTI file ({type(error).__name__})") from None
        if colour:
            return np.stack([values[channel].T for channel in "RGB"], axis=-1)
        return values.T

    slope = header.get_slope_inter()
    stored = image.get_data_dtype() == np.uint8 and slope in ((1.0, 0.0), (None, None))
    known = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) > 1e-12
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    scan = Scan(
        name=name,
        num_frames=frames,
        frame=frame,
        shape=(rows, columns),
        spacing=(float(spacing[1]), float(spacing[0])) if known else None,
        affine=_RAS_TO_LPS @ affine if known else None,
        ready=colour or stored,
        source=header,
    )
    return oriented(scan)


def _is_known_by_name(path: Path) -> bool:
    """Whether nibabel, which goes by the ending, reads a file by itself, and slice by slice.

    Packed files are unpacked in memory, as it would unpack them again for every slice.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return not packed and path.suffix.lower() in (".nii", ".hdr", ".img")


def _nifti_of(data: Any, name: str) -> Any:
    from nibabel import Nifti1Image, Nifti2Image

    if not isinstance(data, bytes):
        return data
    if data[:2] == b"\x1f\x8b":
        data = _unpacked(data, name)
    kind = (
        Nifti2Image
        if int.from_bytes(data[:4], "little") == 540 or int.from_bytes(data[:4], "big") == 540
        else Nifti1Image
    )
    return kind.from_bytes(data)


def _unpacked(data: bytes, name: str) -> bytes:
    with gzip.open(io.BytesIO(data)) as file:
        unpacked = file.read(MAX_UNPACKED + 1)
    if len(unpacked) > MAX_UNPACKED:
        raise ValueError(f"{name}: unpacks to more than {MAX_UNPACKED} bytes")
    return unpacked


def oriented(scan: Scan) -> Scan:
    """A volume is looked at in axial slices, one slice in its own plane; nothing else says how to look at it."""
    import dataclasses

    plane = scan.frame_plane if scan.num_frames == 1 else Plane.AXIAL
    return dataclasses.replace(scan, default_plane=plane if scan.axes is not None else None)


def _chosen(choices: tuple[int, ...], volume: int | None, name: str) -> int:
    """Which volume of a file of several."""
    count = choices[0] if choices else 1
    if volume is None and count > 1:
        raise ValueError(f"{name}: has {count} volumes; choose one of 0 to {count - 1} (--volume)")
    if volume is not None and not 0 <= volume < count:
        raise ValueError(f"{name}: volume {volume} is not there; it has {count}")
    return volume or 0


def read_itk(source: Any, name: str, volume: int | None = None) -> Scan:
    """A MetaImage (`.mha`, `.mhd`) or NRRD file.

    Args:
        source: a path, a file's bytes, or an image of SimpleITK.

    Raises:
        ValueError: damaged, more than one volume where none is chosen, or values that are no picture.
    """
    if isinstance(source, bytes):
        ending = ".nrrd" if source[:4] == b"NRRD" else ".mha"
        with tempfile.TemporaryDirectory(prefix="healthgpt-") as folder:
            path = Path(folder) / f"volume{ending}"
            path.write_bytes(source)
            return _read_itk(path, name, volume)
    if not isinstance(source, Path):
        return _scan_of_itk(source, name, volume)
    if source.suffix.lower() in _ITK_ENDINGS:
        return _read_itk(source, name, volume)
    return read_itk(source.read_bytes(), name, volume)  # ITK goes by endings, we by content


def _read_itk(path: Path, name: str, volume: int | None) -> Scan:
    import SimpleITK as sitk  # noqa: N813 (its own documentation's name)

    _check_detached(path, name)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        check_size(tuple(int(length) for length in reader.GetSize()), name)
        image = reader.Execute()
    except RuntimeError:
        raise ValueError(f"{name}: a damaged or truncated volume") from None
    return _scan_of_itk(image, name, volume)


def _scan_of_itk(image: Any, name: str, volume: int | None) -> Scan:
    import SimpleITK as sitk  # noqa: N813

    size, channels = tuple(int(length) for length in image.GetSize()), image.GetNumberOfComponentsPerPixel()
    if not 2 <= len(size) <= 4:
        raise ValueError(f"{name}: values of shape {'x'.join(map(str, size))}, expected two to four dimensions")
    values = sitk.GetArrayFromImage(image)
    colour = channels > 1
    if colour and (channels not in (3, 4) or values.dtype != np.uint8):
        raise ValueError(f"{name}: {channels} channels of {values.dtype} are no picture")
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: complex values; save their magnitude")
    place = _chosen(size[3:], volume, name)
    if len(size) == 4:
        values = values[place]
    if len(size) == 2:
        values = values[None]
    if colour:
        values = values[..., :3]
    affine = np.eye(4)
    dimensions = min(len(size), 3)
    directions = np.array(image.GetDirection()).reshape(len(size), len(size))[:dimensions, :dimensions]
    affine[:dimensions, :dimensions] = directions * np.array(image.GetSpacing())[:dimensions]
    affine[:dimensions, 3] = image.GetOrigin()[:dimensions]
    spacing = image.GetSpacing()
    scan = Scan(
        name=name,
        num_frames=values.shape[0],
        frame=lambda k: values[k],
        shape=(values.shape[1], values.shape[2]),
        spacing=(float(spacing[1]), float(spacing[0])),
        affine=affine if len(size) > 2 else None,
        ready=values.dtype == np.uint8,
    )
    return oriented(scan)


def _check_detached(path: Path, name: str) -> None:
    """A header may name its data's file; it has to be beside it, and there."""
    with path.open("rb") as file:
        head = file.read(4096)
    for line in head.split(b"\n"):
        key, found, value = line.replace(b":", b"=", 1).partition(b"=")
        if not found or key.strip().lower() not in (b"elementdatafile", b"data file", b"datafile"):
            continue
        target = value.strip().decode("utf-8", "replace")
        if target.upper() == "LOCAL":
            return
        if target.split()[0].upper() == "LIST" or "%" in target:
            raise ValueError(f"{name}: its values are in a list of files; save it as one file")
        if Path(target).name != target:
            raise ValueError(f"{name}: its values are in {target}, expected a file beside it")
        if not (path.parent / target).is_file():
            raise ValueError(f"{name}: its values are in {target}, which is not beside it")
        return


def read_array(source: Path | bytes, name: str, volume: int | None = None) -> Scan:
    """A `.npy` file: (R, C), (R, C, 3 or 4) of uint8, (F, R, C), or several of these volumes.

    Raises:
        ValueError: damaged, objects, or of another shape.
    """
    try:
        values = np.load(source if isinstance(source, Path) else io.BytesIO(source), allow_pickle=False)
    except (ValueError, OSError, EOFError, SyntaxError, MemoryError) as error:
        reason = "it holds Python objects" if "Object arrays" in str(error) else "a damaged NumPy file"
        raise ValueError(f"{name}: {reason}") from None
    return scan_of_array(values, name, volume)


def scan_of_array(values: np.ndarray, name: str, volume: int | None = None) -> Scan:
    """An array as frames."""
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise ValueError(f"{name}: an array of {values.dtype} has no pixels")
    if np.iscomplexobj(values):
        raise ValueError(f"{name}: complex values; save their magnitude")
    colour = values.ndim >= 3 and values.shape[-1] in (3, 4) and values.dtype == np.uint8
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    grid = values.shape[:-1] if colour else values.shape
    if not 2 <= len(grid) <= 4:
        raise ValueError(
            f"{name}: an array of shape {values.shape} is no image, expected (H, W), (H, W, 3) or (F, H, W)"
        )
    check_size(grid[::-1], name)
    if len(grid) == 4:
        values = values[_chosen(grid[:1], volume, name)]
    frames: Any = values if len(grid) > 2 else values[None]
    read: Callable[[int], np.ndarray] = (lambda i: frames[i][..., :3]) if colour else (lambda i: frames[i])
    unclear = None if values.dtype == np.uint8 else f"an array of {values.dtype} has no known black and white"
    return Scan(
        name=name,
        num_frames=len(frames),
        frame=read,
        shape=(grid[-2], grid[-1]),
        ready=values.dtype == np.uint8,
        unclear=unclear,
    )
