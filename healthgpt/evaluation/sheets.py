"""Sheets of images: wrong answers below what was asked, and drawings beside their truths with a map of the errors.

They show images, questions and ids as the data have them, and nothing else of a subject. Needs matplotlib, as `charts`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from healthgpt.evaluation.charts import FAINT, INK, MUTED
from healthgpt.evaluation.pictures import WHITE, Picture, as_grey

if TYPE_CHECKING:
    from healthgpt.evaluation.worst import BadDrawing, Given, WrongAnswer

RIGHT, WRONG = "#0072B2", "#D55E00"  # told apart by colour-blind readers, unlike green and red
MOST_ERROR = 100  # grey values; the scale is the same on every sheet, and larger errors have its end's colour
_COLUMNS = 4
_LINE = 0.155  # inches of a line of text
_LETTERS = 34  # of a line below an image
_MOST_LINES = 4  # of one text


def answers_sheet(cases: Sequence[WrongAnswer]) -> Figure:
    """Wrong answers: image, question, truth, answer with its confidence, id."""
    columns = min(len(cases), _COLUMNS)
    rows = [cases[start : start + columns] for start in range(0, len(cases), columns)]
    texts = [[_lines(case) for case in row] for row in rows]
    # A row is as high as its longest text asks for.
    heights = [2.1 + _LINE * (max(map(len, row)) + 1) for row in texts]
    figure = Figure(figsize=(2.35 * columns, sum(heights)))
    bottom = 1.0
    for row, lines, height in zip(rows, texts, heights, strict=True):
        bottom -= height / sum(heights)
        for column, (case, below) in enumerate(zip(row, lines, strict=True)):
            left, wide = (column + 0.04) / columns, 0.92 / columns
            tall = 2.05 / sum(heights)
            ax = figure.add_axes((left, bottom + (height - 2.1) / sum(heights), wide, tall))
            _show_given(ax, case.given, "no image")
            for number, (text, colour, weight) in enumerate(below):
                y = -(number + 1) * _LINE / 2.05
                ax.text(0, y, text, transform=ax.transAxes, color=colour, weight=weight, fontsize=7.5, va="center")
    return figure


def drawings_sheet(cases: Sequence[BadDrawing]) -> Figure:
    """Drawings, a row each: input, drawn, truth, and where they differ on a scale that is always the same."""
    figure = Figure(figsize=(9.2, 2.02 * len(cases) + 0.3), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
    axes = figure.subplots(len(cases), 4, squeeze=False)
    errors: Any = None
    for row, case in zip(axes, cases, strict=True):
        _show_given(row[0], case.given, case.instruction)
        _show(row[1], case.drawn)
        _show(row[2], case.truth)
        errors = row[3].imshow(error_map(case.drawn, case.truth), cmap="inferno", vmin=0, vmax=MOST_ERROR)
        _bare(row[3])
        row[0].set_ylabel(f"{_shortened(_without_middle(case.id, 44), 24, 3)}\nSSIM {case.ssim:.3f}", fontsize=8)
    for ax, title in zip(axes[0], ("input", "drawn", "truth", "error"), strict=True):
        ax.set_title(title, loc="center", fontsize=9)
    bar = figure.colorbar(errors, ax=axes[:, 3], extend="max", shrink=min(1.0, 2.2 / len(cases) + 0.2), aspect=18)
    bar.set_label("error in grey values", fontsize=8)
    bar.outline.set_visible(False)
    return figure


def error_map(drawn: Picture, truth: Picture) -> NDArray[np.float64]:
    """Absolute differences of grey values, from 0 to 255, (S, S).

    Raises:
        ValueError: the pictures are not of one size.
    """
    if drawn.shape[:2] != truth.shape[:2]:
        raise ValueError(f"pictures of {drawn.shape[:2]} and {truth.shape[:2]} pixels, expected one size")
    return np.abs(as_grey(drawn) - as_grey(truth)) * WHITE


def _lines(case: WrongAnswer) -> list[tuple[str, str, str]]:
    """The lines below an image: text, colour and weight of each."""
    sure = "" if case.confidence is None else f"  ({100 * case.confidence:.0f} % sure)"
    images = f"  (first of {case.given.num_images} images)" if case.given.num_images > 1 else ""
    parts = (
        (case.question, INK, "normal"),
        (f"answer: {case.answer or '(nothing)'}{sure}", WRONG, "bold"),
        (f"truth: {case.truth}", RIGHT, "bold"),
        (f"{_without_middle(case.id, 60)}{images}", MUTED, "normal"),
    )
    return [
        (line, colour, weight)
        for text, colour, weight in parts
        for line in _shortened(text, _LETTERS - 3 * (weight == "bold"), _MOST_LINES).splitlines()
    ]


def _shortened(text: str, width: int, most: int) -> str:
    """A text in at most so many lines."""
    lines = textwrap.wrap(" ".join(text.split()), width, max_lines=most, placeholder=" …")
    return "\n".join(lines)


def _without_middle(text: str, most: int) -> str:
    """An id in at most so many letters; both of its ends tell it from others."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _show_given(ax: Any, given: Given, instead: str) -> None:
    """The image that was given, or a text where there is none."""
    if given.image is not None:
        _show(ax, np.asarray(given.image))
        return
    text = f"not readable: {given.missing}" if given.missing else instead
    _bare(ax)
    ax.set_box_aspect(1)
    ax.set_facecolor("#f5f7fa")
    ax.text(0.05, 0.95, _shortened(text, 26, 11), transform=ax.transAxes, fontsize=7.5, va="top", color=MUTED)


def _show(ax: Any, picture: Picture) -> None:
    ax.imshow(picture, cmap="gray", vmin=0, vmax=WHITE)
    _bare(ax)


def _bare(ax: Any) -> None:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(True)
    ax.spines[:].set_color(FAINT)
