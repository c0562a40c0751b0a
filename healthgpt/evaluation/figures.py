"""Figures: the mean of some samples, with how many they are and how sure it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from healthgpt.evaluation.statistics import interval

_WHOLE = ("all", "close", "open")
_MAIN = ("right", "judge", "ssim", "ssim_share", "psnr", "psnr_bicubic", "lesions_kept", "healthy_kept", "findings")


@dataclass(frozen=True)
class Figure:
    """A mean.

    Attributes:
        value: None where there are no samples.
        low, high: its bootstrap interval of 95 %; None for fewer than two samples.
    """

    value: float | None
    n: int
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | int | None]:
        """As `results.json` has it, to six digits."""
        numbers = {"value": self.value, "n": self.n, "low": self.low, "high": self.high}
        return {name: round(number, 6) if isinstance(number, float) else number for name, number in numbers.items()}


def figure(values: Iterable[float]) -> Figure:
    """The mean of samples, each a number or a boolean."""
    listed = [float(value) for value in values]
    if not listed:
        return Figure(None, 0)
    low, high = interval(listed) or (None, None)
    return Figure(float(np.mean(listed)), len(listed), low, high)


def is_main(title: str) -> bool:
    """Whether a figure "group/column" is shown beside the others: all columns of whole benchmarks, a few of groups.

    Groups of groups, such as "kind=ct2mri finding=tumor", are not shown.
    """
    group, _, column = title.rpartition("/")
    return group in _WHOLE or (column in _MAIN and group.count("=") == 1)


def figures_of(samples: Sequence[Mapping[str, Any]], groups: Mapping[str, Sequence[int]]) -> dict[str, Figure]:
    """Figures of all columns over groups of samples.

    Args:
        samples: column -> number, of each sample; a column that a sample lacks does not count it.
        groups: name -> positions of its samples.

    Returns:
        "group/column" -> figure, for columns that some sample of the group has.
    """
    found = {}
    for group, places in groups.items():
        columns = dict.fromkeys(column for place in places for column in samples[place])
        for column in columns:
            values = [samples[place][column] for place in places if column in samples[place]]
            found[f"{group}/{column}"] = figure(values)
    return found
