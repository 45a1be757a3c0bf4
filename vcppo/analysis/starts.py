"""Beginning of runs: the critic's bias, the push on the decision to stop before any update, the first moves."""

import math

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from vcppo.analysis.data import ACCURACY, LAMBDA, Study, run_key
from vcppo.maths.collapse_law import Chain, push_of_error

FIRST_ITERATIONS = 3  # updates of which the first moves are seen
BIAS, PUSH, PUSH_ERROR, LENGTH = "value/value_bias", "policy/push", "policy/push_error", "rollout/length_tokens"


def starts(study: Study) -> pd.DataFrame:
    """Return the finished runs with columns bias, push, push_error (NaN where not logged) and length.

    The first three are of iteration 0: against Monte-Carlo returns, and before anything was updated, so that the push
    is a prediction of the first moves. `length` is the mean length of responses after FIRST_ITERATIONS iterations
    over that at the start.
    """
    runs = study.finished.copy()
    key = ["arm", *run_key(runs)]
    for name, metric, step in (("bias", BIAS, 0), ("push", PUSH, 0), ("push_error", PUSH_ERROR, 0),
                               ("length_before", LENGTH, 0), ("length_after", LENGTH, FIRST_ITERATIONS)):  # fmt: skip
        if study.curves.empty:
            runs[name] = np.nan
            continue
        at = study.curves[(study.curves["metric"] == metric) & (study.curves["step"] == step)]
        runs = runs.merge(at[[*key, "value"]].rename(columns={"value": name}), on=key, how="left")
    runs["length"] = runs.pop("length_after") / runs.pop("length_before")
    return runs


def computed_push(study: Study) -> "pd.Series[float]":
    """Return the push that the law computes for each run's bias, were its critic wrong by as much at every token.

    Each base has a chain: lines and digits from the names of its problems, `30/123`, the chance to stop and that to be
    right from the length and the accuracy of its first responses.

    Returns:
        By arm, base and seed, of finished runs of `digits` whose bias and λ_actor are known; empty where none is.
    """
    runs = starts(study)
    key = ["arm", *run_key(runs)]
    named = study.problems["problem"].astype(str).str.extract(r"^(\d+)/(\d+)$").dropna()
    if LAMBDA not in runs or named.empty or len(named) < len(study.problems) or study.curves.empty:
        return pd.Series(dtype=float)
    lines, digits = round(named[0].astype(int).mean()), len(named[1].iloc[0])
    first = study.curves[study.curves["step"] == 0].groupby(["metric", *run_key(runs)[:-1]])["value"].mean()
    pushes = {}
    for run in runs.dropna(subset=["bias", LAMBDA]).to_dict("records"):
        base = [run[name] for name in run_key(runs)[:-1]]
        length, accuracy = (float(first.get((name, *base), math.nan)) for name in (LENGTH, ACCURACY))
        chain = fitted_chain(lines, digits, length, accuracy)
        if chain is not None:
            pushes[tuple(run[name] for name in key)] = push_of_error(chain, run["bias"], run[LAMBDA])
    return pd.Series(pushes, dtype=float)


def fitted_chain(lines: int, digits: int, length: float, accuracy: float) -> Chain | None:
    """Return the chain of `digits` whose responses have this mean length (tokens) and accuracy, None if there is none.

    >>> fitted_chain(30, 3, Chain(30, 0.09).mean_tokens, Chain(30, 0.09).accuracy)
    Chain(lines=30, hazard=0.09, line_tokens=4, tokens_after_stop=4, right=1.0)
    """

    def of(hazard: float) -> Chain:
        return Chain(lines, hazard, line_tokens=digits + 1, tokens_after_stop=digits + 1)

    low, high = 0.0, 1.0 - 1e-9
    if lines < 2 or not of(high).mean_tokens < length < of(low).mean_tokens or not accuracy > 0:
        return None
    hazard = round(float(brentq(lambda h: of(h).mean_tokens - length, low, high, xtol=1e-13)), 9)
    right = accuracy / of(hazard).accuracy
    return Chain(lines, hazard, digits + 1, digits + 1, right=min(1.0, round(right, 9)))
