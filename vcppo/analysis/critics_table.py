"""A study of critics in one table: what each arm came to, what its critic saw, and what it spent in all."""

import math

import numpy as np
import pandas as pd

from vcppo.analysis import costs
from vcppo.analysis.costs import MILLION
from vcppo.analysis.critic_worth import needed, seen
from vcppo.analysis.data import ACCURACY, Results, Study, run_key
from vcppo.analysis.picture import over
from vcppo.analysis.style import arm_label
from vcppo.analysis.table_text import NOTHING, SHORT, Table
from vcppo.analysis.tables import (
    APART,
    COUNT_NOTE,
    LOST_NOTE,
    interval_note,
    measured,
    number,
    of_runs,
    samples_behind,
    scores,
    seeds_behind,
)
from vcppo.analysis.task_tables import along

WINDOW = 10  # iterations whose mean accuracy is that at a budget
PRETRAINING = ("pretrain_answers", "pretrain_compute_tokens")  # of runs.csv


def table(results: Results, study_name: str) -> Table:
    """Return the table of every arm: accuracy, explained variance and its ceiling, responses, compute."""
    name = f"critics-{study_name}"
    study = needed(results.study(study_name, name), name)
    numbers = compute(study)
    k = samples_behind(numbers)
    shown = pd.DataFrame({
        "arm": [arm_label(arm) for arm in numbers["arm"]],
        f"avg@{k} (%)": scores(numbers, "avg"),
        "mean along (%)": scores(numbers, "along"),
        "explained variance at the start": _of_ceiling(numbers, "start"),
        "mean along RL": _of_ceiling(numbers, "during"),
        "answers": [number(x, 0) for x in numbers["answers"]],
        "answers to pretrain": [number(x, 0) for x in numbers["pretrain_answers"]],
        "compute (M)": [number(x / MILLION, 1) for x in numbers["compute"]],
        "of it pretraining (M)": [number(x / MILLION, 1) for x in numbers["pretrain_compute"]],
        "accuracy at equal compute (%)": [
            text + f" {SHORT}" * bool(text != NOTHING and begun < done)
            for text, begun, done in zip(scores(numbers, "budget"), numbers["begun"], numbers["done"], strict=True)
        ],
        "ended below 2 %": of_runs(numbers, "below"),
        "seeds": seeds_behind(numbers),
    })  # fmt: skip
    return Table(name, f"{study_name}: critics, and what they cost", numbers, shown, _notes(study, numbers, k))


def compute(study: Study) -> pd.DataFrame:
    """Return one row per arm, as `tables.measured`, and of `along`.

    Further columns start_variance, start_ceiling, during_variance, during_ceiling (means over runs of `seen`), answers,
    pretrain_answers, compute and pretrain_compute (tokens, the first with the second; NaN where the export does not
    tell), least (the budget: the compute of the arm that spends least), budget, budget_low, budget_high, budget_runs
    (accuracy at it, %), begun (runs whose RL had begun by then).
    """
    rows = measured(study, study.arms).merge(along(study, study.arms), on="arm")
    explained = seen(study).groupby("arm").mean().rename(columns=lambda name: name.replace("along_", "during_"))
    selected = ["start_variance", "start_ceiling", "during_variance", "during_ceiling"]
    rows = rows.join(explained[selected], on="arm")
    spent = spending(study)
    means = spent.groupby("arm")[["answers", "pretrain_answers", "compute", "pretrain_compute"]].mean()
    rows = rows.join(means, on="arm")
    least = float(means["compute"].min()) if means["compute"].notna().all() else math.nan
    rows["least"] = least
    steps = steps_of(study)
    result = [
        at_budget(study, steps[steps["arm"] == arm], spent[spent["arm"] == arm], least, arm) for arm in rows["arm"]
    ]
    return pd.concat([rows, pd.DataFrame(result)], axis=1)


def spending(study: Study) -> pd.DataFrame:
    """Return one row per finished run: arm, base_seed, seed, answers, pretrain_answers, compute, pretrain_compute."""
    totals = costs.totals(study, f"critics-{study.name}")
    key = ["arm", *run_key(totals)]
    done = study.finished
    before = {name: done.get(name, math.nan) for name in PRETRAINING}
    rows = totals[[*key, "answers", "compute_tokens"]].merge(done[key].assign(**before), on=key)
    rows["pretrain_compute"] = rows.pop("pretrain_compute_tokens")
    rows["compute"] = rows.pop("compute_tokens") + rows["pretrain_compute"]
    return rows


def steps_of(study: Study) -> pd.DataFrame:
    """Return one row per iteration of a finished run: arm, base_seed, seed, step, COSTS by its end, value: accuracy."""
    steps = costs.spending(study, f"critics-{study.name}")
    key = ["arm", *run_key(steps), "step"]
    return steps.merge(study.curves.loc[study.curves["metric"] == ACCURACY, [*key, "value"]], on=key)


def at_budget(study: Study, steps: pd.DataFrame, spent: pd.DataFrame, budget: float, arm: str) -> dict[str, object]:
    """Return the accuracy of an arm's runs at a budget of compute: budget, budget_low, budget_high, budget_runs, begun.

    The mean over the last WINDOW iterations that end within it; before the first, that of the first, whose responses
    are the fixed policy's.
    """
    nothing = {"budget": math.nan, "budget_low": math.nan, "budget_high": math.nan, "budget_runs": (), "begun": 0}
    if math.isnan(budget) or spent.empty:
        return nothing
    key = run_key(spent)
    joined = steps.merge(spent[[*key, "pretrain_compute"]], on=key)
    values, begun = {}, 0
    for run, one in joined.sort_values("step").groupby(key, sort=True):
        total = (one["compute_tokens"] + one["pretrain_compute"]).to_numpy()
        within = int((total <= budget).sum())
        begun += within > 0
        accuracy = one["value"].to_numpy()
        values[run] = 100 * float(np.mean(accuracy[max(0, within - WINDOW) : max(1, within)]))
    index = pd.MultiIndex.from_tuples(list(values), names=key)
    runs = pd.Series(list(values.values()), index=index, dtype=float)
    runs.index = index if len(key) > 1 else index.get_level_values(0)
    middle, interval = costs.mean_interval(
        runs, "budget", study.name, arm, shared_draws=study.shared_draws, apart=APART
    )
    result = {"budget": middle, "budget_low": interval.low, "budget_high": interval.high}
    return {**result, "budget_runs": tuple(sorted(runs)), "begun": begun}


def _of_ceiling(numbers: pd.DataFrame, name: str) -> list[str]:
    pairs = zip(numbers[f"{name}_variance"], numbers[f"{name}_ceiling"], strict=True)
    return [NOTHING if math.isnan(x) else f"{round(x, 2) + 0.0:.2f} of {ceiling:.2f}" for x, ceiling in pairs]


def _notes(study: Study, numbers: pd.DataFrame, k: str) -> list[str]:
    notes = [
        interval_note(study) + f" {number(numbers['problems'].max(), 0)} problems, {k} answers each.",
        "Mean along: accuracy of the responses sampled in training, all iterations alike; mean over runs [95 % "
        f"percentile bootstrap over {over(study)}].",
        "Explained variance, of its ceiling, that of exact values; means over runs. At the start: on the held-out "
        "responses of value pretraining, without it on the first batch of RL. Along RL: iterations whose responses all "
        "score alike have none, and the ceiling was measured at few.",
        "Answers: sampled in RL; those to pretrain are sampled once before it, held-out ones included.",
        "Compute: generated + forward + 3 x backward tokens, in forward passes of one token, evaluation left out; "
        "with value pretraining, counted whole for each run.",
    ]
    if math.isnan(numbers["least"].iloc[0]):
        notes.append(
            "What pretraining cost is not in runs.csv, so no compute is compared: an export of the study writes it, "
            f"vcppo export {study.name}."
        )
    else:
        notes.append(
            f"At equal compute: at {numbers['least'].iloc[0] / MILLION:.3g} M, all that the cheapest arm spends, mean "
            f"over the last {WINDOW} iterations within it, of the responses sampled in training. {SHORT} In some runs, "
            "or all, pretraining alone costs more: they stand as the fixed policy is, by their first batch. "
            + costs.ANNEALED_NOTE
        )
    notes.append(COUNT_NOTE)
    return [*notes, LOST_NOTE] if numbers[["failed", "pruned"]].to_numpy().sum() else notes
