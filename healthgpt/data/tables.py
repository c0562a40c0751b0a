"""Rows of the files that datasets come in, one at a time: JSON lists, JSON Lines, CSV (compressed too), TSV, Parquet.

Memory does not grow with the file.
"""

from __future__ import annotations

import csv
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from healthgpt.files import require_file

_ROWS_AT_ONCE = 256
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_LONGEST_CELL = 2**27  # bytes; Python's own bound of CSV cells, 128 KiB, is too small for reports


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
    import ijson

    with path.open("rb") as file:
        first = file.read(1)
        while first and (first.isspace() or first in _BYTE_ORDER_MARK):
            first = file.read(1)
        if first == b"[":
            file.seek(-1, os.SEEK_CUR)
            number = 0
            try:
                for number, row in enumerate(ijson.items(file, "item", use_float=True), start=1):
                    yield _checked(row, path, number)
            except (ijson.JSONError, UnicodeDecodeError) as error:
                reason = " ".join(str(error).split())
                raise ValueError(f"{path}, after record {number}: not readable as JSON ({reason})") from None
            return
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: not readable as JSON ({error})") from None
                yield _checked(row, path, number)


def _checked(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ValueError(f"{path}, record {number}: expected an object, found {type(row).__name__}")
    return row


def _csv_rows(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)
    with _open_csv(path) as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {reader.line_num}: has other columns than the first line")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: not readable as CSV ({error})") from None
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}, line {reader.line_num}: damaged or truncated ({error})") from None


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
