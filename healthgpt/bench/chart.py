"""The report as bars: the time of a step, and the floor of it. Needs matplotlib, so this is imported only to draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from healthgpt.bench.ways import AHEAD, COMPILED, ENGINE, GENERATE, ORIGINAL
from healthgpt.evaluation.charts import COLOURS, EDGE, INK, MUTED, style

Figures = Mapping[str, Any]
_WAYS = (ORIGINAL, GENERATE, COMPILED, ENGINE, AHEAD)
# The original and the library are what is compared with; the engine stands out.
_COLOUR = dict(zip(_WAYS, (EDGE, COLOURS[4], COLOURS[1], COLOURS[0], COLOURS[2]), strict=True))
_BAR = 0.3  # inches


def save(report: Mapping[str, Any], path: Path) -> None:
    """Draws a report, as `run.bench` makes it, into a file."""
    with style():
        _drawn(report).savefig(path)


def _drawn(report: Mapping[str, Any]) -> Figure:
    """A line of panels per task, a panel per batch, each with its own scale."""
    kinds = list(dict.fromkeys(row["task"] for row in report["rows"]))
    batches = sorted({row["batch"] for row in report["rows"]})
    counts = [max(len(_of(report, kind, batch)) for batch in batches) for kind in kinds]
    height = sum(_BAR * count + 0.6 for count in counts) + 1.1
    figure = Figure(figsize=(max(2.0 + 2.5 * len(batches), 6.4), height), layout="constrained")
    panels = figure.subplots(len(kinds), len(batches), squeeze=False, height_ratios=[count + 0.5 for count in counts])
    for line, kind in enumerate(kinds):
        names = [row["way"] for row in _of(report, kind, batches[0])]
        for column, batch in enumerate(batches):
            panel = panels[line, column]
            _draw_panel(panel, _of(report, kind, batch), names)
            panel.set_title(f"{kind}, batch of {batch}" if batch > 1 else f"{kind}, one prompt")
            if column:
                panel.set_yticklabels([])
            if line == len(kinds) - 1:
                panel.set_xlabel("ms per step")
    subject, machine = report["subject"], report["machine"]
    figure.suptitle(f"{subject['name']} on {machine['device']}, {subject['dtype']}", x=0.01, ha="left", fontsize=11)
    floor = "floor: weights and cache read once, at the bandwidth measured in this run"
    handles = [
        Line2D([], [], color=COLOURS[5], linewidth=1.8, label=floor),
        Line2D([], [], linestyle="none", label="in brackets: speed-up per prompt, over the original with one prompt"),
    ]
    figure.legend(handles=handles, loc="outside lower left", fontsize=8.5)
    return figure


def _of(report: Mapping[str, Any], kind: str, batch: int) -> list[Figures]:
    return [row for row in report["rows"] if row["task"] == kind and row["batch"] == batch]


def _draw_panel(ax: Any, rows: Sequence[Figures], names: Sequence[str]) -> None:
    """One bar per way; all panels of a line have the same places, so that names stand at the left only."""
    most = max([row["step_ms"] or 0 for row in rows] + [row["floor_step_ms"] for row in rows])
    floor = rows[0]["floor_step_ms"]
    for row in rows:
        y = names.index(row["way"])
        if row["step_ms"] is None:
            ax.text(0.02 * most, y, row["failure"] or "not measured", va="center", fontsize=8, color=MUTED)
            continue
        ax.barh(y, row["step_ms"], 0.72, color=_COLOUR[row["way"]], linewidth=0)
        said = f"{row['step_ms']:.3g}"
        if row["speed_up"] is not None:
            said += f"  ({row['speed_up']:.1f} ×)"
        across = row["step_ms"] < floor < row["step_ms"] + 0.4 * most  # the floor's line would cross the number
        ax.text((floor if across else row["step_ms"]) + 0.02 * most, y, said, va="center", fontsize=8, color=INK)
    ax.plot([floor] * 2, [-0.5, len(names) - 0.5], color=COLOURS[5], linewidth=1.8, solid_capstyle="butt", zorder=3)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set_xlim(0, 1.42 * most)  # room for the numbers
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_color(EDGE)
