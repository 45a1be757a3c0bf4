"""Scores of a set of problems, and how sure of them we are: k samples, robust means, bootstrap intervals.

NumPy and SciPy only: evaluation and the figures use it, and neither may wait for torch to load.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from vcppo.errors import DataError

Array = NDArray[np.float64]
CELLS_AT_ONCE = 10**7  # numbers a bootstrap holds in memory at a time


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval; both NaN where the data cannot give one."""

    low: float
    high: float


UNKNOWN = Interval(math.nan, math.nan)


def avg_at_k(correct: ArrayLike, samples: ArrayLike) -> Array:
    """Share of a problem's k samples that are correct; the score of a set is the mean over its problems.

    Args:
        correct: [problems] int. samples: [problems] int or one number for all, k.
    Returns:
        [problems] in [0, 1].
    Raises:
        DataError: no problem, no sample, or more correct than sampled.

    >>> avg_at_k([0, 2, 8], 8).tolist()
    [0.0, 0.25, 1.0]
    """
    right, drawn = _counts(correct, samples)
    return right / drawn


def pass_at_k(correct: ArrayLike, samples: ArrayLike, k: int) -> Array:
    """Chance that k of a problem's n samples, drawn without replacement, hold a correct one.

    1 - C(n - c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374, eq. 1), unbiased for n >= k, here as the product
    of (n - c - j) / (n - j) over j < k, in which nothing overflows.

    Args:
        correct: [problems] int, c. samples: [problems] int or one number for all, n. k: at least 1, at most every n.
    Returns:
        [problems] in [0, 1]; the score of a set is their mean.
    Raises:
        DataError: as `avg_at_k`, or k outside 1..n.

    >>> pass_at_k([0, 1, 2], 4, 2).round(4).tolist()
    [0.0, 0.5, 0.8333]
    """
    right, drawn = _counts(correct, samples)
    if not 1 <= k <= drawn.min():
        raise DataError(f"pass_at_k: k = {k}: expected 1 to {drawn.min():g}, the fewest samples of a problem")
    taken = np.arange(k)
    still_wrong = (drawn - right)[:, None] - taken  # passes through 0 where fewer than k are wrong
    return np.asarray(1.0 - (still_wrong / (drawn[:, None] - taken)).prod(axis=1), dtype=np.float64)


def interquartile_mean(values: ArrayLike, axis: int | None = None) -> Any:
    """Mean of the middle half: a quarter of the values, rounded down, is left out at each end.

    More robust than the mean, surer than the median (Agarwal et al. 2021, arXiv:2108.13264, section 4.3).

    Args:
        values: any shape. axis: the one averaged away; by default all of them.

    >>> float(interquartile_mean([-100.0, 1.0, 3.0, 100.0]))
    2.0
    """
    return stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=axis)


def bootstrap_interval(
    values: ArrayLike,
    statistic: Callable[..., Any],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Percentile bootstrap of a statistic of independent values (Efron 1979; percentiles as in arXiv:2108.13264).

    Args:
        values: [n], one a unit that was drawn at random: a problem, a seed. statistic: as np.mean or
            interquartile_mean, vectorised along the keyword `axis`, or a function of one sample.
    Returns:
        [x, x] where all values are equal; unknown (NaN) for a single value, and where a value is NaN.
        Of few values it is too narrow: with n = 3 a 95 % interval covers nearer 75 %.
    Raises:
        DataError: no values, or not one-dimensional.
    """
    sample = _flat(values, "bootstrap_interval")
    if len(sample) == 1 or np.isnan(sample).any():
        return UNKNOWN
    return _percentile_bootstrap((sample,), statistic, rng, confidence, resamples)


def two_level_interval(
    table: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Interval of a mean accuracy that is uncertain twice: other seeds, other problems.

    Every seed answers the same problems, so the two levels cross: each resample draws seeds and, apart from them,
    problems, and keeps the cells where the two meet (the pigeonhole bootstrap, Owen 2007, doi:10.1214/07-AOAS122;
    slightly too wide where cells vary on their own, too narrow with very few seeds).

    Args:
        table: [seeds, problems], the accuracy of each.
    Returns:
        Of the mean over all cells. [x, x] where all cells are equal; unknown (NaN) with one seed or one problem, whose
        spread cannot be known, or with a NaN cell.
    Raises:
        DataError: not two-dimensional, or empty.
    """
    cells = np.asarray(table, dtype=np.float64)
    if cells.ndim != 2 or not cells.size:
        raise DataError(f"two_level_interval: table of shape {cells.shape}: expected [seeds, problems], neither 0")
    if min(cells.shape) == 1 or np.isnan(cells).any():
        return UNKNOWN
    if (cells == cells[0, 0]).all():
        return Interval(float(cells[0, 0]), float(cells[0, 0]))
    seeds, problems = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in cells.shape)
    return _percentiles(((seeds @ cells) * problems).sum(axis=1), confidence)


def probability_of_improvement(x: ArrayLike, y: ArrayLike, axis: int = -1) -> Any:
    """P(X > Y) + P(X = Y) / 2 for a run X of one method and a run Y of the other.

    The Mann-Whitney U statistic of all pairs, divided by their number (Agarwal et al. 2021, arXiv:2108.13264,
    section 4.3). 0.5 is no difference.

    Args:
        x: [..., n], y: [..., m], compared along `axis`.

    >>> float(probability_of_improvement([1.0, 3.0], [1.0, 2.0]))
    0.625
    """
    first, second = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    n, m = first.shape[axis], second.shape[axis]
    ranks = stats.rankdata(np.concatenate([first, second], axis=axis), axis=axis)  # ties share their mean rank
    rank_sum = np.take(ranks, np.arange(n), axis=axis).sum(axis=axis)
    return (rank_sum - n * (n + 1) / 2) / (n * m)


def probability_of_improvement_interval(
    x: ArrayLike, y: ArrayLike, *, rng: np.random.Generator, confidence: float = 0.95, resamples: int = 10_000
) -> Interval:
    """Percentile interval of `probability_of_improvement`, the runs of each method resampled apart (stratified).

    Args:
        x, y: [n], [m], scores of the runs of one method and of the other.
    Returns:
        Unknown (NaN) where a method has a single run, or a score is NaN. Methods whose scores do not overlap give
        [0, 0] or [1, 1]: no resample can tell how near they came.
    Raises:
        DataError: no runs, or not one-dimensional.
    """
    pair = tuple(_flat(runs, "probability_of_improvement_interval") for runs in (x, y))
    if any(len(runs) == 1 or np.isnan(runs).any() for runs in pair):
        return UNKNOWN
    return _percentile_bootstrap(pair, probability_of_improvement, rng, confidence, resamples)


def _counts(correct: ArrayLike, samples: ArrayLike) -> tuple[Array, Array]:
    right = np.atleast_1d(np.asarray(correct, dtype=np.float64))
    drawn = np.broadcast_to(np.asarray(samples, dtype=np.float64), right.shape)
    if not right.size:
        raise DataError("correct: no problem; expected at least one")
    wrong = np.flatnonzero((right < 0) | (right > drawn) | (drawn < 1))
    if wrong.size:
        at = int(wrong[0])
        raise DataError(
            f"problem {at}: {right[at]:g} correct of {drawn[at]:g} samples: expected 1 sample or more, 0 to all correct"
        )
    return right, drawn


def _flat(values: ArrayLike, name: str) -> Array:
    sample = np.asarray(values, dtype=np.float64)
    if sample.ndim != 1 or not sample.size:
        raise DataError(f"{name}: values of shape {sample.shape}: expected one dimension, not empty")
    return sample


def _percentile_bootstrap(
    samples: tuple[Array, ...],
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> Interval:
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, CELLS_AT_ONCE // sum(map(len, samples))),
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(float(found.low), float(found.high))


def _percentiles(resampled: Array, confidence: float) -> Interval:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
