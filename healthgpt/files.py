"""Reading and writing files: what is really in one, and never half of one.

Downloads of weights fail in ways that a loader reports obscurely: a web page saved under the file's name, a Git LFS
pointer, a placeholder of a few bytes. `wrong_kind` recognises them, for one clear message everywhere.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

# Classes that training frameworks leave in their checkpoints; nothing of them is needed.
_INERT = ("pytorch_lightning.", "lightning.")
_UMASK = threading.Lock()


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        FileNotFoundError, ValueError: no such file, or no JSON object in it.
    """
    require_file(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {wrong_kind(path) or f'not readable as JSON ({error})'}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: {wrong_kind(path) or f'expected a JSON object, found {type(value).__name__}'}")
    return value


def require_file(path: Path) -> Path:
    """Returns the path of an existing, readable file.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is a folder or unreadable.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise ValueError(f"{path}: expected a file, found a folder")
    if not os.access(path, os.R_OK):
        raise ValueError(f"{path}: no permission to read it")
    return path


def refuse_unknown_keys(values: Mapping[str, object], known: Collection[str], path: Path | str) -> None:
    """Raises a ValueError for a key that is not known, naming the nearest one that is."""
    for key in values.keys() - set(known):
        near = difflib.get_close_matches(str(key), known, n=1)
        raise ValueError(f"{path}: unknown key {key!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def wrong_kind(path: Path) -> str | None:
    """Names what a file holds instead of data, or None where it looks like data."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(512).lstrip().lower()
    if size == 0:
        return "an empty file"
    if head.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml")):
        return f"a web page of {size} bytes, not the file itself (the download was redirected)"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself (run `git lfs pull`, or download it from the hub)"
    if size < 16:
        return f"a placeholder of {size} bytes"
    return None


def writable_target(path: Path) -> Path:
    """Returns a path at which a file can be written, before any work is spent on its content.

    Raises:
        ValueError: the folder does not exist or may not be written to, or the path is a folder.
    """
    folder = path.parent
    if path.is_dir():
        raise ValueError(f"{path}: cannot be written, it is a folder")
    if not folder.is_dir():
        raise ValueError(f"{path}: cannot be written, there is no folder {folder}")
    if not os.access(folder, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise ValueError(f"{path}: cannot be written, no permission")
    return path


def refuse_file_in_the_way(folder: Path) -> None:
    """Fails where a folder is to be made, and a file has its name or that of one above it.

    Raises:
        ValueError: names the file.
    """
    for path in (folder, *folder.parents):
        if path.is_dir():
            return
        if path.exists():
            raise ValueError(f"{path}: expected a folder, found a file")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file whole or not at all: `write` fills a temporary file beside it, which then takes its name."""
    writable_target(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    temporary = Path(name)
    try:
        os.close(handle)
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """The process's mask of file permissions (it can only be read by setting it)."""
    with _UMASK:
        mask = os.umask(0)
        os.umask(mask)
    return mask


def load_torch_file(path: Path) -> Any:
    """Reads a file of `torch.save` without running any code in it, tensors mapped from disk where its layout allows.

    Training checkpoints name classes of the framework that wrote them (PyTorch Lightning's callbacks); these become
    inert stand-ins. Any other reference to code is refused.

    Raises:
        FileNotFoundError, ValueError: no such file; not such a file; a damaged one; one that refers to code.
    """
    import pickle
    import zipfile

    import torch

    require_file(path)
    if kind := wrong_kind(path):
        raise ValueError(f"{path}: {kind}")
    is_zip = zipfile.is_zipfile(path)
    try:
        foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path) if is_zip else []
        if code := sorted(name for name in foreign if not name.startswith(_INERT)):
            raise pickle.UnpicklingError(f"GLOBAL {', '.join(code)}")
        stand_ins: list[Any] = [(type(name.rpartition(".")[2], (), {}), name) for name in foreign]
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=is_zip or None)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+(?:, [\w.]+)*)", str(error))
        reason = f"its pickle refers to code: {named[1]}" if named else "not a plain file of tensors"
        raise ValueError(f"{path}: refused, {reason}") from None
    except (RuntimeError, EOFError, OSError, KeyError, zipfile.BadZipFile) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: damaged or truncated ({reason})") from None
