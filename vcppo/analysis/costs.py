"""Scores of a run by its costs: evaluations along training, joined with the cost up to each.

Costs are the cumulative metrics `cost/*` of the RL stage. An evaluation at step i is of the policy before the update of
iteration i, so its cost is that up to the end of iteration i - 1; 0 at step 0.
"""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from vcppo.analysis import summary
from vcppo.analysis.data import NoDataError, Study, run_key
from vcppo.maths.run_statistics import far_apart, nested_bootstrap
from vcppo.maths.statistics import UNKNOWN, Interval
from vcppo.settings.fixed import COUNTED_COSTS

COSTS = (*COUNTED_COSTS, "elapsed_s")
EVALUATION = r"eval/[^/]+/avg_at_(\d+)"
MILLION = 1e6
TARGET = 80.0  # per cent, of the time and tokens to reach it
ANNEALED_NOTE = "Learning rates were annealed over the whole run: before its end a run has not finished its schedule."


def evaluations(study: Study, figure: str) -> pd.DataFrame:
    """Return one row per evaluation of a finished run: arm, base_seed, seed, step, accuracy (%), then each of COSTS.

    Of several numbers of samples at one step the largest counts. Sorted by arm, run, step.

    Raises:
        NoDataError: no finished run, no evaluation along training, or no costs, as in studies of older commits.
    """
    curves = study.need("curves", figure)
    names = pd.Series(curves["metric"].unique())
    sizes = names.str.extract(f"^{EVALUATION}$")[0].astype(float)
    samples = curves["metric"].map(dict(zip(names, sizes, strict=True))).astype(float)
    rows = curves.assign(k=samples)[samples.notna() & curves["value"].notna()].sort_values(["k", "metric"])
    rows = rows.drop_duplicates(["arm", *run_key(rows), "step"], keep="last")
    if rows.empty:
        raise NoDataError(f"{figure}: no eval/*/avg_at_* in the curves of {study.name}; make it with: {study.command}")
    key = ["arm", *run_key(rows), "step"]
    scored = rows[key].assign(accuracy=100 * rows["value"])
    spent = spending(study, figure)
    before = spent.assign(step=spent["step"] + 1)
    start = scored.loc[scored["step"] == 0, key].assign(**dict.fromkeys(COSTS, 0.0))
    joined = scored.merge(pd.concat([start, before]), on=key)
    return joined[[*key, "accuracy", *COSTS]].sort_values(key, ignore_index=True)


def spending(study: Study, figure: str) -> pd.DataFrame:
    """Return one row per iteration of a finished run: arm, base_seed, seed, step, and each of COSTS by its end."""
    curves = study.need("curves", figure)
    names = [f"cost/{name}" for name in COSTS]
    missing = [name for name in names if name not in curves["metric"].unique()]
    if missing:
        raise NoDataError(f"{figure}: no {missing[0]} in the curves of {study.name}; make it with: {study.command}")
    rows = curves[curves["metric"].isin(names)]
    wide = rows.pivot(index=["arm", *run_key(rows), "step"], columns="metric", values="value").dropna()
    return wide.set_axis(wide.columns.str.removeprefix("cost/"), axis=1)[list(COSTS)].reset_index()


def totals(study: Study, figure: str) -> pd.DataFrame:
    """Return one row per finished run: arm, base_seed, seed, iterations, final COSTS, peak_memory_mb (or NaN)."""
    spent = spending(study, figure).sort_values("step")
    key = ["arm", *run_key(spent)]
    ends = spent.groupby(key, as_index=False).last()
    ends["iterations"] = ends.pop("step") + 1
    memory = summary.metric(study.curves, "cost/peak_memory_mb").groupby(key)["value"].max()
    return ends.join(memory.rename("peak_memory_mb"), on=key)


def by_run(points: pd.DataFrame, arm: str, measure: Callable[[pd.DataFrame], float]) -> "pd.Series[float]":
    """Return one number per run of an arm, from its evaluations in order; indexed by run, in order."""
    rows = points[points["arm"] == arm].sort_values("step")
    groups = rows.groupby(run_key(rows), sort=True)
    values = [measure(run) for _, run in groups]
    return pd.Series(values, index=groups.size().index, dtype=float)


def mean_along(cost: ArrayLike, accuracy: ArrayLike) -> float:
    """Return the area under accuracy against cost, trapezoids, divided by its width; NaN with fewer than two costs.

    >>> mean_along([0, 1, 3], [0, 50, 100])
    58.333333333333336
    """
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    width = x[-1] - x[0]
    return float(np.trapezoid(y, x) / width) if width > 0 else math.nan


def accuracy_at(cost: ArrayLike, accuracy: ArrayLike, budget: float) -> float:
    """Return accuracy at a cost, linear between evaluations; the last where the run never spends so much.

    >>> accuracy_at([0, 10], [20, 40], 5), accuracy_at([0, 10], [20, 40], 99)
    (30.0, 40.0)
    """
    return float(np.interp(budget, np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)))


def cut(cost: ArrayLike, accuracy: ArrayLike, budget: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the curve up to a budget, its last point at the budget, or at the run's end where that comes first.

    >>> [part.tolist() for part in cut([0, 10], [20, 40], 5)]
    [[0.0, 5.0], [20.0, 30.0]]
    """
    x, y = np.asarray(cost, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    end = min(budget, float(x[-1]))
    before = x < end
    return np.append(x[before], end), np.append(y[before], accuracy_at(x, y, end))


def first_cost(cost: ArrayLike, accuracy: ArrayLike, target: float = TARGET) -> float:
    """Return the cost at the first evaluation at or above the target; infinite where there is none.

    >>> first_cost([0, 7, 9], [10, 80, 70]), first_cost([0, 7], [10, 20])
    (7.0, inf)
    """
    reached = np.flatnonzero(np.asarray(accuracy, dtype=np.float64) >= target)
    return float(np.asarray(cost, dtype=np.float64)[reached[0]]) if len(reached) else math.inf


def mean_interval(
    values: "pd.Series[float]", *purpose: object, shared_draws: bool, apart: float = math.inf
) -> tuple[float, Interval]:
    """Return the mean over runs and its 95 % bootstrap, of seeds within bases as `nested_bootstrap`.

    Args:
        values: one number a run, indexed as `by_run` does. NaN where there are none. shared_draws: of the study.
        apart: where runs lie further apart than this there is no interval, since no mean describes them.
    """
    if not len(values):
        return math.nan, UNKNOWN
    if far_apart(values, apart):
        return float(values.mean()), UNKNOWN
    known = summary.seeds_of(values.index, shared_draws)
    seeds = None if known is None else summary.by_base(pd.Series(known, index=values.index))
    interval = nested_bootstrap(summary.by_base(values), seeds_by_base=seeds, rng=summary.rng_for(*purpose))
    return float(values.mean()), interval


def median_reached(values: ArrayLike) -> float:
    """Return the median over runs, never reached counts as latest; NaN where that median never arrives."""
    runs = np.asarray(values, dtype=np.float64)
    middle = float(np.median(runs)) if len(runs) else math.inf
    return middle if math.isfinite(middle) else math.nan
