"""Numbers for the pages, read out of benchmarks/results when the site is built."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
EVALUATIONS = RESULTS / "evaluations"  # MODEL/BENCHMARK/results.json, as `healthgpt evaluate` writes them


@cache
def read(name: str) -> Any:
    """A file of results.

    Raises:
        FileNotFoundError: there is none.
    """
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def found(name: str) -> Any | None:
    """A file of results that may not have been measured yet."""
    return read(name) if (RESULTS / f"{name}.json").exists() else None


def nano(figure: str) -> float:
    """A figure of HealthGPT-Nano's evaluation, such as close/right."""
    return float(read("nano")["figures"][figure]["value"])


def nano_count(figure: str) -> int:
    """How many samples it is of."""
    return int(read("nano")["figures"][figure]["n"])


def percent(value: float, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %"


def row(name: str, **wanted: Any) -> dict[str, Any]:
    """The one row of a file of results that has these values.

    Raises:
        LookupError: there is none, or several.
    """
    rows = [one for one in read(name)["rows"] if all(one.get(key) == value for key, value in wanted.items())]
    if len(rows) != 1:
        raise LookupError(f"{name}.json has {len(rows)} rows of {wanted}")
    return rows[0]


def speed(figure: str) -> float:
    """One of the miniature's times, such as `first answer`, in seconds."""
    return float(row("nano_speed", figure=figure)["value"])


def megabytes(folder: Path) -> float:
    """The size of a folder's weights."""
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors")) / 1e6


def evaluated(model: str, benchmark: str, figure: str) -> float | None:
    """A figure of a committed evaluation of real weights; None where there is none."""
    path = EVALUATIONS / model / benchmark / "results.json"
    if not path.exists():
        return None
    return float(json.loads(path.read_text(encoding="utf-8"))["figures"][figure]["value"])
