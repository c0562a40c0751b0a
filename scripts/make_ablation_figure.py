"""Draws docs/images/ablations.png from the records of scripts/nano/ablations.sh: a point per seed, a bar at their mean.

.venv/bin/python scripts/make_ablation_figure.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from healthgpt.nano.ablations import COMPARISONS, read_records, scores

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "benchmarks" / "results" / "nano_ablations"
PATH = ROOT / "docs" / "images" / "ablations.png"
COLOURS = {"understanding": "#2563eb", "drawing": "#ea580c"}


def main() -> None:
    records = read_records(RECORDS)
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    for i, (ax, (name, variants)) in enumerate(
        zip(figure.subplots(1, len(COMPARISONS)), COMPARISONS.items(), strict=True)
    ):
        shown = [variant for variant in variants if variant.name in records]
        for row, variant in enumerate(shown):
            draw_row(ax, row, [scores(record) for record in records[variant.name]])
        ax.set_yticks(range(len(shown)), [variant.title.replace(", concrete", ",\nconcrete") for variant in shown])
        ax.set_ylim(len(shown) - 0.5, -0.5)
        ax.set_title(name, fontsize=11, loc="left")
        ax.set_xlabel("percent")
        ax.grid(axis="x", alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
        if i == 0:
            ax.legend(loc="center", fontsize=8)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PATH, dpi=110)
    print(PATH)


def draw_row(ax: Any, row: int, runs: list[dict[str, float]]) -> None:
    """One variant: its seeds' scores in both tasks."""
    for offset, (name, colour) in zip((-0.13, 0.13), COLOURS.items(), strict=True):
        values = [run[name] for run in runs]
        mean = sum(values) / len(values)
        ax.plot(values, [row + offset] * len(values), "o", color=colour, markersize=5, label=name if row == 0 else None)
        ax.plot([mean, mean], [row + offset - 0.11, row + offset + 0.11], color=colour, linewidth=2)


if __name__ == "__main__":
    main()
