"""Effect of λ_critic without pretraining: runs that come back, and iterations until the critic has lost its error."""

import math
from typing import Any

import pandas as pd

from vcppo.analysis import costs, summary
from vcppo.analysis.data import ACCURACY, NoDataError, Results, Study, run_key
from vcppo.analysis.style import arm_label
from vcppo.analysis.table_text import NOTHING, Table
from vcppo.analysis.tables import BELOW, COUNT_NOTE, measured, number, of_runs, scores

NAME = "lambda-critic"
SETTING, COUPLED = "gae.lambda_critic", 0.95
BIAS, EARLY = "value/true_bias", 5  # and the iteration at which it is compared


def compute(study: Study) -> pd.DataFrame:
    """Return one row per arm: as `tables.measured`, and against the arm of the same critic with λ_critic = 0.95.

    Further columns start, early (mean over runs of the critic's bias at iterations 0 and EARLY), along (mean accuracy
    over all iterations, %; along_low and along_high are NaN, along_runs has those of the runs), less, less_low,
    less_high (that minus the other's, paired by run), less_by_base (its mean in each base, in print), above (runs of
    which it is more), nearer (runs whose bias at EARLY is nearer to 0), pairs.

    Raises:
        NoDataError: no arm has λ_critic = 0.95.
    """
    numbers = measured(study, study.arms)
    setting = study.runs.drop_duplicates("arm").set_index("arm")[SETTING]
    reference = {arm.split(",")[0]: arm for arm in study.arms if setting[arm] == COUPLED}
    if not reference:
        raise NoDataError(
            f"{NAME}: no arm with {SETTING} = {COUPLED} in {NAME}/runs.csv; make it with: {study.command}"
        )
    accuracy, bias = (summary.metric(study.curves, name) for name in (ACCURACY, BIAS))
    rows = []
    for arm in study.arms:
        along, early = 100 * _mean(accuracy, arm), _at(bias, arm, EARLY)
        row: dict[str, Any] = {"start": _at(bias, arm, 0).mean(), "early": early.mean(), "along": along.mean()}
        row |= {"along_low": math.nan, "along_high": math.nan, "along_runs": tuple(sorted(along)), "less_by_base": ""}
        row |= dict.fromkeys(("less", "less_low", "less_high"), math.nan) | {"above": 0, "nearer": 0, "pairs": 0}
        other = reference.get(arm.split(",")[0], arm)
        if other != arm:
            less = (along - 100 * _mean(accuracy, other)).dropna()
            row["less"], interval = costs.mean_interval(less, NAME, arm, shared_draws=study.shared_draws)
            row |= {"less_low": interval.low, "less_high": interval.high, "pairs": len(less)}
            row["above"] = int((less > 0).sum())
            by_base = summary.by_base(less).values()
            row["less_by_base"] = ", ".join(number(sum(runs) / len(runs), 1) for runs in by_base)
            here, there = early.abs().align(_at(bias, other, EARLY).abs(), join="inner")
            row["nearer"] = int((here < there).sum())
        rows.append(row)
    return pd.concat([numbers, pd.DataFrame(rows)], axis=1)


def table(results: Results) -> Table:
    """Return the table of the study."""
    study = results.study(NAME, NAME)
    numbers = compute(study)
    pairs = numbers["pairs"].replace(0, math.nan)
    shown = pd.DataFrame(
        {
            "critic's start": [arm_label(arm) for arm in numbers["arm"]],
            BELOW: of_runs(numbers, "below"),
            "bias at the start": [number(x, 2) for x in numbers["start"]],
            f"at iteration {EARLY}": [number(x, 2) for x in numbers["early"]],
            "nearer to 0 than at 0.95": _counts(numbers["nearer"], pairs),
            "mean along training (%)": scores(numbers, "along"),
            "runs above 0.95": _counts(numbers["above"], pairs),
            "less 0.95, by base": [text or NOTHING for text in numbers["less_by_base"]],
        }
    )
    notes = [
        "λ actor is 0.95 and nothing is pretrained. Bias: value less the exact value of the current policy, mean over "
        "runs.",
        "Mean along training: accuracy of the responses sampled, all iterations alike; mean over runs, unless a mean "
        "would describe none of them. Above 0.95, less 0.95: pairs of runs with the same base and seed; their mean in "
        "each base.",
        COUNT_NOTE,
    ]
    return Table(NAME, "λ critic without value pretraining", numbers, shown, notes)


def _mean(values: pd.DataFrame, arm: str) -> "pd.Series[float]":
    rows = values[values["arm"] == arm]
    return rows.groupby(run_key(rows), sort=True)["value"].mean()


def _at(values: pd.DataFrame, arm: str, step: int) -> "pd.Series[float]":
    rows = values[(values["arm"] == arm) & (values["step"] == step)]
    return rows.set_index(run_key(rows))["value"].sort_index()


def _counts(counts: "pd.Series[float]", pairs: "pd.Series[float]") -> list[str]:
    return ["–" if math.isnan(of) else f"{count:g} of {of:g}" for count, of in zip(counts, pairs, strict=True)]
