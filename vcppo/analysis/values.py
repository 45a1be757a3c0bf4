"""Error of an estimate of a state's value against the truth, itself a mean of rollouts, with its interval."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vcppo.analysis import summary
from vcppo.analysis.data import run_key
from vcppo.maths.run_statistics import run_draws

TRUTH_SAMPLES = 256  # rollouts behind each truth
SUMS = ("n", "squared", "absolute", "spread")
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def with_errors(states: pd.DataFrame) -> pd.DataFrame:
    """Add terms that the statistics below sum. Rewards are -1 or 1: one rollout of a state worth v varies by 1 - v².

    A truth that was computed and not sampled, n = 0 in its row, has no variance.

    Columns n (1), squared (squared error less the variance of the truth, (1 - v²) / (m - 1) for m rollouts, so that
    its mean is unbiased; single ones may be negative), absolute (not corrected), spread (variance of one rollout,
    unbiased).
    """
    error = states["estimate"] - states["truth"]
    uncertain, rollouts = (1 - states["truth"] ** 2).clip(lower=0), states.get("n", TRUTH_SAMPLES)
    noise = np.where(rollouts > 1, uncertain / np.maximum(rollouts - 1, 1), 0.0)
    spread = np.where(rollouts > 1, rollouts * noise, uncertain)
    return states.assign(n=1.0, squared=error**2 - noise, absolute=error.abs(), spread=spread)


def root_mean_square(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 4] sums as in SUMS -> [...] root of the mean squared error; 0 where noise outweighs it."""
    return np.asarray(np.sqrt(np.maximum(sums[..., 1], 0) / sums[..., 0]))


def mean_absolute(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 4] sums -> [...] mean absolute error."""
    return np.asarray(sums[..., 2] / sums[..., 0])


def one_rollout(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 4] sums -> [...] root-mean-square error that the mean of one rollout would have; of K: by sqrt(K) less."""
    return np.asarray(np.sqrt(sums[..., 3] / sums[..., 0]))


def worth(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """[..., 4] sums -> [...] how many rollouts a state would be as wrong: mean variance of one over mean squared error.

    The mean of K rollouts has K. At most TRUTH_SAMPLES, beyond which the truth is no better; NaN where no state is
    uncertain, since there a rollout is never wrong.
    """
    spread, squared = sums[..., 3], sums[..., 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        rollouts = np.where(squared > 0, spread / squared, np.inf)
    return np.asarray(np.where(spread > 0, np.minimum(rollouts, TRUTH_SAMPLES), np.nan))


def sums_by_response(states: pd.DataFrame) -> dict[Any, NDArray[np.float64]]:
    """Return [responses, 4] sums for each run, by (base_seed, seed): states of one response are resampled together."""
    key = run_key(states)
    totals = states.groupby([*key, "step", "answer"], sort=True)[list(SUMS)].sum()
    return {run: rows.to_numpy(dtype=np.float64) for run, rows in totals.groupby(level=key, sort=True)}


def interval(
    states: pd.DataFrame, statistic: Statistic, *purpose: object, shared_draws: bool
) -> tuple[float, float, float]:
    """Return the statistic of all states, and both ends of its 95 % bootstrap over runs and responses within them.

    Each resample draws runs as `run_draws` does, then as many responses of each drawn run as it has. NaN ends with one
    run.
    """
    runs = sums_by_response(states)
    centre = float(statistic(np.sum([responses.sum(axis=0) for responses in runs.values()], axis=0)))
    if len(runs) < 2 or np.isnan(centre):
        return centre, np.nan, np.nan
    rng = summary.rng_for("values", *purpose)
    drawn = np.zeros((summary.RESAMPLES, len(SUMS)))
    bases = [run[0] if len(run) > 1 else 0 for run in runs]
    seeds = [run[-1] for run in runs] if shared_draws else None
    for chosen in run_draws(bases, seeds, rng=rng, resamples=summary.RESAMPLES):
        for place, responses in enumerate(runs.values()):
            rows = np.flatnonzero(chosen == place)
            counts = rng.multinomial(len(responses), np.full(len(responses), 1 / len(responses)), size=len(rows))
            drawn[rows] += counts @ responses
    low, high = np.nanquantile(statistic(drawn), [0.025, 0.975])
    return centre, float(low), float(high)


def summarise(
    states: pd.DataFrame, by: list[str], statistic: Statistic, name: str, *, shared_draws: bool
) -> pd.DataFrame:
    """Return columns of `by`, then centre, low, high, states: the statistic of each group."""
    rows = []
    for key, group in states.groupby(by, sort=True, observed=True):
        rows.append((*key, *interval(group, statistic, name, *key, shared_draws=shared_draws), len(group)))
    return pd.DataFrame(rows, columns=[*by, "centre", "low", "high", "states"])
