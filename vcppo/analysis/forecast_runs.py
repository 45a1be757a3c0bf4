"""Runs that were forecast before their first step, beside what became of them: one row a run.

What counts as failure was fixed before any run (ablations/forecast.toml, ablations/forecast-labels.toml).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vcppo.analysis.data import ACCURACY, LAMBDA, RUN, NoDataError, Results, Study
from vcppo.maths.forecast_skill import VERDICTS, verdict_of

LAST = 10  # iterations whose mean is the end of a run here
HALF = 0.5
RECENT = 5  # iterations whose mean says that a run has failed by now
WARNED = "early_warning_at"
UNKNOWN_GAIN = 1.0  # of Monte-Carlo's, where it cannot be told: nothing is known to be lost


COSINES = ("reward_cosine", "length_cosine", "plain_reward_cosine", "surrogate_reward_cosine")
MEASURED = (  # NaN where a run has no critic, or all responses of its base scored alike
    *(f"{name}{end}" for name in (*COSINES, "gain_share") for end in ("", "_low", "_high")),
    *("value_bias", "explained_variance", "end_error"),
)


@dataclass(frozen=True)
class Family:
    """A study of forecasts: what failing means there, and the measure that was predicted to tell."""

    study: str
    title: str
    failed: str
    reference: str | None  # the arm that others are measured against, which is not judged
    lead: str  # a name of PREDICTORS


FAMILIES = (
    Family("forecast", "one decision", "collapsed", None, "reward_cosine"),
    Family("forecast-labels", "sixty decisions", "learnt too little", "monte-carlo", "gain_share"),
)


@dataclass(frozen=True)
class Predictor:
    """A number known before the first step, as a score that is larger where failure is thought more likely."""

    label: str
    score: Callable[[pd.DataFrame], "pd.Series[float]"]
    needs_critic: bool = False


def _less(name: str, unknown: float | None = None) -> Callable[[pd.DataFrame], "pd.Series[float]"]:
    """The lower the number, the more likely."""
    return lambda runs: -(runs[name] if unknown is None else runs[name].fillna(unknown))


PREDICTORS: Mapping[str, Predictor] = {
    "reward_cosine": Predictor("cosine with the score", _less("reward_cosine", 0.0)),
    "gain_share": Predictor("gain, of Monte-Carlo's", _less("gain_share", UNKNOWN_GAIN)),
    "length_cosine": Predictor("cosine with length", _less("length_cosine", 0.0)),
    "verdict": Predictor("verdict", lambda runs: runs["verdict"].map(VERDICTS.index).astype(float)),
    "plain_reward_cosine": Predictor("cosine, not preconditioned", _less("plain_reward_cosine", 0.0)),
    "surrogate_reward_cosine": Predictor("surrogate, no policy", _less("surrogate_reward_cosine", 0.0)),
    "explained_variance": Predictor("explained variance", _less("explained_variance"), needs_critic=True),
    "value_bias": Predictor("value bias", _less("value_bias"), needs_critic=True),
    "absolute_bias": Predictor("value bias, in size", lambda runs: runs["value_bias"].abs(), needs_critic=True),
    "end_error": Predictor("error near the end", lambda runs: runs["end_error"], needs_critic=True),
    "gae_lambda": Predictor("λ actor alone", _less("gae_lambda"), needs_critic=True),
}


def available(results: Results) -> list[tuple[Family, pd.DataFrame]]:
    """Return each family that these results have, with its runs.

    Raises:
        NoDataError: there is none.
    """
    have = [family for family in FAMILIES if family.study in results.studies]
    if not have:
        results.study(FAMILIES[0].study, "forecast", seeds=1)
    return [(family, runs_of(results.studies[family.study], family)) for family in have]


def runs_of(study: Study, family: Family) -> pd.DataFrame:
    """Return one row per finished run that was forecast, the reference arm left out.

    Columns arm, base_seed, seed, gae_lambda, critic (bool); every `forecast/*` by its name; verdict; start and end
    (accuracy), gain (end less start, of a family with a reference as a share of its gain on the same base), failed
    (bool); warned_at and failed_at, iterations, NaN where there is none; half: "first" or "second" of the bases.

    Raises:
        NoDataError: no run was forecast.
    """
    curves = study.need("curves", "forecast")
    forecasts = curves[curves["metric"].str.startswith("forecast/") & (curves["step"] == 0)]
    if forecasts.empty:
        raise NoDataError(f"forecast: no run of {study.name} was forecast; make it with: {study.command}")
    table = forecasts.pivot_table(index=list(RUN), columns="metric", values="value", dropna=False)
    table.columns = [str(name).removeprefix("forecast/") for name in table.columns]
    table = table.reindex(columns=[*table.columns, *(name for name in MEASURED if name not in table.columns)])
    accuracy = curves[curves["metric"] == ACCURACY].pivot_table(index="step", columns=list(RUN), values="value")
    runs = table.dropna(subset=["accuracy"]).rename(columns={"accuracy": "start"}).join(ends(accuracy))
    done = study.finished[[*RUN, LAMBDA]].rename(columns={LAMBDA: "gae_lambda"})
    done["warned_at"] = pd.to_numeric(study.finished.get(WARNED, np.nan), errors="coerce")
    runs = runs.reset_index().merge(done, on=list(RUN))
    runs["critic"] = runs["value_bias"].notna()
    runs["verdict"] = [
        verdict_of((low, high), gain)
        for low, high, gain in runs[["reward_cosine_low", "reward_cosine_high", "gain_share_high"]].to_numpy()
    ]
    runs["gain"] = runs["end"] - runs["start"]
    if family.reference is None:
        runs["failed"] = runs["end"] < HALF * runs["start"]
        runs["failed_at"] = collapses(accuracy, runs)
    else:
        measure = runs[runs["arm"] == family.reference].groupby("base_seed")["gain"].mean()
        runs["gain"] = runs["gain"] / runs["base_seed"].map(measure.where(measure > 0))
        runs["failed"] = runs["gain"] < HALF
        runs["failed_at"] = np.nan
        runs = runs[(runs["arm"] != family.reference) & runs["gain"].notna()]
        if runs.empty:
            raise NoDataError(
                f"forecast: {family.reference} of {study.name} gained nothing that others are held against"
            )
    bases = sorted(runs["base_seed"].unique())
    first = set(bases[: (len(bases) + 1) // 2])
    runs["half"] = np.where(runs["base_seed"].isin(first), "first", "second")
    return runs.sort_values(["arm", "base_seed", "seed"]).reset_index(drop=True)


def ends(accuracy: pd.DataFrame) -> "pd.Series[float]":
    """Return the mean accuracy of the last iterations of each run, however many it had."""
    means: pd.Series[float] = accuracy.apply(lambda run: run.dropna().iloc[-LAST:].mean())
    return means.rename("end")


def collapses(accuracy: pd.DataFrame, runs: pd.DataFrame) -> list[float]:
    """Return the iteration from which a failed run has no more than half of its base's accuracy, NaN of others.

    By the mean of RECENT iterations up to it, and of every one after.
    """
    recent = accuracy.rolling(RECENT, min_periods=1).mean()
    iterations = []
    for *run, start, failed in runs[[*RUN, "start", "failed"]].to_numpy().tolist():
        its = recent[tuple(run)][accuracy[tuple(run)].notna()]
        low = (its < HALF * start).to_numpy()
        lasting = np.flatnonzero(np.logical_and.accumulate(low[::-1])[::-1])
        iterations.append(float(its.index[lasting[0]]) if failed and len(lasting) else np.nan)
    return iterations


def scored(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that every predictor has a number of, with one column of scores for each."""
    of_critic = runs[runs["critic"] & runs["explained_variance"].notna()]
    return of_critic.assign(**{f"score:{name}": one.score(of_critic) for name, one in PREDICTORS.items()})
