"""Rows of the files that datasets come in, one at a time: JSON lists, JSON Lines, CSV (compressed too), TSV, Parquet.

Memory does not grow with the file.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from healthgpt.files import require_file

_ROWS_AT_ONCE = 64  # of Parquet, whose rows may hold images
_CHARACTERS_AT_ONCE = 2**16  # of JSON lists
_ENTRY = re.compile(r"\s*([\[\],]?)\s*")  # what stands before an entry of a list
# Characters, of a JSON list's entry too. Python's own bound of CSV cells, 128 KiB, is too small for reports.
_LONGEST_CELL = 2**27


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file, by its ending and, for JSON, its first character.

    Raises:
        FileNotFoundError: no such file.
        ValueError: an ending of another kind, or a damaged file; the message names it and the row.
    """
    require_file(path)
    ending = path.suffix.lower()
    if ending in (".json", ".jsonl"):
        yield from _json_rows(path)
    elif ending in (".csv", ".tsv") or path.name.lower().endswith(".csv.gz"):
        yield from _csv_rows(path, "\t" if ending == ".tsv" else ",")
    elif ending == ".parquet":
        yield from _parquet_rows(path)
    else:
        raise ValueError(f"{path}: expected .json, .jsonl, .csv, .csv.gz, .tsv or .parquet")


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig") as file:
        number, is_list = 0, True
        try:
            is_list = _is_list(file)
            for number, row in enumerate(_entries(file) if is_list else _lines(file), start=1):
                yield _checked(row, path, number)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            place = f"after record {number}" if is_list else f"record {number + 1}"
            reason = error.msg if isinstance(error, json.JSONDecodeError) else error
            raise ValueError(f"{path}, {place}: not readable as JSON ({reason})") from None


def _is_list(file: TextIO) -> bool:
    """Whether a list is what a file begins with; leaves it at its start."""
    while (first := file.read(1)).isspace():
        pass
    file.seek(0)
    return first == "["


def _lines(file: TextIO) -> Iterator[Any]:
    return (json.loads(line) for line in file if line.strip())


def _entries(file: TextIO) -> Iterator[Any]:
    """The entries of a JSON list, one at a time. `NaN` is one of them, as Python writes it where a table has gaps.

    Raises:
        json.JSONDecodeError: it is no such list.
    """
    decode = json.JSONDecoder().raw_decode
    text, place = "", 0  # what has been read and not been taken, from a place on
    separator = "["
    while True:
        found = _ENTRY.match(text, place)
        assert found is not None  # it matches anything
        try:
            if found[1] == "]" and separator == ",":
                return _refuse_rest(text, found.end(), file)
            if found[1] != separator:
                raise json.JSONDecodeError(f"Expecting {separator!r}", text, found.start(1))
            if separator == "[" and text[found.end() : found.end() + 1] == "]":
                return _refuse_rest(text, found.end() + 1, file)
            entry, place = decode(text, found.end())
        except json.JSONDecodeError:
            # Wrong, or not there yet: an entry may be longer than what has been read.
            left = len(text) - place
            more = file.read(max(_CHARACTERS_AT_ONCE, left)) if left < _LONGEST_CELL else ""
            if not more:
                raise
            text, place = text[place:] + more, 0
            continue
        yield entry
        separator = ","


def _refuse_rest(text: str, place: int, file: TextIO) -> None:
    """Raises a JSONDecodeError for anything but blanks after a list's end."""
    while text:
        if rest := text[place:].lstrip():
            raise json.JSONDecodeError("Extra data", rest, 0)
        text, place = file.read(_CHARACTERS_AT_ONCE), 0


def _checked(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{path}, record {number}: expected an object, found {type(row).__name__}")
    return row


def _csv_rows(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)
    with _open_csv(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            reader.fieldnames = _column_names(reader.fieldnames or (), path)
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: has other columns than the first line")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from None
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: damaged or truncated ({error})") from None


def _column_names(names: Sequence[str], path: Path) -> list[str]:
    """Names of columns without outer blanks; of those without a name there may be several."""
    found = [name.strip() for name in names]
    if twice := sorted({name for name in found if name and found.count(name) > 1}):
        raise ValueError(f"{path}, line 1: has the column {', '.join(twice)} more than once")
    return found


def _open_csv(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not readable as Parquet ({error})") from None
