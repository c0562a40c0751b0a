"""Folders and archives as files by name: what a series, or a scan in a ZIP, is read from."""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from healthgpt.images.limits import MAX_UNPACKED

HEAD = 1024  # bytes by which a file is known
GZIP = b"\x1f\x8b"
_TAR_MAGIC = (257, b"ustar")
_MOST_FILES = 100_000
# A member of an archive that unpacks to so many bytes, and so many times its packed size, is a trap.
_SUSPICIOUS_SIZE, _SUSPICIOUS_RATIO = 5 * 10**7, 500


@dataclass(frozen=True)
class Member:
    """A file of a folder or archive.

    Attributes:
        name: its path, the folder's or archive's included.
        open: opens it for reading bytes.
    """

    name: str
    open: Callable[[], BinaryIO]

    def head(self) -> bytes:
        """Its first bytes, by which it is known."""
        with self.open() as file:
            return file.read(HEAD)

    def read(self) -> bytes:
        with self.open() as file:
            return file.read()


def is_archive(head: bytes) -> bool:
    """Whether a file that begins so is a ZIP or TAR archive."""
    return head[:4] in (b"PK\x03\x04", b"PK\x05\x06") or head[_TAR_MAGIC[0] :][:5] == _TAR_MAGIC[1]


def files_of_folder(folder: Path) -> list[Member]:
    """All files below a folder, in the order of their names, but hidden ones."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    shown = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    return [Member(str(path), partial(_opened, path)) for path in shown]


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def files_of_archive(data: bytes, name: str) -> list[Member]:
    """The files of an archive, by their paths in it.

    Raises:
        ValueError: damaged, password-protected, paths that lead out of it, or more than it may unpack to.
    """
    try:
        return _zip(data, name) if data[:2] == b"PK" else _tar(data, name)
    except Exception as error:  # damaged archives end in errors of every kind
        if isinstance(error, ValueError) and str(error).startswith(name):
            raise
        raise ValueError(f"{name}: a damaged archive ({type(error).__name__})") from None


def unpacked(data: bytes, name: str) -> bytes:
    """What a gzip file holds, all of its parts.

    Raises:
        ValueError: damaged, truncated, or more than it may unpack to.
    """
    parts, size = [], 0
    while data[:2] == GZIP:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpacker.decompress(data, MAX_UNPACKED + 1 - size))
        except zlib.error:
            raise ValueError(f"{name}: a damaged gzip file") from None
        size += len(parts[-1])
        if size > MAX_UNPACKED:
            raise ValueError(f"{name}: unpacks to more than {MAX_UNPACKED} bytes")
        if not unpacker.eof:
            raise ValueError(f"{name}: a truncated gzip file")
        data = unpacker.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _zip(data: bytes, name: str) -> list[Member]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check(name, [entry.filename for entry in entries], sum(entry.file_size for entry in entries))
    for entry in entries:
        if entry.flag_bits & 1:
            raise ValueError(f"{name}: password-protected; unpack it first")
        if entry.file_size > _SUSPICIOUS_SIZE and entry.file_size > _SUSPICIOUS_RATIO * max(1, entry.compress_size):
            raise ValueError(f"{name}: unpacks to {entry.file_size} bytes from {entry.compress_size}")

    def opened(entry: zipfile.ZipInfo) -> BinaryIO:
        try:
            return io.BytesIO(archive.read(entry))
        except Exception:  # as above
            raise ValueError(f"{name}/{entry.filename}: damaged in its archive") from None

    return _shown([Member(f"{name}/{entry.filename}", partial(opened, entry)) for entry in entries], name)


def _tar(data: bytes, name: str) -> list[Member]:
    archive = tarfile.open(fileobj=io.BytesIO(data))  # noqa: SIM115 (members are read later)
    entries = [entry for entry in archive if entry.isreg()]
    _check(name, [entry.name for entry in entries], sum(entry.size for entry in entries))

    def opened(entry: tarfile.TarInfo) -> BinaryIO:
        try:
            file = archive.extractfile(entry)
            content = file.read() if file else b""
        except Exception:  # as above
            content = b""
        if len(content) < entry.size:
            raise ValueError(f"{name}/{entry.name}: damaged in its archive")
        return io.BytesIO(content)

    return _shown([Member(f"{name}/{entry.name}", partial(opened, entry)) for entry in entries], name)


def _check(name: str, members: list[str], size: int) -> None:
    for member in members:
        path = PurePosixPath(member.replace("\\", "/"))
        if path.is_absolute() or not path.parts or ".." in path.parts or ":" in path.parts[0][1:2]:
            raise ValueError(f"{name}: holds the path {member!r}, which leads out of it")
    if len(members) > _MOST_FILES:
        raise ValueError(f"{name}: holds {len(members)} files, more than {_MOST_FILES}")
    if size > MAX_UNPACKED:
        raise ValueError(f"{name}: unpacks to {size} bytes, more than {MAX_UNPACKED}")


def _shown(files: list[Member], name: str) -> list[Member]:
    hidden = (".", "__MACOSX")
    return [
        file
        for file in sorted(files, key=lambda file: file.name)
        if not any(part.startswith(hidden) for part in PurePosixPath(file.name[len(name) + 1 :]).parts)
    ]
