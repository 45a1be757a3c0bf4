"""Table of errors by token position that are imposed on a critic: the push computed of each, and what became of it."""

import math

import numpy as np
import pandas as pd

from vcppo.analysis.data import LAMBDA, NoDataError, Results, Study
from vcppo.analysis.starts import FIRST_ITERATIONS, starts
from vcppo.analysis.table_text import NOTHING, Table
from vcppo.analysis.tables import number
from vcppo.maths.collapse_law import Chain, push_of_error

NAME, SETTING = "profile", "critic.profile"
CHAIN = Chain(30, 0.09)  # of the study's task


def error_at(profile: object, tokens: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """[tokens] error before each token: lines between the points of a profile, constant beyond; 0 without one.

    >>> error_at("0:-1 2:1", 4).tolist(), error_at(None, 2).tolist()
    ([-1.0, 0.0, 1.0, 1.0], [0.0, 0.0])
    """
    if not isinstance(profile, str) or not profile:
        return np.zeros(tokens)
    places, offsets = zip(*(map(float, point.split(":")) for point in profile.split()), strict=True)
    return np.asarray(np.interp(np.arange(tokens), places, offsets), dtype=np.float64)


def compute(study: Study) -> pd.DataFrame:
    """Return one row per arm, the least computed push first.

    Columns arm, profile, gae_lambda, computed (push of V* with this error), measured, measured_low, measured_high
    (mean, least and greatest over runs of the push before the first update), grew (runs that are longer after the
    first iterations), better (runs more often right at the end than at the start), accuracy (tuple, per cent, by base),
    runs.

    Raises:
        NoDataError: the export has no profiles.
    """
    runs = starts(study)
    if not {SETTING, LAMBDA} <= set(runs.columns):
        raise NoDataError(
            f"{NAME}: no columns {SETTING} and {LAMBDA} in {NAME}/runs.csv; make it with: {study.command}"
        )
    rows = []
    for arm, some in runs.groupby("arm", sort=True):
        profile, gae_lambda = some[SETTING].iloc[0], float(some[LAMBDA].iloc[0])
        error = error_at(profile, CHAIN.tokens(CHAIN.lines))
        accuracy = 100 * some.sort_values("base_seed")["avg_at_k"]
        rows.append(
            {
                "arm": arm,
                "profile": profile if isinstance(profile, str) else "",
                "gae_lambda": gae_lambda,
                "computed": push_of_error(CHAIN, error, gae_lambda),
                "measured": some["push"].mean(),
                "measured_low": some["push"].min(),
                "measured_high": some["push"].max(),
                "grew": int((some["length"] > 1).sum()),
                "better": int((accuracy > 100 * CHAIN.accuracy).sum()),
                "accuracy": tuple(accuracy),
                "runs": len(some),
            }
        )
    return pd.DataFrame(rows).sort_values("computed", kind="stable", ignore_index=True)


def table(results: Results) -> Table:
    """Return the table of the study."""
    study = results.study(NAME, NAME, seeds=1)
    study.need("curves", NAME)
    numbers = compute(study)
    shown = pd.DataFrame(
        {
            "arm": numbers["arm"],
            "error added, token:units of reward": numbers["profile"].replace("", NOTHING),
            "λ actor": [f"{x:g}" for x in numbers["gae_lambda"]],
            "push, computed": [number(x, 2) for x in numbers["computed"]],
            "push, measured": [
                NOTHING if math.isnan(mean) else f"{mean:.2f} ({low:.2f} to {high:.2f})"
                for mean, low, high in zip(
                    numbers["measured"], numbers["measured_low"], numbers["measured_high"], strict=True
                )
            ],
            f"longer after {FIRST_ITERATIONS} iterations": _of(numbers, "grew"),
            "more right at the end than at the start": _of(numbers, "better"),
            "accuracy at the end, by base (%)": [
                ", ".join(number(score, 1) for score in scores) for scores in numbers["accuracy"]
            ],
        }
    )
    notes = [
        f"Push on the decision to stop: above 0 the first updates shorten responses. Computed: of exact values with "
        f"this error, {CHAIN.lines} lines, hazard {CHAIN.hazard:g} (push_of_error in vcppo/maths/collapse_law.py). "
        "Measured: before the first update, mean over runs (least to greatest).",
        "The error stays for the whole run: the critic goes on learning returns, advantages are made of its values "
        f"with the error on them. At the start {100 * CHAIN.accuracy:.1f} % are right by the same sum.",
    ]
    return Table(NAME, "An error by token position, imposed: what it does", numbers, shown, notes)


def _of(numbers: pd.DataFrame, name: str) -> list[str]:
    return [f"{count} of {runs}" for count, runs in zip(numbers[name], numbers["runs"], strict=True)]
