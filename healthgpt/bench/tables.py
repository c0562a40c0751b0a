"""The report as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
_NOTHING = "–"
_WIDTH = 120

_LEGEND = """\
prefill: from prompts to first tokens, images' features included. step: a token more for each prompt of the batch; of
the engine guessing ahead, the mean over its tokens. tokens/s: of all prompts together, prefill included. speed-up: per
prompt, over the original with one. {launches}. moved: by a step, by formula. floor: the share of a step's time that
moving and computing this takes at the device's ceilings, measured in this run: {bandwidth} copied, {peak}
in a matrix product. What fits into a CPU's caches may pass it, and a right guess needs no step of its own. same tokens:
as the original's of the same prompts; in brackets, how many prompts have another one, and for how many of these the
original's own choice was within rounding.
"""
_LAUNCHES = {
    "kernels": "kernels: of the GPU, per token",
    "operators": "operators: calls of PyTorch's, per token",
}


def markdown(report: Mapping[str, Any]) -> str:
    """A report as `run.bench` makes it."""
    subject, ceilings = report["subject"], report["ceilings"]
    lines = [
        f"# {subject['name']} on {report['machine']['device']}, {subject['dtype']}",
        "",
        f"Loaded in {subject['load_seconds']:.1f} s; rank {_ranks(subject['ranks'])}; "
        f"medians of rounds in turns ({report['rounds']}).",
    ]
    lines += [f"Left out: {note}." for note in report["left_out"]]
    for kind in dict.fromkeys(row["task"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["task"] == kind]
        count, unit = rows[0]["tokens"], "tokens" if kind == "text" else "codes"
        lines += ["", f"## {kind.capitalize()}: {count} {unit} after prompts of {rows[0]['context']:.0f} tokens", ""]
        lines += _table(rows, report["launches"])
    legend = _LEGEND.format(
        launches=_LAUNCHES[report["launches"]],
        bandwidth=f"{ceilings['bandwidth'] / 1e9:,.3g} GB/s",
        peak=f"{ceilings['peak'] / 1e12:.3g} TFLOP/s",
    )
    return "\n".join([*lines, "", textwrap.fill(legend, _WIDTH), ""])


def _ranks(ranks: Mapping[str, int]) -> str:
    return " and ".join(f"{rank} ({kind})" for kind, rank in ranks.items())


def _table(rows: Sequence[Figures], launches: str) -> list[str]:
    columns = {
        launches if name == "launches" else name: shown
        for name, shown in _COLUMNS.items()
        if any(shown(row) != _NOTHING for row in rows)  # such as images' seconds of texts
    }
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    for row in rows:
        cells = [shown(row) for shown in columns.values()]
        if row["failure"]:
            cells = [*cells[:2], row["failure"].replace("|", "/"), *cells[3:]]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _number(key: str, form: str = ",.3g", scale: float = 1, unit: str = "") -> Callable[[Figures], str]:
    def shown(row: Figures) -> str:
        if row[key] is None:
            return _NOTHING
        value = row[key] * scale
        return f"{f'{value:,.0f}' if form.endswith('g') and value >= 100 else f'{value:{form}}'}{unit}"

    return shown


def _same(row: Figures) -> str:
    found = row["agreement"]
    if found is None:
        return _NOTHING
    percent = f"{found['percent']:.1f} %".replace("100.0", "100")
    return f"{percent} ({found['parted']}, {found['undecided']})" if found["parted"] else percent


_COLUMNS: dict[str, Callable[[Figures], str]] = {
    "way": lambda row: row["way"],
    "batch": lambda row: str(row["batch"]),
    "prefill ms": _number("prefill_ms"),
    "step ms": _number("step_ms"),
    "s per image": _number("seconds_per_image"),
    "tokens/s": _number("tokens_per_second"),
    "speed-up": _number("speed_up", ",.2f", unit=" ×"),
    "peak GB": _number("peak_bytes", scale=1e-9),
    "launches": _number("launches_per_token", ",.0f"),
    "moved MB": _number("step_bytes", scale=1e-6),
    "floor": _number("share_of_floor", ".0f", scale=100, unit=" %"),
    "same tokens": _same,
}
