"""Texts to be looked up, in a few bytes each: for tables that have as many rows as a data set has records."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable

import numpy as np


class CompactTable:
    """Texts -> numbers below 256, in 9 bytes an entry; a text is known by 64 bits of its hash.

    Args:
        entries: in any order; a text may be there several times.
    """

    def __init__(self, entries: Iterable[tuple[str, int]]):
        keys, values = array("Q"), bytearray()
        for text, value in entries:
            keys.append(key_of(text))
            values.append(value)
        order = np.argsort(np.asarray(keys), kind="stable")
        self._keys, self._values = np.asarray(keys)[order], np.frombuffer(values, np.uint8)[order]

    def values(self, text: str) -> set[int]:
        """All that a text has; empty where it is not there."""
        key = np.uint64(key_of(text))
        first, last = (int(np.searchsorted(self._keys, key, side)) for side in ("left", "right"))
        return set(self._values[first:last].tolist())

    def get(self, text: str) -> int | None:
        """What a text has first; None where it is not there."""
        key = np.uint64(key_of(text))
        place = int(np.searchsorted(self._keys, key))
        return int(self._values[place]) if place < len(self._keys) and self._keys[place] == key else None

    def has_contradictions(self) -> bool:
        """Whether a text has several values."""
        same = self._keys[1:] == self._keys[:-1]
        return bool((same & (self._values[1:] != self._values[:-1])).any())


def key_of(text: str) -> int:
    """64 bits that stand for a text; names of files may hold what is no UTF-8."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
