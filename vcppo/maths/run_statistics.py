"""Statistics of an arm from few runs: runs of one base are alike, and some arms end in two ways.

A run has a base, the cold start and reward model that it begins with, and a seed within it. Other bases would have
given other runs, so an interval that shall hold for them resamples bases first, then the seeds of each that was drawn,
and problems apart from both, since all runs answer the same ones. Where the runs of one seed share their draws on all
bases, seeds are no more nested in bases than problems are: both are resampled, crossed. NumPy and SciPy only, as in
`statistics`.
"""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcppo.errors import DataError
from vcppo.maths.statistics import UNKNOWN, Array, Interval, bootstrap_interval, percentiles, two_level_interval

APART = 0.5  # of a score between 0 and 1: two runs of an arm further apart than this have not ended alike
LOST, ALIVE = 0.02, 0.2  # nor have two of which one is below the first, the other above the second
TWO_ENDS = f"more than {100 * APART:g} points apart, or below {100 * LOST:g} % here and above {100 * ALIVE:g} % there"
MOST_ORDERS = 4_000_000  # ways of naming the runs that a permutation test goes through; beyond it draws
DRAWN_ORDERS = 200_000


def nested_bootstrap(
    values_by_base: Mapping[Any, Sequence[float]],
    *,
    rng: np.random.Generator,
    seeds_by_base: Mapping[Any, Sequence[Hashable]] | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Interval of the mean over runs, were other bases and other seeds drawn: bases resampled, then seeds within each.

    The two-stage percentile bootstrap (Davison & Hinkley 1997, section 3.8, both stages with replacement). With one
    base it is `bootstrap_interval` of its seeds, and says nothing of other bases. By simulation with normal scores
    (bench/interval_coverage.py) a 95 % interval of 5 bases with 3 seeds covers 97 % where bases make none of the
    variance, 91 % where they make half of it, 85 % where they make all; of 10 bases with 3 seeds 98, 92 and 88 %; of
    one base with 3 seeds 76, 48 and 0 %. So it is too narrow where bases differ and are few.

    Args:
        values_by_base: base -> one number a run, as many of each base as there are; the mean is over all runs.
        seeds_by_base: base -> the seed of each of its runs, where the runs of a seed share their draws on all bases:
            then bases and seeds are resampled crossed, as `run_draws` says. None: each run has draws of its own.
    Returns:
        Unknown (NaN) for a single run, for several bases that all have the same mean and no spread, or a NaN value.
    Raises:
        DataError: no base, or one without a run, or another number of seeds than runs.

    >>> interval = nested_bootstrap({0: [0.0, 0.0], 1: [1.0, 1.0]}, rng=np.random.default_rng(0))
    >>> interval.low, interval.high
    (0.0, 1.0)
    """
    bases = [np.asarray(values, dtype=np.float64) for values in values_by_base.values()]
    if not bases or not all(base.ndim == 1 and base.size for base in bases):
        raise DataError("nested_bootstrap: expected at least one base, each with at least one run")
    if len(bases) == 1:
        return bootstrap_interval(bases[0], np.mean, rng=rng, confidence=confidence, resamples=resamples)
    runs = np.concatenate(bases)
    if np.isnan(runs).any() or (runs == runs[0]).all():
        return UNKNOWN
    labels = np.repeat(np.arange(len(bases)), [len(base) for base in bases]).tolist()
    seeds = None if seeds_by_base is None else [seed for base in values_by_base for seed in seeds_by_base[base]]
    return percentiles(run_weights(labels, seeds, rng=rng, resamples=resamples) @ runs, confidence)


def nested_interval(
    table: ArrayLike,
    bases: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> Interval:
    """Interval of a mean accuracy that is uncertain three times: other bases, other seeds, other problems.

    As `nested_bootstrap`, and problems are resampled apart from runs, as in `two_level_interval`, which it is with one
    base: then it holds for other seeds of that base.

    Args:
        table: [runs, problems], the accuracy of each. bases: [runs], which base each run began with. seeds: [runs] or
            None, as in `run_draws`.
    Returns:
        Of the mean over all cells. Unknown (NaN) with one run, one problem, cells that are all equal, or a NaN cell.
    Raises:
        DataError: not two-dimensional, empty, or another number of bases than runs.
    """
    cells = np.asarray(table, dtype=np.float64)
    if cells.ndim != 2 or not cells.size or len(bases) != len(cells):
        raise DataError(
            f"nested_interval: table of shape {cells.shape} beside {len(bases)} bases: expected [runs, problems], "
            "neither 0, and a base a run"
        )
    if len(set(bases)) == 1:
        return two_level_interval(cells, rng=rng, confidence=confidence, resamples=resamples)
    if cells.shape[1] == 1 or np.isnan(cells).any() or (cells == cells[0, 0]).all():
        return UNKNOWN
    runs = run_weights(bases, seeds, rng=rng, resamples=resamples)
    count = cells.shape[1]
    problems = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    return percentiles(((runs @ cells) * problems).sum(axis=1), confidence)


def run_weights(
    bases: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Array:
    """Return [resamples, runs], the share of each run in each resample of `run_draws`; rows add up to 1."""
    counts = np.zeros((resamples, len(bases)))
    rows = np.arange(resamples)
    for chosen in run_draws(bases, seeds, rng=rng, resamples=resamples):
        drawn = chosen >= 0
        counts[rows[drawn], chosen[drawn]] += 1
    weights: Array = counts / counts.sum(axis=1, keepdims=True)
    return weights


def run_draws(
    bases: Sequence[Hashable],
    seeds: Sequence[Hashable] | None = None,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> Iterator[NDArray[np.int64]]:
    """Yield [resamples] arrays, the number of the run that each resample draws next, -1 where it draws none.

    As many bases are drawn as there are, each with as many of its runs as it has. With one base that is a draw of
    runs, one for each that there is.

    Where `seeds` are given, runs of a seed share their draws on all bases, and differ from other seeds together: as
    many bases are drawn as there are, as many seeds as there are, and the runs of every base and seed that was drawn
    (the pigeonhole bootstrap, Owen 2007, The Annals of Applied Statistics 1, 386). With one seed or one base that is
    the draw of the others alone.

    Args:
        bases: [runs], which base each run began with.
        seeds: [runs], which draws each run shares with those of other bases; None where every run has its own.
    Raises:
        DataError: another number of seeds than of bases, or two runs of one base and seed.
    """
    runs_of = [np.flatnonzero([base == one for base in bases]) for one in dict.fromkeys(bases)]
    if seeds is not None:
        if len(seeds) != len(bases) or len(set(zip(bases, seeds, strict=True))) < len(bases):
            raise DataError(f"run_draws: {len(seeds)} seeds beside {len(bases)} bases: expected one run of each pair")
        if len(runs_of) > 1 and len(set(seeds)) > 1:
            yield from _crossed_draws(bases, seeds, rng, resamples)
            return
    sizes = np.array([len(runs) for runs in runs_of])
    if len(runs_of) == 1:
        for _ in bases:
            yield rng.integers(len(bases), size=resamples)
        return
    padded = np.full((len(runs_of), sizes.max()), -1)
    for place, runs in enumerate(runs_of):
        padded[place, : len(runs)] = runs
    for _ in runs_of:
        base = rng.integers(len(runs_of), size=resamples)
        for turn in range(sizes.max()):
            chosen = padded[base, rng.integers(sizes[base])]
            yield np.where(turn < sizes[base], chosen, -1)


def permutation_p(
    a: Sequence[float] | Mapping[Any, Sequence[float]],
    b: Sequence[float] | Mapping[Any, Sequence[float]],
    *,
    rng: np.random.Generator | None = None,
) -> float:
    """Two-sided p of a permutation test of the difference of means (Fisher 1935), exact where runs are few.

    How often a difference at least as large comes out when the names of the two arms are dealt to the runs anew, all
    ways counted, the one that happened included. 5 runs all above 5 others have 2 / 252 = 0.008, the least there is.
    Given by base, names are dealt within each base alone, which takes the differences between bases out; a run of each
    arm a base is the paired test.

    Args:
        a, b: scores of each arm's runs, or base -> those of that base; only bases that both have are compared.
        rng: draws 200,000 ways where there are more than 4 million; a fixed one by default.
    Returns:
        NaN where an arm has no run, where no base is shared, or a score is NaN.
    Raises:
        DataError: one arm by base, the other not.

    >>> round(permutation_p([1, 1, 1, 1, 1], [0, 0, 0, 0, 0]), 3)
    0.008
    >>> permutation_p({0: [3.0], 1: [5.0], 2: [4.0]}, {0: [1.0], 1: [2.0], 2: [2.0]})
    0.25
    """
    if isinstance(a, Mapping) != isinstance(b, Mapping):
        raise DataError("permutation_p: one arm is given by base, the other is not; expected both alike")
    first = a if isinstance(a, Mapping) else {None: a}
    second = b if isinstance(b, Mapping) else {None: b}
    pairs = [
        (np.asarray(first[base], dtype=np.float64), np.asarray(second[base], dtype=np.float64))
        for base in first
        if base in second and len(first[base]) and len(second[base])
    ]
    if not pairs or any(np.isnan(runs).any() for pair in pairs for runs in pair):
        return math.nan
    happened = sum(float(x.sum()) for x, _ in pairs)
    orders = math.prod(math.comb(len(x) + len(y), len(x)) for x, y in pairs)
    if orders <= MOST_ORDERS:
        sums = np.zeros(1)
        for x, y in pairs:
            sums = np.add.outer(sums, _sums(np.concatenate([x, y]), len(x))).ravel()
    else:
        sums = _drawn_sums(pairs, rng or np.random.default_rng(0))
    # The difference of means is linear in the first arm's sum, whose mean over all ways is `expected`.
    expected = sum(len(x) * np.concatenate([x, y]).mean() for x, y in pairs)
    rounding = 1e-9 * max(1.0, float(np.abs(sums).max()))
    hits = int((np.abs(sums - expected) >= abs(happened - expected) - rounding).sum())
    return hits / len(sums) if orders <= MOST_ORDERS else (hits + 1) / (len(sums) + 1)


def ends_apart(scores: ArrayLike, unit: float = 1.0) -> bool:
    """True if two runs of an arm ended so far apart that no mean describes either: the arm has two ends.

    The rule of every table and figure: the highest final score is more than APART above the lowest, or one is below
    LOST and another above ALIVE. One run of 25 is enough, since a mean of 0.91 over 24 successes and a collapse is the
    score of none of them.

    Args:
        unit: the score of a run that solves everything, 100 of percentages.

    >>> ends_apart([0.9, 0.95, 0.02]), ends_apart([0.0, 0.3]), ends_apart([0.5, 0.9]), ends_apart([])
    (True, True, False, False)
    """
    known = np.asarray(scores, dtype=np.float64) / unit
    known = known[~np.isnan(known)]
    return far_apart(known, APART) or bool(len(known) and known.min() < LOST and known.max() > ALIVE)


def far_apart(values: ArrayLike, apart: float) -> bool:
    """True if the highest of the known values is more than `apart` above the lowest."""
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return bool(len(known)) and bool(known.max() - known.min() > apart)


def _crossed_draws(
    bases: Sequence[Hashable], seeds: Sequence[Hashable], rng: np.random.Generator, resamples: int
) -> Iterator[NDArray[np.int64]]:
    rows, columns = (list(dict.fromkeys(labels)) for labels in (bases, seeds))
    run_at = np.full((len(rows), len(columns)), -1)
    for run, (base_seed, seed) in enumerate(zip(bases, seeds, strict=True)):
        run_at[rows.index(base_seed), columns.index(seed)] = run
    chosen = np.full((resamples, len(rows), len(columns)), -1)
    while len(empty := np.flatnonzero((chosen < 0).all(axis=(1, 2)))):  # drawn anew: a mean of no run is none
        row = rng.integers(len(rows), size=(len(empty), len(rows), 1))
        column = rng.integers(len(columns), size=(len(empty), 1, len(columns)))
        chosen[empty] = run_at[row, column]
    yield from chosen.reshape(resamples, -1).T


def _sums(runs: Array, size: int) -> Array:
    """Return the sum of each choice of `size` of the runs: with the first run or without, then the next, and so on."""
    by_size = [np.zeros(1)] + [np.zeros(0)] * size
    for run in runs:
        for taken in range(size, 0, -1):
            by_size[taken] = np.concatenate([by_size[taken], by_size[taken - 1] + run])
    return by_size[size]


def _drawn_sums(pairs: Sequence[tuple[Array, Array]], rng: np.random.Generator) -> Array:
    sums = np.zeros(DRAWN_ORDERS)
    for x, y in pairs:
        runs = np.broadcast_to(np.concatenate([x, y]), (DRAWN_ORDERS, len(x) + len(y)))
        sums += rng.permuted(runs, axis=1)[:, : len(x)].sum(axis=1)
    return sums
