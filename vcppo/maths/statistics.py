"""Scores of a set of problems, and how sure of them we are: k samples, robust means, bootstrap intervals.

NumPy and SciPy only: evaluation and the figures use it, and neither may wait for torch to load.
"""

import math
from collections.abc import Callable, Iterator, Sequence
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


def count_intervals(
    correct: ArrayLike,
    scores: ArrayLike,
    *,
    fixed_problems: bool,
    rng: np.random.Generator,
    baseline: ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> list[Interval]:
    """Intervals of means over problems whose scores depend on how many of a problem's n samples are right.

    Bootstrap of problems and of samples within them, or of the samples alone where the problems are the benchmark and
    no draw from a larger one. To draw n samples of a problem again, with replacement, is to draw Binomial(n, c / n)
    for its count c. A score that is not linear in the count, as pass@k, comes out biased by that, so the resamples are
    moved by their bias, which is known exactly, and kept within the scores that there are.

    Simulated with 30 problems of 32 samples, 95 % of avg and of pass@8 cover 92 to 95 % over problems and samples;
    over samples alone avg covers 94 %, pass@8 88 to 97 %, and pass@32 no more than 70 %: n samples say little of k = n.
    Where problems hardly differ the first is up to 1.4 times as wide as need be: it counts the spread of samples twice.

    Args:
        correct: [problems] int, of n samples each. scores: [K, n + 1], each a score of a problem with c right, at c.
        baseline: [problems] int: intervals of the mean difference to these other samples of the same problems.
    Returns:
        K of them, unknown (NaN) where one problem has to tell the spread of problems, or one sample that of samples.
    Raises:
        DataError: no problem, a count outside 0..n, or a baseline of other problems.
    """
    values = np.asarray(scores, dtype=np.float64)
    n = values.shape[1] - 1
    sets = [_counts(counts, n)[0].astype(np.int64) for counts in (correct, baseline) if counts is not None]
    problems = len(sets[0])
    if len(sets[-1]) != problems:
        raise DataError(f"count_intervals: {problems} problems beside a baseline of {len(sets[-1])}: expected the same")
    if _alone(problems, n, fixed_problems):
        return [UNKNOWN] * len(values)
    found, chances = [], stats.binom.pmf(np.arange(n + 1), n, np.arange(n + 1)[:, None] / n)
    biases = values @ chances.T - values  # [K, n + 1] of a resampled score, by the count
    for size in _chunks(resamples, problems):
        picked = _picked(problems, fixed_problems, rng, size)
        drawn = [rng.binomial(n, counts[picked] / n) for counts in sets]
        means = [np.stack([row[counts].mean(axis=1) for row in values]) for counts in drawn]
        found.append(means[0] - means[1] if baseline is not None else means[0])
    moved = [biases[:, counts].mean(axis=1) for counts in sets]
    bias, low, high = moved[0], values.min(axis=1), values.max(axis=1)
    if baseline is not None:
        bias, low, high = bias - moved[1], low - high, high - low
    rows = (np.concatenate(found, axis=1) - bias[:, None]).clip(low[:, None], high[:, None])
    return [_percentiles(row, confidence) for row in rows]


def sample_intervals(
    tables: Sequence[ArrayLike],
    statistics: Callable[..., Array],
    *,
    fixed_problems: bool,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2_000,
) -> list[Interval]:
    """Percentile intervals of any statistics of all samples of all problems, resampled as in `count_intervals`.

    Args:
        tables: each [problems, n]: what is known of each sample; a sample's values stay together.
        statistics: of as many arrays [resamples, problems * n]: [K, resamples].
    Returns:
        K of them, unknown (NaN) as in `count_intervals`, and where the statistic of the tables themselves is NaN;
        resamples in which it is are left out.
    Raises:
        DataError: tables that are no tables, empty, or of different shapes.
    """
    known = [np.asarray(table, dtype=np.float64) for table in tables]
    shapes = {table.shape for table in known}
    if len(shapes) != 1 or len(known[0].shape) != 2 or not known[0].size:
        raise DataError(f"sample_intervals: tables of shapes {sorted(shapes)}: expected one, [problems, n], neither 0")
    problems, n = known[0].shape
    flat = [table.ravel() for table in known]
    whole = statistics(*(row[None] for row in flat))[:, 0]
    if _alone(problems, n, fixed_problems):
        return [UNKNOWN] * len(whole)
    found = []
    for size in _chunks(resamples, problems * n):
        picked = _picked(problems, fixed_problems, rng, size)
        drawn = (picked[..., None] * n + rng.integers(n, size=(size, problems, n))).reshape(size, -1)
        found.append(statistics(*(row[drawn] for row in flat)))
    rows = np.concatenate(found, axis=1)
    return [
        UNKNOWN if math.isnan(value) else _percentiles(row[~np.isnan(row)], confidence)
        for value, row in zip(whole, rows, strict=True)
    ]


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


def _alone(problems: int, n: int, fixed_problems: bool) -> bool:
    """Whether a spread that is asked for cannot be known."""
    return n == 1 if fixed_problems else problems == 1


def _chunks(resamples: int, cells: int) -> Iterator[int]:
    """Numbers of resamples that fit in memory together, each resample having so many cells."""
    size = max(1, CELLS_AT_ONCE // cells)
    return (min(size, resamples - start) for start in range(0, resamples, size))


def _picked(problems: int, fixed: bool, rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """[size, problems] int: problems drawn with replacement, or as they are."""
    if fixed:
        return np.broadcast_to(np.arange(problems), (size, problems))
    return rng.integers(problems, size=(size, problems))


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
