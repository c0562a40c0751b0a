"""The files that a preparation writes: records of each split, lists of ids, the list of what is missing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple, Self, TextIO

from healthgpt.data.sorted_lines import SortedLines
from healthgpt.files import write_atomically

MISSING_NAME = "missing.txt"
SPLITS = ("train", "validation", "test")
_SHOWN = 5  # names in a message
# Temporary files of `write_atomically`, and records files while they grow, which a killed run leaves behind.
_LEFT_BEHIND = re.compile(r"\..+-[a-z0-9_]{8}\.\w+|\.(?:train|validation|test)\.jsonl")


class Line(NamedTuple):
    """A record to be written, and what is counted of it."""

    split: str
    group: str
    kind: str
    name: str
    text: str


class Written:
    """The records files of a preparation while they grow, and what is counted on the way."""

    def __init__(self, output: Path):
        self._output = output
        self._stack = ExitStack()
        self._files: dict[str, TextIO] = {}
        self._groups: dict[str, SortedLines] = {}
        self._last_group: dict[str, str] = {}
        self._kinds: Counter[str] = Counter()
        self._names, self._missing = (self._stack.enter_context(SortedLines(output)) for _ in range(2))
        self.records: Counter[str] = Counter()
        self.num_without_files = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def total(self) -> int:
        """Samples, with those that are left out because their files are missing."""
        return self.records.total() + self.num_without_files

    def add(self, lines: Sequence[Line], missing: Sequence[Sequence[str]]) -> None:
        """Adds records, and samples that lack files.

        Args:
            missing: the files of each sample that lacks some.
        """
        for line in lines:
            split = line.split
            if split not in self._files:
                growing = (self._output / f".{split}.jsonl").open("w", encoding="utf-8", newline="\n")
                self._files[split] = self._stack.enter_context(growing)
                self._groups[split] = self._stack.enter_context(SortedLines(self._output))
            self._files[split].write(line.text + "\n")
            self.records[split] += 1
            self._kinds[line.kind] += 1
            self._names.add(f"{line.name}\t{self.records.total():012d}")
            if line.group != self._last_group.get(split):
                self._groups[split].add(line.group)
                self._last_group[split] = line.group
        self.num_without_files += len(missing)
        for names in missing:
            for name in names:
                self._missing.add(name)

    def list_missing(self) -> int:
        """Writes the list of missing files, where there are any; returns how many there are."""
        path = self._output / MISSING_NAME
        num_missing = write_lines(path, self._missing.unique())
        if not num_missing:
            path.unlink()
        return num_missing

    def missing_message(self, num_missing: int) -> str:
        shown = ", ".join(islice(self._missing.unique(), _SHOWN))
        return (
            f"{num_missing} files are missing, which {self.num_without_files} of {self.total} records need, "
            f"such as {shown}; all are in {self._output / MISSING_NAME}"
        )

    def finish(self) -> dict[str, Any]:
        """Gives the files their names, writes the lists of ids; returns the counts."""
        (self._output / "splits").mkdir(exist_ok=True)
        num_groups = {}
        for split in SPLITS:
            records, ids = self._output / f"{split}.jsonl", self._output / "splits" / f"{split}.txt"
            if split in self.records:
                self._files[split].close()
                (self._output / f".{split}.jsonl").replace(records)
                num_groups[split] = write_lines(ids, self._groups[split].unique())
            else:  # of an earlier preparation whose manifest is gone
                records.unlink(missing_ok=True)
                ids.unlink(missing_ok=True)
        return {
            "records": {split: self.records[split] for split in num_groups},
            "groups": num_groups,
            "kinds": dict(sorted(self._kinds.items())),
            "output_sha256": {f"{split}.jsonl": file_sha256(self._output / f"{split}.jsonl") for split in num_groups},
        }

    def check_names(self, source_name: str) -> None:
        """Checks that every id is there once.

        Raises:
            ValueError: one is there twice.
        """
        twice, shown = 0, list[str]()
        for name, places in groupby((line.rpartition("\t")[::2] for line in self._names), key=lambda pair: pair[0]):
            numbers = [str(int(number)) for _, number in islice(places, _SHOWN)]
            if len(numbers) > 1:
                twice += 1
                if len(shown) < _SHOWN:
                    shown.append(f"{name} (records {', '.join(numbers)})")
        if twice:
            raise ValueError(f"{source_name}: {twice} ids are there more than once: {', '.join(shown)}")


def write_lines(path: Path, lines: Iterable[str]) -> int:
    """Writes a file of lines; returns how many there are."""
    count = 0

    def write(temporary: Path) -> None:
        nonlocal count
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(line + "\n")
                count += 1

    write_atomically(path, write)
    return count


def tidy(output: Path) -> None:
    """Removes what a killed run was in the middle of writing."""
    for path in (*output.glob(".*"), *(output / "splits").glob(".*"), *(output / "images").rglob(".*")):
        if _LEFT_BEHIND.fullmatch(path.name) and path.is_file():
            path.unlink()


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
