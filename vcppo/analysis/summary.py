"""Runs to centres and intervals: what several figures and tables compute alike.

Intervals are 95 % percentile bootstraps, but for the exact ones of counts and of a probability of improvement. Where
runs began with several bases, bases are resampled and then the seeds within each; with one base it is its seeds. Of a
study whose runs of a seed share draws (`Study.shared_draws`) bases and seeds are resampled crossed; every function that
resamples runs is told which. Arms that end in two ways have no interval of a mean (`apart`). Random numbers come from a
generator named after what they are for, so that a redraw gives the same digits whatever else is drawn.
"""

import math
import zlib
from collections.abc import Collection, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vcppo.analysis.data import bases_of, run_key
from vcppo.maths.run_statistics import ends_apart, nested_interval, permutation_p, run_weights
from vcppo.maths.statistics import (
    UNKNOWN,
    Interval,
    probability_of_improvement,
    probability_of_improvement_interval,
)

RESAMPLES = 2000  # of a curve; single numbers take the 10,000 of vcppo.maths.statistics
SUMMARY = ["centre", "low", "high", "seeds"]


def rng_for(*purpose: object) -> np.random.Generator:
    """Return a generator that depends on the purpose alone."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, purpose)).encode()))


def metric(curves: pd.DataFrame, name: str, arms: Sequence[str] | None = None, scale: float = 1.0) -> pd.DataFrame:
    """Return one metric of the curves: arm, base_seed, seed, step, value; what was not finite is left out."""
    rows = curves[(curves["metric"] == name) & curves["value"].notna()]
    rows = rows if arms is None else rows[rows["arm"].isin(arms)]
    return rows[["arm", *run_key(rows), "step", "value"]].assign(value=rows["value"] * scale).reset_index(drop=True)


def over_seeds(
    values: pd.DataFrame, by: Sequence[str], apart: Collection[str] = (), *, shared_draws: bool
) -> pd.DataFrame:
    """Return the centre over runs and its interval, at each point of a curve.

    The mean, since a trimmed one hides the one run of five that collapses; the median of curves that are `apart`, which
    have no interval either: whoever draws them draws every run. Runs are resampled whole, bases and then seeds within
    them, the same draw along a curve; with one run there is no interval (NaN).

    Args:
        values: columns of `by`, base_seed (none: one base), seed, value. by: the curve's name first, then its abscissa,
            for example arm, step. apart: names of curves whose runs end in two ways, see `arms_apart`. shared_draws:
            of the study.
    Returns:
        Columns of `by`, centre, low, high, seeds (how many runs); sorted by `by`.
    """
    curves = [_one_curve(key, curve, by, key in apart, shared_draws) for key, curve in values.groupby(by[0], sort=True)]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=[*by, *SUMMARY])


def arms_apart(runs: pd.DataFrame) -> set[str]:
    """Return the arms that end in two ways: by the final accuracy of finished runs (`ends_apart`)."""
    return {str(arm) for arm in runs["arm"].unique() if ends_apart(final_scores(runs, arm))}


def final_scores(runs: pd.DataFrame, arm: str, column: str = "avg_at_k") -> "pd.Series[float]":
    """Return the final score of each finished run of an arm, indexed by run, in order; runs without it left out."""
    done = runs[(runs["arm"] == arm) & (runs["status"] == "done")]
    return done.set_index(run_key(done))[column].sort_index().dropna().astype(float)


def accuracy_table(problems: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return [runs, problems] share of right responses, indexed by run."""
    rows = problems[problems["arm"] == arm]
    shares = rows.assign(share=rows["correct"] / rows["samples"])
    return shares.pivot(index=run_key(rows), columns="problem", values="share")


def solved_table(problems: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return [runs, problems] 1 where any of the k responses was right: pass@k with as many samples as k."""
    rows = problems[problems["arm"] == arm]
    solved = rows.assign(solved=(rows["correct"] > 0).astype(float))
    return solved.pivot(index=run_key(rows), columns="problem", values="solved")


def crossed_interval(table: pd.DataFrame, *purpose: object, shared_draws: bool) -> Interval:
    """Return the interval of the mean of a [runs, problems] table, runs within bases and problems resampled.

    NaN with one run.
    """
    cells, seeds = table.to_numpy(dtype=np.float64), seeds_of(table.index, shared_draws)
    known = tuple(bases_of(table.index)), None if seeds is None else tuple(seeds)
    return _crossed_interval(cells.tobytes(), cells.shape, *known, purpose)


@cache  # tables and figures of one study ask for the same ones
def _crossed_interval(
    cells: bytes,
    shape: tuple[int, ...],
    bases: tuple[Any, ...],
    seeds: tuple[Any, ...] | None,
    purpose: tuple[object, ...],
) -> Interval:
    return nested_interval(np.frombuffer(cells).reshape(shape), bases, seeds, rng=rng_for(*purpose))


class Improvement(NamedTuple):
    """Probability that a run of one arm ends above a run of another."""

    probability: float  # ties half
    interval: Interval  # exact
    won: float  # pairs of runs, a tie half a pair
    pairs: int
    p: float  # of a permutation test of the difference of means, within bases


def improvement(runs: pd.DataFrame, arm: str, reference: str) -> Improvement:
    """Compare by avg_at_k; no pairs, and NaN, where either arm has no finished run."""
    x, y = final_scores(runs, arm), final_scores(runs, reference)
    if not len(x) or not len(y):
        return NO_PAIRS
    probability, pairs = float(probability_of_improvement(x, y)), len(x) * len(y)
    interval, won = probability_of_improvement_interval(x, y), round(2 * probability * pairs) / 2
    return Improvement(probability, interval, won, pairs, permutation_p(by_base(x), by_base(y)))


def p_value(p: float) -> str:
    """Format a p: three digits, or that it is less.

    >>> p_value(2 / 252), p_value(1e-5), p_value(float("nan"))
    ('0.008', '< 0.001', '–')
    """
    return "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001"


NO_PAIRS = Improvement(float("nan"), UNKNOWN, 0.0, 0, float("nan"))


def by_base(values: "pd.Series[float]") -> dict[Any, list[float]]:
    """Return the values of an arm's runs, indexed by run, as base -> those of its seeds."""
    return {base: list(runs) for base, runs in values.groupby(bases_of(values.index))}


def seeds_of(runs: pd.Index, shared_draws: bool) -> list[Any] | None:
    """Return [runs] the seed of each run of an index, as `run_draws` takes them; None where runs share no draws."""
    return list(runs.get_level_values("seed")) if shared_draws else None


def _one_curve(key: Any, curve: pd.DataFrame, by: Sequence[str], apart: bool, shared_draws: bool) -> pd.DataFrame:
    points = curve.pivot_table(index=list(by[1:]), columns=run_key(curve), values="value", sort=True)
    table = points.to_numpy(dtype=np.float64)  # [points, runs], NaN where a run has no such point
    present = ~np.isnan(table)
    centre, low, high = (np.full(len(table), np.nan) for _ in range(3))
    for pattern in np.unique(present, axis=0):
        rows = (present == pattern).all(axis=1)
        values = table[np.ix_(rows, pattern)]
        centre[rows] = np.median(values, axis=1) if apart else values.mean(axis=1)
        if values.shape[1] > 1 and not apart:
            runs = points.columns[pattern]
            seeds = seeds_of(runs, shared_draws)
            weights = run_weights(bases_of(runs), seeds, rng=rng_for(key, *by), resamples=RESAMPLES)
            low[rows], high[rows] = np.quantile(values @ weights.T, [0.025, 0.975], axis=1)
    frame = pd.DataFrame({"centre": centre, "low": low, "high": high, "seeds": present.sum(axis=1)}, index=points.index)
    frame = frame.reset_index()
    frame[by[0]] = key
    return frame[[*by, *SUMMARY]]
