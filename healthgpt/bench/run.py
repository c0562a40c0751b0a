"""The whole of a measurement: from what the user asked for to a report, and the report's files."""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from healthgpt.bench.ceilings import measure_ceilings
from healthgpt.bench.figures import KINDS, figures
from healthgpt.bench.measuring import Measurement, Row, Tell
from healthgpt.bench.subject import Subject
from healthgpt.bench.tables import markdown
from healthgpt.bench.ways import AHEAD, COMPILED, ORIGINAL, Way, ways_of, why_not_ahead, why_not_compiled
from healthgpt.files import write_atomically
from healthgpt.provenance import commit, version_of
from healthgpt.tasks import Task

logger = logging.getLogger(__name__)

REPORTS = ("bench.json", "bench.md", "bench.png")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What is measured of a subject.

    Attributes:
        batches: numbers of prompts; 1 is always among them, as speed-ups are over the original with one.
        new_tokens: of a text; 0 measures none. codes: of an image; None are all that it has, 0 measures none.
        rounds: how often every row is timed.
        compiled: transformers' compiled step, too; None where there is a GPU (on a CPU, compiling takes minutes).
    """

    batches: Sequence[int] = (1, 8, 32)
    new_tokens: int = 64
    codes: int | None = None
    rounds: int = 5
    compiled: bool | None = None

    def __post_init__(self) -> None:
        for name, value, least in (("rounds", self.rounds, 1), *(("batch", batch, 1) for batch in self.batches)):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        for name, count in (("new_tokens", self.new_tokens), ("codes", self.codes)):
            if count is not None and count != 0 and count < 2:
                raise ValueError(f"{name} is {count}, expected 0 (none) or at least 2")
        if self.new_tokens == 0 and self.codes == 0:
            raise ValueError("neither new_tokens nor codes: nothing to measure")


def bench(subject: Subject, settings: BenchSettings, tell: Tell = lambda done, total, text: None) -> dict[str, Any]:
    """Measures a subject; of an interrupted run, the report holds what was measured by then.

    Args:
        tell: is told how many of how many turns are done, and what comes next.

    Raises:
        ValueError: more tokens than the context or an image has; a model that does not draw, if asked for codes alone.
    """
    tokens = _tokens(subject, settings)
    batches = sorted({1, *settings.batches})
    compiled, left_out = _compiled(subject, settings)
    ways: dict[Task, list[Way]] = {}
    for task in tokens:
        ways[task] = ways_of(subject, task, compiled=compiled)
    if Task.GENERATION in tokens and (reason := why_not_ahead(subject)):
        left_out.append(f"{AHEAD}, as {reason}")
    measurement = Measurement(subject, ways, tokens, batches, tell)
    _check_context(subject, measurement.rows)
    ceilings = measure_ceilings(subject.device, subject.dtype)
    interrupted = False
    try:
        measurement.run(settings.rounds)
        ceilings = ceilings.or_higher(measure_ceilings(subject.device, subject.dtype))  # others may use the machine
    except KeyboardInterrupt:
        interrupted = True
    bases = {row.task: row for row in measurement.rows if row.way.name == ORIGINAL and row.batch == 1}
    return {
        "subject": _described(subject, tokens),
        "machine": _machine(subject.device),
        "ceilings": asdict(ceilings),
        "launches": "kernels" if subject.device.type == "cuda" else "operators",
        "rounds": settings.rounds,
        "interrupted": interrupted,
        "left_out": left_out,
        "rows": [
            {"context": row.context, **figures(row, bases.get(row.task), subject, ceilings)} for row in measurement.rows
        ],
    }


def _tokens(subject: Subject, settings: BenchSettings) -> dict[Task, int]:
    """How many tokens are decoded per task."""
    most = subject.codes_per_image
    codes = most if settings.codes is None else settings.codes
    if codes > most:
        raise ValueError(f"codes is {codes}, but {subject.name} " + (f"has {most} per image" if most else "draws none"))
    asked = {Task.COMPREHENSION: settings.new_tokens, Task.GENERATION: codes}
    tokens = {task: count for task, count in asked.items() if count and task in subject.network.tasks}
    if not tokens:
        raise ValueError(f"{subject.name} does nothing of what is to be measured")
    return tokens


def _check_context(subject: Subject, rows: Sequence[Row]) -> None:
    most = int(subject.network.config.text_config.max_position_embeddings)
    for row in rows:
        longest = max(map(subject.processor.expanded_length, row.prompts))
        if longest + row.tokens > most:
            raise ValueError(f"a prompt of {longest} tokens and {row.tokens} more exceed the context of {most}")


def _compiled(subject: Subject, settings: BenchSettings) -> tuple[bool, list[str]]:
    """Whether the compiled way is measured, and a line where it is not."""
    wanted = subject.device.type == "cuda" if settings.compiled is None else settings.compiled
    if not wanted:
        reason = "which takes minutes to compile on a CPU" if settings.compiled is None else "as asked for"
        return False, [f"{COMPILED}, {reason}"]
    lacking = why_not_compiled(subject.device)
    return lacking is None, [f"{COMPILED}, as {lacking}"] if lacking else []


def _described(subject: Subject, tokens: dict[Task, int]) -> dict[str, Any]:
    return {
        "name": subject.name if subject.shape is None else f"{subject.name} (random weights)",
        "dtype": str(subject.dtype).removeprefix("torch."),
        "load_seconds": subject.load_seconds,
        "ranks": {KINDS[task]: subject.rank(task) for task in tokens},
    }


def _machine(device: torch.device) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({_processor()})"
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version_of(package) for package in ("torch", "transformers")},
        "commit": commit(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = (
        [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        if info.exists()
        else []
    )
    return names[0] if names else platform.processor() or platform.machine()


def write_report(report: dict[str, Any], folder: Path) -> None:
    """Writes the `REPORTS`: bench.json, bench.md and, where matplotlib is installed, bench.png.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(folder / "bench.json", lambda path: path.write_text(text, encoding="utf-8"))
    write_atomically(folder / "bench.md", lambda path: path.write_text(markdown(report), encoding="utf-8"))
    try:
        from healthgpt.bench import chart
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        logger.info("no chart: matplotlib is not installed (pip install 'healthgpt[evaluation]')")
        return
    write_atomically(folder / "bench.png", lambda path: chart.save(report, path))
