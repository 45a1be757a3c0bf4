"""Scores of a set of problems, and how sure of them we are: k samples, means, intervals.

NumPy and SciPy only: evaluation and the figures use it, and neither may wait for torch to load.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # scipy.stats takes half a second to load, and is at its first use
from numpy.typing import ArrayLike, NDArray

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
        values: [n], one a unit that was drawn at random: a problem, a seed. statistic: as np.mean, vectorised along
            the keyword `axis`, or a function of one sample.
    Returns:
        Unknown (NaN) for a single value, where a value is NaN, and where all values are equal: no resample can differ
        then, which says nothing of the values that were not drawn.
        Of few values it is too narrow: with n = 3 a 95 % interval covers nearer 75 %.
    Raises:
        DataError: no values, or not one-dimensional.
    """
    sample = _flat(values, "bootstrap_interval")
    if np.isnan(sample).any() or (sample == sample[0]).all():
        return UNKNOWN
    result = scipy.stats.bootstrap(
        (sample,),
        statistic,
        n_resamples=resamples,
        batch=max(1, CELLS_AT_ONCE // len(sample)),
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    ).confidence_interval
    return Interval(float(result.low), float(result.high))


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
        Of the mean over all cells. Unknown (NaN) with one seed or one problem, whose spread cannot be known, where all
        cells are equal, as in `bootstrap_interval`, or with a NaN cell.
    Raises:
        DataError: not two-dimensional, or empty.
    """
    cells = np.asarray(table, dtype=np.float64)
    if cells.ndim != 2 or not cells.size:
        raise DataError(f"two_level_interval: table of shape {cells.shape}: expected [seeds, problems], neither 0")
    if min(cells.shape) == 1 or np.isnan(cells).any() or (cells == cells[0, 0]).all():
        return UNKNOWN
    seeds, problems = (rng.multinomial(n, np.full(n, 1 / n), size=resamples) / n for n in cells.shape)
    return percentiles(((seeds @ cells) * problems).sum(axis=1), confidence)


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
    Where all samples are right, or all wrong, no resample differs, and the end that is free is exact instead:
    at a true mean score beyond it so many samples, or problems, would come out alike with chance (1 - confidence) / 2
    at most.

    Args:
        correct: [problems] int, of n samples each. scores: [K, n + 1], each a score of a problem with c right, at c.
        baseline: [problems] int: intervals of the mean difference to these other samples of the same problems.
    Returns:
        K of them, unknown (NaN) where one problem has to tell the spread of problems, one sample that of samples, or
        no resample differs though scores do, or in a difference.
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
    resampled, chances = [], scipy.stats.binom.pmf(np.arange(n + 1), n, np.arange(n + 1)[:, None] / n)
    biases = values @ chances.T - values  # [K, n + 1] of a resampled score, by the count
    for size in _chunks(resamples, problems):
        picked = _picked(problems, fixed_problems, rng, size)
        drawn = [rng.binomial(n, counts[picked] / n) for counts in sets]
        means = [np.stack([row[counts].mean(axis=1) for row in values]) for counts in drawn]
        resampled.append(means[0] - means[1] if baseline is not None else means[0])
    moved = [biases[:, counts].mean(axis=1) for counts in sets]
    bias, low, high = moved[0], values.min(axis=1), values.max(axis=1)
    if baseline is not None:
        bias, low, high = bias - moved[1], low - high, high - low
    rows = (np.concatenate(resampled, axis=1) - bias[:, None]).clip(low[:, None], high[:, None])
    intervals = [percentiles(row, confidence) for row in rows]
    if baseline is None and (alike := set(sets[0].tolist())) in ({0}, {n}):
        units = problems * n if fixed_problems else problems
        return [_at_the_edge(row, alike == {n}, units, fixed_problems, confidence) for row in values]
    return [UNKNOWN if np.ptp(row) == 0 else ends for row, ends in zip(rows, intervals, strict=True)]


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
        K of them, unknown (NaN) as in `count_intervals`, where all resamples are equal, and where the statistic of the
        tables themselves is NaN; resamples in which it is are left out.
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
    resampled = []
    for size in _chunks(resamples, problems * n):
        picked = _picked(problems, fixed_problems, rng, size)
        drawn = (picked[..., None] * n + rng.integers(n, size=(size, problems, n))).reshape(size, -1)
        resampled.append(statistics(*(row[drawn] for row in flat)))
    rows = np.concatenate(resampled, axis=1)
    return [
        UNKNOWN
        if math.isnan(value) or np.nanmax(row) == np.nanmin(row)
        else percentiles(row[~np.isnan(row)], confidence)
        for value, row in zip(whole, rows, strict=True)
    ]


def exact_interval(successes: float, n: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of a chance after `successes` of `n` independent trials (Clopper & Pearson 1934).

    It covers at least `confidence`, whatever the chance, and is wider than need be. Runs of one base are alike, not
    independent: over few bases it is too narrow where bases decide.

    Args:
        successes: 0 to n; may be broken, where it is a mean of counts.
    Returns:
        [0, 1] of no trials.
    Raises:
        DataError: more successes than trials, or fewer than none.

    >>> interval = exact_interval(23, 25)
    >>> round(interval.low, 3), round(interval.high, 3)
    (0.74, 0.99)
    """
    if not 0 <= successes <= n:
        raise DataError(f"exact_interval: {successes:g} of {n}: expected 0 to {n} successes")
    tail = (1 - confidence) / 2
    low = scipy.stats.beta.ppf(tail, successes, n - successes + 1) if successes > 0 else 0.0
    high = scipy.stats.beta.ppf(1 - tail, successes + 1, n - successes) if successes < n else 1.0
    return Interval(float(low), float(high))


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
    ranks = scipy.stats.rankdata(np.concatenate([first, second], axis=axis), axis=axis)  # ties share their mean rank
    rank_sum = np.take(ranks, np.arange(n), axis=axis).sum(axis=axis)
    return (rank_sum - n * (n + 1) / 2) / (n * m)


def probability_of_improvement_interval(x: ArrayLike, y: ArrayLike, *, confidence: float = 0.95) -> Interval:
    """Exact interval of `probability_of_improvement` that assumes nothing of how the scores are distributed.

    Runs taken in pairs, each once, are min(n, m) independent trials of "X above Y", and the mean over all ways of
    pairing them is `probability_of_improvement`. So this is the interval of Clopper & Pearson (1934) for that share
    of min(n, m) trials. It is attained where one method always ends alike, say at 0, and is wider than need be
    elsewhere: by simulation a 95 % interval of 5 against 5 runs covers 97 to 100 %.

    Args:
        x, y: [n], [m], scores of the runs of one method and of the other.
    Returns:
        [0.478, 1] where all of 5 runs are above all of 5 others. Unknown (NaN) where a score is NaN.
    Raises:
        DataError: no runs, or not one-dimensional.

    >>> interval = probability_of_improvement_interval([3.0, 4.0], [1.0, 2.0])
    >>> round(interval.low, 3), interval.high
    (0.158, 1.0)
    """
    first, second = (_flat(runs, "probability_of_improvement_interval") for runs in (x, y))
    if np.isnan(first).any() or np.isnan(second).any():
        return UNKNOWN
    trials = min(len(first), len(second))
    above = float(probability_of_improvement(first, second)) * trials
    return exact_interval(above, trials, confidence=confidence)


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
    """True if there is one unit alone, so that no spread can be known."""
    return n == 1 if fixed_problems else problems == 1


def _at_the_edge(score: Array, right: bool, units: int, fixed: bool, confidence: float) -> Interval:
    """The interval of a mean score where every unit came out right, or every one wrong.

    With problems p_i right with chance q_i, all k samples that one score looks at are wrong with (1 - q_i)^k, and the
    mean of powers is at least the power of the mean: all units wrong has at most the chance (1 - score)^(units / k).
    """
    tail = (1 - confidence) / 2
    if right:
        return Interval(float(tail ** (1 / units)), 1.0)
    looked_at = len(score) - int(np.argmax(score == score.max())) if fixed else 1  # 1 of a mean, k of pass@k
    return Interval(0.0, float(1 - tail ** (looked_at / units)))


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


def percentiles(resampled: Array, confidence: float) -> Interval:
    """Return the middle `confidence` of resampled statistics, [resamples]."""
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
