"""Charts of runs: accuracy by modality, reliability diagrams, confusion matrices.

One look for all of them: colours that colour-blind readers can tell apart (Okabe and Ito), numbers where they help,
nothing else. A run has its colour in every chart. Needs matplotlib, so this is imported only when charts are drawn.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from healthgpt.evaluation.calibration import Calibration
from healthgpt.evaluation.confusion import OTHER, Confusion
from healthgpt.evaluation.paper import L14, M3

if TYPE_CHECKING:
    from healthgpt.evaluation.modalities import Accuracies

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_HATCHES = ("", "////", "....")  # of the seventh run and those after it, which have the first ones' colours
INK, MUTED, EDGE, FAINT = "#1f2933", "#6b7280", "#9aa5b1", "#e5e7eb"
PAPER: dict[str, Any] = {M3: "-", L14: (0, (1.5, 1))}  # the paper's own models, as lines
DPI = 160
_COLUMNS = 3  # panels side by side
_CELL = 0.45  # inches of a cell of a matrix
_LONGEST = 24  # letters of a name beside it
_BORDER: Any = {"fill": False, "edgecolor": INK, "linewidth": 0.9, "zorder": 3, "clip_on": False}
_WIDTH = 8.6  # inches
_STYLE: Any = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures are the same everywhere
    "font.size": 9,
    "text.color": INK,
    "text.parse_math": False,  # a "$" in a question is a "$"
    "axes.edgecolor": EDGE,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "savefig.dpi": DPI,
    "figure.facecolor": "white",
}


class Label(NamedTuple):
    """A run's name, and its place among all runs, which its colour goes by."""

    name: str
    place: int

    @property
    def colour(self) -> str:
        return COLOURS[self.place % len(COLOURS)]

    @property
    def hatch(self) -> str:
        return _HATCHES[self.place // len(COLOURS) % len(_HATCHES)]


def style() -> AbstractContextManager[None]:
    """Within it, figures are drawn and saved in the house's look."""
    return matplotlib.rc_context(_STYLE)


# Accuracy


def accuracy_chart(labels: Sequence[Label], found: Accuracies) -> Figure:
    """Bars of runs by group, with intervals of 95 %, their numbers, and the paper's rows as lines and ticks."""
    height = 0.8 / max(len(labels), 1.4)  # a bar alone is no slab
    first = -(len(labels) - 1) / 2
    # Room for the bars, the axis below them, and the legend above.
    inches = len(found.groups) * max(0.26 * len(labels) + 0.14, 0.42) + 0.55
    handles = _legend(labels, found)
    top = 0.24 * ceil(len(handles) / 2)
    figure = Figure(figsize=(_WIDTH, inches + top), layout="constrained")
    ax = figure.subplots()
    for row, (label, values) in enumerate(zip(labels, found.runs, strict=True)):
        for group, value in enumerate(values):
            if value is not None and value["value"] is not None:
                _draw_bar(ax, label, group + (first + row) * height, height * 0.9, value, aside=bool(found.paper))
    if found.paper:
        _draw_paper(ax, found)
    ax.set_yticks(range(len(found.groups)), [_group(found, place) for place in range(len(found.groups))])
    ax.set_ylim(len(found.groups) - 0.5, -0.5)
    ax.plot([0, 100], [0.5, 0.5], color=EDGE, linewidth=0.8)  # below it, parts of what stands above it
    ax.tick_params(axis="y", length=0)
    # Room for numbers to the right of a full bar.
    ax.set_xlim(0, 108)
    ax.set_xticks(range(0, 101, 20))
    ax.spines["bottom"].set_bounds(0, 100)
    ax.set_xlabel("right answers in percent; lines: bootstrap interval of 95 %")
    ax.grid(axis="x")
    figure.legend(handles=handles, loc="outside upper left", ncols=2, handlelength=1.8, fontsize=8.5)
    return figure


def _draw_bar(ax: Any, label: Label, y: float, height: float, found: Any, *, aside: bool) -> None:
    """A bar with its interval and its number: at its end, or aside, where other things stand beside bars."""
    value = 100 * found["value"]
    ax.barh(y, value, height, color=label.colour, hatch=label.hatch, edgecolor="white", linewidth=0)
    end = value
    if found["low"] is not None:
        low, end = 100 * found["low"], 100 * found["high"]
        ax.plot([low, end], [y, y], color=INK, linewidth=1, solid_capstyle="butt")
    ax.text(101 if aside else end + 0.8, y, f"{value:.1f}", va="center", fontsize=8, color=INK)


def _draw_paper(ax: Any, found: Accuracies) -> None:
    """The paper's own models as lines across a group, others as ticks at its lower edge."""
    for name, values in found.paper.items():
        for group, value in enumerate(values):
            if name in PAPER:
                ax.plot([value] * 2, [group - 0.44, group + 0.44], color=INK, linewidth=1.4, linestyle=PAPER[name])
            else:
                ax.plot([value] * 2, [group + 0.36, group + 0.46], color=MUTED, linewidth=0.9, alpha=0.8)


def _group(found: Accuracies, place: int) -> str:
    """A group's name with its number of samples, which differs between runs of parts."""
    counts = sorted({row[place]["n"] for row in found.runs if row[place] is not None})  # type: ignore[index]
    shown = " to ".join(f"{count:,}" for count in dict.fromkeys((counts or [0])[:: max(len(counts) - 1, 1)]))
    return f"{textwrap.fill(found.groups[place], 22)}\nn = {shown}"


def _legend(labels: Sequence[Label], found: Accuracies) -> list[Any]:
    """Runs; where there are the paper's rows, runs in one column and these in another."""
    runs: list[Any] = [
        Patch(facecolor=label.colour, hatch=label.hatch, edgecolor="white", linewidth=0, label=label.name)
        for label in labels
    ]
    if not found.paper:
        return runs
    others = f"{len(found.paper.keys() - PAPER.keys())} other models (paper)"
    paper: list[Any] = [
        *(Line2D([], [], color=INK, linewidth=1.4, linestyle=PAPER[name], label=name) for name in PAPER),
        Line2D([], [], color=MUTED, marker="|", linestyle="none", markersize=5, label=others),
    ]
    length = max(len(runs), len(paper))
    nothing = [Line2D([], [], linestyle="none", label=" ")]
    return [handle for column in (runs, paper) for handle in column + nothing * (length - len(column))]


# Calibration


def calibration_chart(labels: Sequence[Label], found: Sequence[Calibration]) -> Figure:
    """Reliability diagrams, a panel per run, each above the counts of its bins."""
    columns = min(len(labels), _COLUMNS)
    rows = ceil(len(labels) / columns)
    figure = Figure(figsize=(3.1 * columns + 0.2, 4.1 * rows), layout="constrained")
    panels = figure.subfigures(rows, columns, squeeze=False).ravel()
    for panel, label, one in zip(panels, labels, found, strict=False):
        upper, lower = panel.subplots(2, 1, sharex=True, height_ratios=(3.4, 1))
        _draw_reliability(upper, label, one)
        _draw_counts(lower, label, one)
    return figure


def _draw_reliability(ax: Any, label: Label, found: Calibration) -> None:
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    for one in found.bins:
        if one.accuracy is None or one.confidence is None:
            continue
        ax.bar(one.low, one.accuracy, one.high - one.low, align="edge", color=label.colour, alpha=0.28, linewidth=0)
        # The gap between what was said and what was right.
        ax.plot([one.confidence] * 2, [one.confidence, one.accuracy], color=label.colour, linewidth=1.6, zorder=2)
        size = 3 + 5 * (one.n / found.n) ** 0.5  # many answers, a large dot
        ax.plot(one.confidence, one.accuracy, "o", color=label.colour, markersize=size, clip_on=False, zorder=3)
    said = f"ECE {found.error:.3f}\nn = {found.n:,}"
    ax.text(0.04, 0.95, said, va="top", transform=ax.transAxes, linespacing=1.4, zorder=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), ylabel="share of right answers")
    ax.set_title(textwrap.fill(label.name, 36))
    ax.grid()


def _draw_counts(ax: Any, label: Label, found: Calibration) -> None:
    most = max(one.n for one in found.bins)
    for one in found.bins:
        ax.bar(one.low, one.n, one.high - one.low, align="edge", color=label.colour, edgecolor="white", linewidth=0.8)
        if one.n:
            middle = (one.low + one.high) / 2
            ax.text(middle, one.n + 0.05 * most, f"{one.n:,}", ha="center", fontsize=7, color=MUTED)
    ax.set(ylim=(0, 1.25 * most), yticks=[], ylabel="answers", xlabel="probability of the first token")
    ax.spines["left"].set_visible(False)


# Confusion


def confusion_chart(labels: Sequence[Label], found: Sequence[Confusion]) -> Figure:
    """Confusion matrices, a panel per run: counts, shaded by their share of the truth's samples."""
    size = max(len(one.truths) for one in found) + 1
    columns = min(len(labels), _COLUMNS if size <= 6 else 2)
    rows = ceil(len(labels) / columns)
    longest = min(max(len(name) for one in found for name in one.truths), _LONGEST)
    width, height = _CELL * size + 0.5 + 0.07 * longest, _CELL * (size - 1) + 1.1 + 0.045 * longest
    figure = Figure(figsize=(max(width, 2.6) * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, label, one in zip(axes, labels, found, strict=False):
        _draw_matrix(ax, label, one)
    for ax in axes[len(labels) :]:
        ax.set_axis_off()
    return figure


def _draw_matrix(ax: Any, label: Label, found: Confusion) -> None:
    counts = np.array(found.counts)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1.15, aspect="equal")
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.6 else INK
            ax.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=colour)
        if row == column:
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, **_BORDER))
    names = [textwrap.shorten(name, _LONGEST, placeholder=" …") for name in found.truths]
    turned = max(map(len, names)) > 4
    rotation: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    ax.set_xticks(range(len(names) + 1), [*names, OTHER], **rotation)
    ax.set_yticks(range(len(names)), names)
    ax.axvspan(
        len(names) - 0.5, len(names) - 0.42, color="white", linewidth=0
    )  # answers that are no truths stand apart
    ax.set(xlabel="answer", ylabel="truth")
    ax.set_title(f"{textwrap.fill(label.name, 32)}\n{found.right:,} of {found.n:,} right", fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
