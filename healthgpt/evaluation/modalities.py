"""Accuracy by modality: runs side by side, and beside them what the paper reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from healthgpt.evaluation import paper
from healthgpt.evaluation.comparison import Finished

ALL = "all"
_MODALITY, _RIGHT = "modality=", "/right"


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Shares of right answers.

    Attributes:
        groups: all, and modalities.
        runs: of each run, a figure ("value", "n", "low", "high", from 0 to 1) per group, None where it has none.
        paper: model -> percent per group.
    """

    groups: tuple[str, ...]
    runs: Sequence[Sequence[Mapping[str, Any] | None]]
    paper: Mapping[str, Sequence[float]] = field(default_factory=dict)


def accuracies(runs: Sequence[Finished], benchmark: str) -> Accuracies | None:
    """What runs reached in a benchmark of questions; None where its questions name no modality."""
    figures = [run.results[benchmark]["figures"] for run in runs]
    found = {
        name.removeprefix(_MODALITY).removesuffix(_RIGHT)
        for columns in figures
        for name in columns
        if name.startswith(_MODALITY) and name.endswith(_RIGHT)
    }
    if not found:
        return None
    reported = _paper(benchmark)
    # The paper's modalities come in its own order, whatever else there is behind them.
    known = [name for name in paper.MODALITIES if name in found or reported]
    named = [*known, *sorted(found - set(known))]
    keys = [f"{ALL}{_RIGHT}", *(f"{_MODALITY}{name}{_RIGHT}" for name in named)]
    rows = [[columns.get(key) for key in keys] for columns in figures]
    return Accuracies(groups=(ALL, *named), runs=rows, paper=reported)


def _paper(benchmark: str) -> dict[str, tuple[float, ...]]:
    """The paper's rows of OmniMedVQA, first over all of it; of other benchmarks it names no modalities."""
    if benchmark != "omnimedvqa":
        return {}
    whole = paper.VQA_COLUMNS.index("omnimedvqa/all")
    return {name: (paper.VQA[name][whole], *values) for name, values in paper.OMNIMEDVQA.items()}
