"""Any file, folder, archive member or bytes -> a scan, known by its content; and a scan's picture for the model."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.images.containers import Member, files_of_archive, files_of_folder, is_archive
from healthgpt.images.dicom import is_dicom, read_dicom, read_series, scan_of_dataset
from healthgpt.images.limits import MAX_UNPACKED
from healthgpt.images.pictures import read_picture, scan_of_picture, scan_of_pixels
from healthgpt.images.scan import Scan
from healthgpt.images.view import Seen, View, look
from healthgpt.images.volumes import read_array, read_itk, read_nifti

ImageSource = Any  # a path, bytes, a PIL image, an array, or a library's image; anything else is refused by name
_HEAD = 1024
_GZIP = b"\x1f\x8b"


def read_image(source: ImageSource, view: View = View()) -> Image.Image:
    """Reads one picture as the model takes it: 8-bit RGB, pixels square.

    Args:
        source: a path (to a file, a folder with a DICOM series, or `archive.zip/member`), the bytes of a file, a PIL
            image, an array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) with dtype uint8 or uint16, or an image
            of pydicom, nibabel or SimpleITK.

    Raises:
        FileNotFoundError: nothing at the path.
        ValueError: not an image that can be shown to the model without a guess; the message says why.
    """
    pictures = see(source, view)
    if len(pictures) > 1:
        raise ValueError(f"{pictures[0].scan.name}: {len(pictures)} slices were chosen where one image is expected")
    return pictures[0].picture()


def read_images(source: ImageSource, view: View = View()) -> list[Image.Image]:
    """Reads the pictures that a view shows, each as `read_image` does."""
    return [seen.picture() for seen in see(source, view)]


def see(source: ImageSource, view: View = View()) -> list[Seen]:
    """The pictures that a view shows, with what is known of them."""
    return look(read_scan(source, volume=view.volume), view)


def read_scan(source: ImageSource, *, volume: int | None = None) -> Scan:
    """Reads what a source holds, before any window or slice is chosen.

    Args:
        volume: which one, of a file that holds several.

    Raises:
        FileNotFoundError, ValueError: as `read_image`.
    """
    if isinstance(source, Scan):
        return source
    if isinstance(source, Image.Image):
        return scan_of_picture(source, "the image")
    if isinstance(source, np.ndarray):
        return scan_of_pixels(source, "the array")
    if isinstance(source, bytes):
        return _read_bytes(source, "the image", volume)
    if isinstance(source, str | os.PathLike):
        return _read_path(Path(source), volume)
    library = type(source).__module__.partition(".")[0]
    if library == "pydicom":
        return scan_of_dataset(source, "the dataset")
    if library == "nibabel":
        return read_nifti(source, "the image", volume)
    if library == "SimpleITK":
        return read_itk(source, "the image", volume)
    raise ValueError(f"cannot read an image from a {type(source).__name__}; expected a path, PIL image or array")


def _read_path(path: Path, volume: int | None) -> Scan:
    name = str(path)
    if not path.exists():
        archive = next((parent for parent in path.parents if parent.is_file()), None)
        if archive is None:
            raise FileNotFoundError(f"{name}: no such image")
        return _read_member(archive, name, volume)
    try:
        if path.is_dir():
            return _read_files(files_of_folder(path), name, "folder", volume)
        with path.open("rb") as file:
            head = file.read(_HEAD)
        kind = _kind(head, lambda: _unpacked_head(path))
        if kind is read_nifti or (kind is not None and head[:2] != _GZIP):
            return kind(path, name, volume)
        return _read_bytes(path.read_bytes(), name, volume)
    except PermissionError:
        raise ValueError(f"{name}: no permission to read it") from None


def _read_member(archive: Path, name: str, volume: int | None) -> Scan:
    files = files_of_archive(_archive_bytes(archive), str(archive))
    inside = [file for file in files if file.name == name or file.name.startswith(f"{name}/")]
    if not inside:
        raise FileNotFoundError(f"{name}: no such file in the archive, which has {len(files)}")
    return _read_files(inside, name, "folder", volume)


def _archive_bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if data[:2] == _GZIP:
        data = _gunzip(data, str(path))
    if not is_archive(data[:_HEAD]):
        raise FileNotFoundError(f"{path}: is a file and no archive")
    return data


def _read_bytes(data: bytes, name: str, volume: int | None) -> Scan:
    if not data:
        raise ValueError(f"{name}: an empty file")
    if data[:2] == _GZIP:
        data = _gunzip(data, name)
    kind = _kind(data[:_HEAD], lambda: b"")
    if kind is not None:
        return kind(data, name, volume)
    if is_dicom(data[:_HEAD]):
        return read_dicom(data, name)
    if is_archive(data[:_HEAD]):
        return _read_files(files_of_archive(data, name), name, "archive", volume)
    return read_picture(data, name)


def _read_files(files: list[Member], name: str, kind: str, volume: int | None) -> Scan:
    """A folder's or archive's DICOM series, or its only file."""
    if not files:
        raise ValueError(f"{name}: an empty {kind}")
    series = [file for file in files if is_dicom(file.head())]
    if series:
        return read_series(series, name)
    if len(files) == 1:
        return _read_bytes(files[0].read(), files[0].name, volume)
    raise ValueError(f"{name}: a {kind} of {len(files)} files, none of them DICOM; name the one that is meant")


def _kind(head: bytes, unpacked: Callable[[], bytes]) -> Callable[..., Scan] | None:
    """The reader of a volume file that begins so; None for DICOM, archives and pictures."""
    if head[:2] == _GZIP:
        head = unpacked()
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return read_nifti
    if head[:4] == b"NRRD" or any(head.lstrip().startswith(key) for key in (b"ObjectType", b"NDims", b"Comment =")):
        return read_itk
    return read_array if head[:6] == b"\x93NUMPY" else None


def _unpacked_head(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read(_HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _gunzip(data: bytes, name: str) -> bytes:
    try:
        unpacker = zlib.decompressobj(wbits=31)
        unpacked = unpacker.decompress(data, MAX_UNPACKED)
    except zlib.error:
        raise ValueError(f"{name}: a damaged gzip file") from None
    if unpacker.unconsumed_tail:
        raise ValueError(f"{name}: unpacks to more than {MAX_UNPACKED} bytes")
    if not unpacker.eof:
        raise ValueError(f"{name}: a truncated gzip file")
    return unpacked


def describe(pictures: Iterable[Seen]) -> str:
    """In one line, what was chosen: for the user to read."""
    first = next(iter(pictures))
    parts = [f"window {first.window}"]
    if first.num_slices > 1:
        parts.append(f"slice {', '.join(map(str, first.slices))} of {first.num_slices}")
    if first.plane:
        parts.append(str(first.plane))
    return ", ".join(parts)
