"""A file of JSON lines that only ever grows: a kill may tear its last line and nothing else, and one process writes it.

The first line is a header, {"header": {..., "hash"}}, that says how the lines came about.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from healthgpt.files import writable_target

HEADER = "header"
_BEGINNING = b'{"header": {'  # of every file of ours
_AT_ONCE = 2**20  # bytes looked at a time


class Journal:
    """An open file that this object alone may write to.

    Attributes:
        repaired: bytes of a torn line that were cut off.
    """

    def __init__(self, path: Path, *, what: str, who: str, safe: str):
        """Opens a file, new or as it was left.

        Args:
            what, who, safe: for messages: what the file holds, who else may be writing to it, what a full disk spares.

        Raises:
            ValueError: it is in use, or no such file.
        """
        self.path = writable_target(path)
        self.repaired = 0
        self._safe = safe
        self._lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(f"{path}: another {who} is writing to it") from None
        try:
            self._file = path.open("a+b", buffering=0)
            # Before anything is cut off, as it may be a file of something else, named by mistake.
            self._file.seek(0)
            if not begins_as_journal(self._file.read(len(_BEGINNING))):
                raise ValueError(f"{self.path}: does not begin with a header, so it is no file of {what}")
            self._cut_torn_line()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of the file."""
        if not self._lock.is_locked:
            return
        if file := getattr(self, "_file", None):
            file.close()
        with contextlib.suppress(OSError):  # Windows does not delete what is open
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()

    def append(self, data: bytes) -> int:
        """Adds bytes, all of them or none, waits until they are on the disk, and returns where they begin.

        Raises:
            OSError: the disk is full.
        """
        start = self._file.seek(0, os.SEEK_END)
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._file.truncate(start)
            raise OSError(error.errno, f"{error.strerror}; {self._safe} is safe", str(self.path)) from None
        return start

    def empty(self) -> None:
        """Cuts off everything."""
        self._file.truncate(0)

    def _cut_torn_line(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        end = size
        while end:
            start = max(end - _AT_ONCE, 0)
            self._file.seek(start)
            found = self._file.read(end - start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        self.repaired = size - end
        if self.repaired:
            self._file.truncate(end)


def begins_as_journal(data: bytes) -> bool:
    """Whether a file with these first bytes may be a journal, torn within its header or not begun at the worst."""
    return _BEGINNING.startswith(data[: len(_BEGINNING)])


def line_of(value: Mapping[str, Any]) -> bytes:
    """A value as a line."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def hash_of(values: Mapping[str, Any]) -> str:
    """A hash of everything that lines depend on; of a header, what is listed under `"noted"` is left out."""
    kept = {key: value for key, value in values.items() if key not in ("noted", "hash")}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first value in which two headers differ, in words."""
    names = sorted({*found, *wanted} - {"hash", "noted"})
    key = next((name for name in names if found.get(name) != wanted.get(name)), "hash")
    return f"{key} {found.get(key)!r:.120}, not {wanted.get(key)!r:.120}"
