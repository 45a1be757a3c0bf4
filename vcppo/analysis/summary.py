"""Seeds to centres and intervals: what several figures and tables compute alike.

Intervals are 95 % percentile bootstraps, but for the exact one of a probability of improvement. Random numbers come
from a generator named after what they are for, so that a redraw gives the same digits whatever else is drawn.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vcppo.maths.statistics import (
    UNKNOWN,
    Interval,
    probability_of_improvement,
    probability_of_improvement_interval,
    two_level_interval,
)

RESAMPLES = 2000  # of a curve; single numbers take the 10,000 of vcppo.maths.statistics
SUMMARY = ["centre", "low", "high", "seeds"]


def rng_for(*purpose: object) -> np.random.Generator:
    """Return a generator that depends on the purpose alone."""
    return np.random.default_rng(zlib.crc32("/".join(map(str, purpose)).encode()))


def metric(curves: pd.DataFrame, name: str, arms: Sequence[str] | None = None, scale: float = 1.0) -> pd.DataFrame:
    """Return one metric of curves.csv as arm, seed, step, value; what was not finite when logged is left out."""
    rows = curves[(curves["metric"] == name) & curves["value"].notna()]
    rows = rows if arms is None else rows[rows["arm"].isin(arms)]
    return rows[["arm", "seed", "step", "value"]].assign(value=rows["value"] * scale).reset_index(drop=True)


def over_seeds(values: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Return the mean over seeds and its interval, at each point of a curve.

    The mean, since a trimmed one hides the one run of five that collapses. Seeds are resampled whole, the same draw
    along a curve; with one seed there is no interval (NaN).

    Args:
        values: columns of `by`, seed, value. by: the curve's name first, then its abscissa, for example arm, step.
    Returns:
        Columns of `by`, centre, low, high, seeds; sorted by `by`.
    """
    curves = [_one_curve(key, curve, by) for key, curve in values.groupby(by[0], sort=True)]
    return pd.concat(curves, ignore_index=True) if curves else pd.DataFrame(columns=[*by, *SUMMARY])


def final_scores(runs: pd.DataFrame, arm: str, column: str = "avg_at_k") -> NDArray[np.float64]:
    """Return [seeds] the final score of each finished run of an arm, seeds in order; runs without it left out."""
    done = runs[(runs["arm"] == arm) & (runs["status"] == "done")].sort_values("seed")
    return done[column].dropna().to_numpy(dtype=np.float64)


def accuracy_table(problems: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return [seeds, problems] share of right responses."""
    rows = problems[problems["arm"] == arm]
    return rows.assign(share=rows["correct"] / rows["samples"]).pivot(index="seed", columns="problem", values="share")


def solved_table(problems: pd.DataFrame, arm: str) -> pd.DataFrame:
    """Return [seeds, problems] 1 where any of the k responses was right: pass@k with as many samples as k."""
    rows = problems[problems["arm"] == arm]
    solved = rows.assign(solved=(rows["correct"] > 0).astype(float))
    return solved.pivot(index="seed", columns="problem", values="solved")


def crossed_interval(table: pd.DataFrame, *purpose: object) -> Interval:
    """Return the interval of the mean of a [seeds, problems] table, both resampled; NaN with one seed."""
    return two_level_interval(table.to_numpy(dtype=np.float64), rng=rng_for(*purpose))


class Improvement(NamedTuple):
    """How often a run of one arm ends above a run of another."""

    probability: float  # ties half
    interval: Interval  # exact
    won: float  # pairs of runs, a tie half a pair
    pairs: int


def improvement(runs: pd.DataFrame, arm: str, reference: str) -> Improvement:
    """Compare by avg_at_k; no pairs, and NaN, where either arm has no finished run."""
    x, y = final_scores(runs, arm), final_scores(runs, reference)
    if not len(x) or not len(y):
        return Improvement(float("nan"), UNKNOWN, 0.0, 0)
    probability, pairs = float(probability_of_improvement(x, y)), len(x) * len(y)
    return Improvement(
        probability, probability_of_improvement_interval(x, y), round(2 * probability * pairs) / 2, pairs
    )


def _one_curve(key: Any, curve: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    points = curve.pivot_table(index=list(by[1:]), columns="seed", values="value", sort=True)
    table = points.to_numpy(dtype=np.float64)  # [points, seeds], NaN where a seed has no such point
    present = ~np.isnan(table)
    centre, low, high = (np.full(len(table), np.nan) for _ in range(3))
    for pattern in np.unique(present, axis=0):
        rows = (present == pattern).all(axis=1)
        values = table[np.ix_(rows, pattern)]
        centre[rows] = values.mean(axis=1)
        if values.shape[1] > 1:
            draws = rng_for(key, *by).integers(values.shape[1], size=(RESAMPLES, values.shape[1]))
            resampled = values[:, draws].mean(axis=2)  # [points, resamples]
            low[rows], high[rows] = np.quantile(resampled, [0.025, 0.975], axis=1)
    frame = pd.DataFrame({"centre": centre, "low": low, "high": high, "seeds": present.sum(axis=1)}, index=points.index)
    frame = frame.reset_index()
    frame[by[0]] = key
    return frame[[*by, *SUMMARY]]
