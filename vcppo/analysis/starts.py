"""Beginning of runs: the critic's bias and the push on the decision to stop before any update, and the first moves."""

import numpy as np
import pandas as pd

from vcppo.analysis.data import Study, run_key

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
