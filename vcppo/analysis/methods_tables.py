"""The methods beside each other: at an equal sample budget with all costs, and at an equal compute budget."""

import math

import numpy as np
import pandas as pd

from vcppo.analysis import costs, methods, style, tables
from vcppo.analysis.costs import MILLION
from vcppo.analysis.data import Results, Study, bases_of, family, run_key
from vcppo.analysis.picture import over
from vcppo.analysis.table_text import NOTHING, SHORT, Table
from vcppo.analysis.tables import (
    BELOW,
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

BUDGET_ARM = "vcppo"
ENOUGH = 0.95  # of the budget
SPENT = ("generated_tokens", "forward_tokens", "backward_tokens", "compute_tokens")
COST_NOTE = (
    "Costs as the RL stage logged them, mean over runs, evaluation left out. Compute: generated + forward + 3 x "
    "backward tokens, in forward passes of one token; backward counts policy and critic."
)


def equal_samples(results: Results) -> Table:
    """Return the table of every arm with the same prompts, seeds and iterations: scores, speed, worst seed, costs."""
    study, points = methods.load(results, "table of methods")
    numbers = measured(study, study.arms)
    totals = costs.totals(study, methods.NAME)
    extra = [_along(study, points, arm) | _spent(totals[totals["arm"] == arm]) for arm in numbers["arm"]]
    numbers = pd.concat([numbers, pd.DataFrame(extra)], axis=1)
    numbers.insert(1, "family", [family(arm) for arm in numbers["arm"]])
    numbers = methods.by_family(numbers, "avg")
    k = samples_behind(numbers)
    shown = pd.DataFrame({
        "arm": [style.arm_label(arm) for arm in numbers["arm"]],
        "family": numbers["family"],
        f"avg@{k} (%)": scores(numbers, "avg"),
        "mean along (%)": scores(numbers, "along"),
        "worst seed (%)": _column(numbers["worst"], 1),
        BELOW: of_runs(numbers, "below"),
        f"reached {costs.TARGET:g} %": of_runs(numbers, "reached"),
        f"tokens to {costs.TARGET:g} % (k)": _column(numbers["tokens_to_target"] / 1000, 0),
        f"seconds to {costs.TARGET:g} %": _column(numbers["seconds_to_target"], 1),
        "answers": _column(numbers["answers"], 0),
        **{f"{name.removesuffix('_tokens')} (M)": _column(numbers[name] / MILLION, 2) for name in SPENT},
        "s / iteration": _column(numbers["iteration_s"], 2),
        "memory (MB)": _column(numbers["peak_memory_mb"], 0),
        "seeds": seeds_behind(numbers),
    })  # fmt: skip
    notes = [
        interval_note(study) + f" {number(numbers['problems'].max(), 0)} problems, {k} answers each.",
        "Mean along: area under held-out accuracy against answers sampled, over the answers; mean over runs "
        f"[95 % percentile bootstrap over {over(study)}].",
        f"To {costs.TARGET:g} %: tokens generated and seconds of training before the first evaluation at or above it; "
        f"median over runs, one that never gets there later than all others; {NOTHING} where half or more do not.",
        COUNT_NOTE,
        COST_NOTE,
    ]
    return Table("methods", "Methods at an equal sample budget", numbers, shown, _with_lost(notes, numbers))


def equal_compute(results: Results) -> Table:
    """Return the table of every run cut at one compute: accuracy there, the mean up to there, worst seed, progress."""
    study, points = methods.load(results, "table of methods-compute")
    budget = compute_budget(points)
    numbers = pd.DataFrame([_cut(study, points, arm, budget) for arm in study.arms])
    numbers = numbers.sort_values("accuracy", ascending=False, kind="stable", ignore_index=True)
    reference = style.arm_label(BUDGET_ARM) if BUDGET_ARM in set(points["arm"]) else "the arm that spends least"
    short = numbers["share"] < ENOUGH
    shown = pd.DataFrame({
        "arm": [style.arm_label(arm) + f" {SHORT}" * less for arm, less in zip(numbers["arm"], short, strict=True)],
        "family": numbers["family"],
        "accuracy (%)": scores(numbers, "accuracy"),
        "mean up to there (%)": scores(numbers, "along"),
        "worst seed (%)": _column(numbers["worst"], 1),
        f"reached {costs.TARGET:g} %": of_runs(numbers, "reached"),
        f"compute to {costs.TARGET:g} % (M)": _column(numbers["compute_to_target"] / MILLION, 2),
        "of the budget (%)": _column(100 * numbers["share"], 0),
        "of its answers (%)": _column(100 * numbers["of_answers"], 0),
        "seeds": seeds_behind(numbers),
    })  # fmt: skip
    notes = [
        f"Budget: {budget / MILLION:.3g} million forward passes of one token, the median total of {reference}.",
        "Accuracy: every run at that compute, straight between evaluations; mean over runs [95 % percentile "
        f"bootstrap over {over(study)}], runs far apart as in the table of methods. Mean up to there: area under "
        "accuracy against compute, over the compute.",
        COUNT_NOTE,
        costs.ANNEALED_NOTE + " A run cut at the budget is not annealed.",
        f"{SHORT} The median run of the arm spends less than {100 * ENOUGH:g} % of the budget; its runs stand as they "
        "were at their end.",
        f"To {costs.TARGET:g} %: median over runs, before the budget is spent; {NOTHING} where half or more do not.",
    ]
    return Table("methods-compute", "Methods at an equal compute budget", numbers, shown, _with_lost(notes, numbers))


def compute_budget(points: pd.DataFrame) -> float:
    """Return the median total compute of VC-PPO's runs; of the arm that spends least where VC-PPO was not run."""
    totals = points.groupby(["arm", *run_key(points)])["compute_tokens"].max().groupby("arm").median()
    return float(totals[BUDGET_ARM] if BUDGET_ARM in totals.index else totals.min())


def _along(study: Study, points: pd.DataFrame, arm: str) -> dict[str, object]:
    """Return an arm's mean along training, its worst end, and the costs to the target."""
    along = costs.by_run(points, arm, lambda run: costs.mean_along(run["answers"], run["accuracy"]))
    middle, interval = costs.mean_interval(
        along, "along", study.name, arm, shared_draws=study.shared_draws, apart=tables.APART
    )
    tokens = costs.by_run(points, arm, lambda run: costs.first_cost(run["generated_tokens"], run["accuracy"]))
    seconds = costs.by_run(points, arm, lambda run: costs.first_cost(run["elapsed_s"], run["accuracy"]))
    ends = study.finished.loc[study.finished["arm"] == arm, "avg_at_k"]
    return {
        "along": middle, "along_low": interval.low, "along_high": interval.high, "along_runs": tuple(sorted(along)),
        "worst": 100 * ends.min(),
        "reached": int(np.isfinite(tokens).sum()), "tokens_to_target": costs.median_reached(tokens),
        "seconds_to_target": costs.median_reached(seconds),
    }  # fmt: skip


def _spent(totals: pd.DataFrame) -> dict[str, object]:
    """Return the mean cost of the runs of one arm."""
    names = ["answers", *SPENT, "elapsed_s", "peak_memory_mb"]
    mean = {name: totals[name].mean() for name in names}
    return {**mean, "iteration_s": (totals["elapsed_s"] / totals["iterations"]).mean()}


def _cut(study: Study, points: pd.DataFrame, arm: str, budget: float) -> dict[str, object]:
    """Return a row of the second table."""

    def at_budget(run: pd.DataFrame) -> float:
        return costs.accuracy_at(run["compute_tokens"], run["accuracy"], budget)

    def up_to_budget(run: pd.DataFrame) -> float:
        return costs.mean_along(*costs.cut(run["compute_tokens"], run["accuracy"], budget))

    def to_target(run: pd.DataFrame) -> float:
        spent = costs.first_cost(run["compute_tokens"], run["accuracy"])
        return spent if spent <= budget else math.inf

    def response_share(run: pd.DataFrame) -> float:
        return float(np.interp(budget, run["compute_tokens"], run["answers"]) / run["answers"].iloc[-1])

    accuracy = costs.by_run(points, arm, at_budget)
    row: dict[str, object] = {"arm": arm, "family": family(arm)}
    for name, values in (("accuracy", accuracy), ("along", costs.by_run(points, arm, up_to_budget))):
        middle, interval = costs.mean_interval(
            values, "equal compute", name, study.name, arm, shared_draws=study.shared_draws, apart=tables.APART
        )
        row |= {name: middle, f"{name}_low": interval.low, f"{name}_high": interval.high}
        row[f"{name}_runs"] = tuple(sorted(values))
    target = costs.by_run(points, arm, to_target)
    totals = costs.by_run(points, arm, lambda run: float(run["compute_tokens"].iloc[-1]))
    shares = costs.by_run(points, arm, response_share)
    row |= {
        "worst": accuracy.min() if len(accuracy) else math.nan,
        "reached": int(np.isfinite(target).sum()),
        "compute_to_target": costs.median_reached(target),
        "share": min(1.0, float(np.median(totals)) / budget) if len(totals) else math.nan,
        "of_answers": float(np.median(shares)) if len(shares) else math.nan,
    }
    row["bases"] = len(set(bases_of(accuracy.index)))
    runs = study.runs[study.runs["arm"] == arm]
    return row | {status: int((runs["status"] == status).sum()) for status in ("done", "failed", "pruned")}


def _column(values: "pd.Series[float]", digits: int) -> list[str]:
    return [number(value, digits) for value in values]


def _with_lost(notes: list[str], numbers: pd.DataFrame) -> list[str]:
    return [*notes, LOST_NOTE] if numbers[["failed", "pruned"]].to_numpy().sum() else notes
