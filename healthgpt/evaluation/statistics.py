"""How sure a figure is, and whether two runs differ: intervals and tests over the same samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

RESAMPLES = 2000
_AT_ONCE = 100  # resamples held in memory


def interval(values: Sequence[float], *, level: float = 0.95, seed: int = 0) -> tuple[float, float] | None:
    """The bootstrap percentile interval of the mean; None for fewer than two samples.

    Args:
        seed: of the resampling, so that the same samples always give the same interval.
    """
    data = np.asarray(values, float)
    if len(data) < 2:
        return None
    if np.all(data == data[0]):
        return float(data[0]), float(data[0])
    found = stats.bootstrap(
        (data,),
        np.mean,
        confidence_level=level,
        n_resamples=RESAMPLES,
        batch=_AT_ONCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """The p-value of the exact McNemar test: whether two runs are right equally often, over the same questions."""
    one, other = _paired(first, second)
    only_one, only_other = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    if not only_one + only_other:
        return 1.0
    return float(stats.binomtest(only_one, only_one + only_other).pvalue)


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of second - first over the same samples, and its paired bootstrap interval."""
    one, other = _paired(first, second)
    differences = other.astype(float) - one.astype(float)
    found = interval(differences.tolist(), level=level, seed=seed)
    mean = float(differences.mean())
    return (mean, *(found or (mean, mean)))


def permutation_test(first: Sequence[float], second: Sequence[float], *, seed: int = 0) -> float:
    """The p-value of the paired permutation test of the difference of means: exact where samples are few."""
    one, other = _paired(first, second)
    if np.array_equal(one, other):
        return 1.0
    found = stats.permutation_test(
        (one.astype(float), other.astype(float)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=_AT_ONCE,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def _paired(first: Sequence[float], second: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} samples, expected as many of both, and at least one")
    return np.asarray(first), np.asarray(second)
