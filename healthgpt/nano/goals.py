"""What the miniature has to reach, and the table that sets an evaluation's figures beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from healthgpt.data.phantoms.questions import Kind

Figures = Mapping[str, Mapping[str, Any]]  # name -> {"value", "n", ...}, as an evaluation's `results.json` has them
_KINDS = tuple(f"kind={kind}" for kind in Kind if kind != Kind.REPORT)  # reports are long: they count as open answers
_CONVERSIONS = ("ct2mri", "mri2ct")


@dataclass(frozen=True)
class Goal:
    """One line of the table.

    Attributes:
        reached: an evaluation's figures -> the value, the number of samples, and what to say beside it.
        least: the smallest value that is good enough.
        shown: how a value is written.
    """

    title: str
    reached: Callable[[Figures], tuple[float, int, str]]
    least: float
    shown: Callable[[float], str]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _decibels(value: float) -> str:
    return f"{value:+.1f} dB"


def _ssim(value: float) -> str:
    return f"{value:.3f}"


def _answers(*groups: str) -> Callable[[Figures], tuple[float, int, str]]:
    """The lowest share of right answers of some groups of questions, which is named where they are several."""

    def reached(figures: Figures) -> tuple[float, int, str]:
        found = {group: figures[f"{group}/right"] for group in groups}
        lowest = min(groups, key=lambda group: found[group]["value"])
        note = f"lowest: {lowest.partition('=')[2]}" if len(groups) > 1 else ""
        return found[lowest]["value"], found[lowest]["n"], note

    return reached


def _drawings(figure: str, *kinds: str) -> Callable[[Figures], tuple[float, int, str]]:
    """The lowest of a figure over types of drawing."""

    def reached(figures: Figures) -> tuple[float, int, str]:
        found = {kind: figures[f"kind={kind}/{figure}"] for kind in kinds}
        lowest = min(kinds, key=lambda kind: found[kind]["value"])
        note = ", ".join(f"{kind} {found[kind]['value']:.3f}" for kind in kinds) if len(kinds) > 1 else ""
        return found[lowest]["value"], found[lowest]["n"], note

    return reached


def _gain(figures: Figures) -> tuple[float, int, str]:
    """Decibels of super-resolution above bicubic interpolation."""
    drawn, bicubic = (figures[f"kind=super-resolution/{name}"] for name in ("psnr", "psnr_bicubic"))
    gain = drawn["value"] - bicubic["value"]
    return gain, drawn["n"], f"{drawn['value']:.1f} against {bicubic['value']:.1f} dB"


def _above_copying(figures: Figures) -> tuple[float, int, str]:
    """How much more of SSIM a conversion has than its input, unchanged."""
    found = {k: [figures[f"kind={k}/{name}"]["value"] for name in ("ssim", "ssim_copied")] for k in _CONVERSIONS}
    gains = {kind: drawn - copied for kind, (drawn, copied) in found.items()}
    lowest = min(gains, key=lambda kind: gains[kind])
    note = ", ".join(f"{kind}: {drawn:.3f}, copied {copied:.3f}" for kind, (drawn, copied) in found.items())
    return gains[lowest], figures[f"kind={lowest}/ssim"]["n"], note


_DRAWN = (*_CONVERSIONS, "reconstruction")
GOALS = (
    Goal("closed questions, all", _answers("close"), 0.96, _percent),
    Goal("modality", _answers("kind=modality"), 0.99, _percent),
    Goal("organ", _answers("kind=organ"), 0.99, _percent),
    Goal("each kind of question", _answers(*_KINDS), 0.93, _percent),
    Goal("open questions, all (exact match, reports included)", _answers("open"), 0.85, _percent),
    Goal("conversions, reconstruction: SSIM, share of the ceiling", _drawings("ssim_share", *_DRAWN), 0.97, _percent),
    Goal("the ceiling: SSIM of the VQGAN's round trip of the truth", _drawings("ssim_ceiling", *_DRAWN), 0.88, _ssim),
    Goal("conversions: SSIM above the copied input's", _above_copying, 0.1, _ssim),
    Goal("4 x super-resolution: PSNR above bicubic", _gain, 1.5, _decibels),
    Goal("report to X-ray: finding and side read back", _drawings("findings", "report-to-cxr"), 0.90, _percent),
    Goal("conversions: lesions kept", _drawings("lesions_kept", *_CONVERSIONS), 0.95, _percent),
    Goal("conversions: none invented in the healthy", _drawings("healthy_kept", *_CONVERSIONS), 0.97, _percent),
)


def goals_table(figures: Figures) -> str:
    """An evaluation's figures beside what they have to reach, as a Markdown table."""
    lines = ["| | goal | reached | n | |", "|---|---|---|---|---|"]
    for goal in GOALS:
        value, number, note = goal.reached(figures)
        mark = "" if value >= goal.least else "**missed** "
        lines.append(f"| {goal.title} | ≥ {goal.shown(goal.least)} | {mark}{goal.shown(value)} | {number:,} | {note} |")
    return "\n".join(lines) + "\n"
