"""Calibration: whether a model that says it is 80 % sure is right 80 % of the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Answers of about one confidence.

    Attributes:
        low, high: confidences from low to below high; the last bin has 1 too.
        n: how many answers; confidence, accuracy: their means, from 0 to 1, None where there are none.
    """

    low: float
    high: float
    n: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The bins of a reliability diagram.

    Attributes:
        error: expected calibration error, from 0 to 1: the mean of |accuracy - confidence| of bins, weighted by n.
        n: answers in all bins.
    """

    bins: tuple[Bin, ...]
    error: float
    n: int


def calibration(confidences: Sequence[float], right: Sequence[float], *, num_bins: int = NUM_BINS) -> Calibration:
    """Bins of equal width, and the expected calibration error (Guo et al. 2017) over them.

    Args:
        confidences: from 0 to 1; right: whether each answer is, 0 or 1.

    Raises:
        ValueError: there are none, not as many of both, or a confidence is no probability.
    """
    sure, hits = np.asarray(confidences, float), np.asarray(right, float)
    if len(sure) != len(hits) or not len(sure):
        raise ValueError(f"{len(sure)} confidences of {len(hits)} answers, expected as many, and at least one")
    if not np.all((sure >= 0) & (sure <= 1)):
        raise ValueError(f"confidences are from {sure.min()} to {sure.max()}, expected 0 ... 1")
    places = np.minimum((sure * num_bins).astype(int), num_bins - 1)
    bins = tuple(_bin(place, num_bins, sure[places == place], hits[places == place]) for place in range(num_bins))
    # n * |accuracy - confidence| of a bin is the absolute sum of its differences.
    gaps = sum(abs(float(np.sum((hits - sure)[places == place]))) for place in range(num_bins))
    return Calibration(bins=bins, error=gaps / len(sure), n=len(sure))


def _bin(place: int, num_bins: int, sure: np.ndarray, hits: np.ndarray) -> Bin:
    means = (float(sure.mean()), float(hits.mean())) if len(sure) else (None, None)
    low, high = place / num_bins, (place + 1) / num_bins
    return Bin(low=low, high=high, n=len(sure), confidence=means[0], accuracy=means[1])
