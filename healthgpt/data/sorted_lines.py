"""Lines in order, in memory that does not grow with them: runs are sorted, put aside on disk, and merged."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Self, TextIO, cast

_RUN = 20_000  # lines that are held at once


class SortedLines:
    """Lines that come in any order and are given back sorted.

    Args:
        folder: where runs are put; they have no names there, so that nothing of them is left behind.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._lines: list[str] = []
        self._runs: list[TextIO] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, line: str) -> None:
        """Adds a line; line breaks in it become blanks."""
        self._lines.append(line.replace("\n", " ").replace("\r", " ") + "\n")
        if len(self._lines) == _RUN:
            run = self._stack.enter_context(_nameless_file(self._folder))
            run.writelines(sorted(self._lines))
            self._runs.append(run)
            self._lines = []

    def __iter__(self) -> Iterator[str]:
        """All lines, repeated ones as often as they were added."""
        for run in self._runs:
            run.seek(0)
        return (line.removesuffix("\n") for line in heapq.merge(*self._runs, sorted(self._lines)))

    def unique(self) -> Iterator[str]:
        """Each line once."""
        return (line for line, _ in groupby(self))


def _nameless_file(folder: Path) -> TextIO:
    return cast(TextIO, tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n", dir=folder))
