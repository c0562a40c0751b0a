"""What scoring a benchmark's answers finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from healthgpt.evaluation.figures import Figure


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What scoring found.

    Attributes:
        scores: of each sample, by column.
        groups: name -> positions of samples.
        more: figures that are no means over samples.
        not_measured: what could not be, and why.
    """

    scores: list[dict[str, float]]
    groups: Mapping[str, Sequence[int]]
    more: Mapping[str, Figure] = field(default_factory=dict)
    not_measured: list[str] = field(default_factory=list)
