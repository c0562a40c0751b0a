"""API keys: read from the environment or a file, compared in constant time, known in the log by their names."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from healthgpt.files import require_file

ENVIRONMENT = "HEALTHGPT_API_KEYS"
_SHORTEST = 16  # characters; a shorter key can be guessed


class Keys:
    """The keys that a server takes; without any, it takes every request.

    Args:
        named: a name for the log and a key, each.

    Raises:
        ValueError: a key that is too short, or has characters that no header can carry.
    """

    def __init__(self, named: Iterable[tuple[str, str]] = ()):
        self._digests: list[tuple[str, bytes]] = []
        for name, key in named:
            if len(key) < _SHORTEST:
                raise ValueError(f"API key {name!r} has {len(key)} characters, expected at least {_SHORTEST}")
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise ValueError(f"API key {name!r} has characters that no key has, such as white space")
            self._digests.append((name, _digest(key)))

    @classmethod
    def read(cls, path: Path | None = None, environment: Mapping[str, str] = os.environ) -> Self:
        """The keys of `HEALTHGPT_API_KEYS`, separated by commas, and of a file.

        Args:
            path: one key a line, a name before it or not; `#` begins a comment.

        Raises:
            FileNotFoundError, ValueError: no such file, one that others may read, or one without keys.
        """
        words = [word.strip() for word in environment.get(ENVIRONMENT, "").split(",")]
        found = [(f"key {i}", word) for i, word in enumerate(filter(None, words), start=1)]
        if path is not None:
            found += _of_file(path)
        return cls(found)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def name_of(self, key: str) -> str | None:
        """The name of a key; None where it is not one of them. It takes as long whichever it is."""
        digest, found = _digest(key), None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _of_file(path: Path) -> list[tuple[str, str]]:
    if os.name == "posix" and require_file(path).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ValueError(f"{path}: others may read the keys in it; run chmod 600 {path}")
    found = []
    for number, line in enumerate(require_file(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.partition("#")[0].split()
        if len(words) > 2:
            raise ValueError(f"{path}, line {number}: has {len(words)} words, expected a key, or a name and a key")
        if words:
            found.append((words[0] if len(words) == 2 else f"line {number}", words[-1]))
    if not found:
        raise ValueError(f"{path}: has no key in it")
    return found
