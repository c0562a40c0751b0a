"""Any file, folder, archive member or bytes -> a scan, known by its content; and a scan's picture for the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from healthgpt.images.arrays import is_array, read_array
from healthgpt.images.containers import GZIP, HEAD, Member, files_of_archive, files_of_folder, is_archive, unpacked
from healthgpt.images.dicom import is_dicom, read_dicom, read_series, scan_of_dataset
from healthgpt.images.itk import is_itk, read_itk
from healthgpt.images.nifti import is_nifti, read_nifti
from healthgpt.images.pictures import read_picture, scan_of_picture, scan_of_pixels
from healthgpt.images.scan import Scan, choose_volume
from healthgpt.images.view import Seen, View, look

ImageSource = Any  # a path, bytes, a PIL image, an array, or a library's image; anything else is refused by name


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
        return _of_one_volume(scan_of_picture)(source, "the image", volume)
    if isinstance(source, np.ndarray):
        return _of_one_volume(scan_of_pixels)(source, "the array", volume)
    if isinstance(source, bytes):
        return _read_bytes(source, "the image", volume)
    if isinstance(source, str | os.PathLike):
        if not os.fspath(source):
            raise ValueError("the path of the image is empty, expected a file or folder")
        return _read_path(Path(source), volume)
    library = type(source).__module__.partition(".")[0]
    if library == "pydicom":
        return _of_one_volume(scan_of_dataset)(source, "the dataset", volume)
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
        if not path.is_file():
            raise ValueError(f"{name}: neither a file nor a folder")
        head = _head(path)
        if not head:
            raise ValueError(f"{name}: an empty file")
        header = path.with_suffix(".hdr")
        if path.suffix.lower() == ".img" and header.is_file() and is_nifti(_head(header)):
            return read_nifti(header, name, volume)
        if head[:2] == GZIP or is_dicom(head) or is_archive(head):
            return _read_bytes(path.read_bytes(), name, volume)
        return _reader(head)(path, name, volume)
    except PermissionError:
        raise ValueError(f"{name}: no permission to read it") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _read_member(archive: Path, name: str, volume: int | None) -> Scan:
    data = archive.read_bytes()
    if data[:2] == GZIP:
        data = unpacked(data, str(archive))
    if not is_archive(data[:HEAD]):
        raise FileNotFoundError(f"{name}: no such image; {archive} is a file and no archive")
    files = files_of_archive(data, str(archive))
    inside = [file for file in files if file.name == name or file.name.startswith(f"{name}/")]
    if not inside:
        raise FileNotFoundError(f"{name}: no such file in the archive, which has {len(files)}")
    return _read_files(inside, name, "folder", volume)


def _read_bytes(data: bytes, name: str, volume: int | None, in_archive: bool = False) -> Scan:
    if not data:
        raise ValueError(f"{name}: an empty file")
    if data[:2] == GZIP:
        data = unpacked(data, name)
    head = data[:HEAD]
    if is_archive(head):
        if in_archive:
            raise ValueError(f"{name}: an archive in an archive; unpack it first")
        return _read_files(files_of_archive(data, name), name, "archive", volume)
    return _reader(head)(data, name, volume)


def _read_files(files: list[Member], name: str, kind: str, volume: int | None) -> Scan:
    """A folder's or archive's DICOM series, or its only file."""
    if not files:
        raise ValueError(f"{name}: an empty {kind}")
    series = [file for file in files if is_dicom(file.head())]
    if series:
        choose_volume(1, volume, name)
        return read_series(series, name)
    if len(files) == 1:
        return _read_bytes(files[0].read(), files[0].name, volume, in_archive=True)
    raise ValueError(f"{name}: none of the {len(files)} files in this {kind} is DICOM; name the one that is meant")


def _reader(head: bytes) -> Callable[[Any, str, int | None], Scan]:
    """What reads a file that begins so, from its path or its bytes."""
    if is_nifti(head):
        return read_nifti
    if is_itk(head):
        return read_itk
    if is_array(head):
        return read_array
    return _of_one_volume(read_dicom if is_dicom(head) else read_picture)


def _of_one_volume(read: Callable[[Any, str], Scan]) -> Callable[[Any, str, int | None], Scan]:
    def checked(source: Any, name: str, volume: int | None) -> Scan:
        choose_volume(1, volume, name)
        return read(source, name)

    return checked


def describe(pictures: Iterable[Seen]) -> str:
    """In one line, what was chosen: for the user to read."""
    pictures = list(pictures)
    first = pictures[0]
    parts = [f"window {', '.join(dict.fromkeys(seen.window for seen in pictures))}"]
    if first.num_slices > 1:
        slices = ", ".join(str(i) for seen in pictures for i in seen.slices)
        parts.append(f"slice {slices} of {first.num_slices}")
    if first.plane:
        parts.append(str(first.plane))
    return ", ".join(parts)
