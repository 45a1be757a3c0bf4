"""The paper's tables 2 to 4 on each task that asks their questions: which arms of a study are rows of which table."""

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from vcppo.analysis import costs, tables
from vcppo.analysis.critic_worth import needed, sizes, task_of
from vcppo.analysis.data import ACCURACY, LAMBDA, NoDataError, Results, Study, run_key, sort_arms
from vcppo.analysis.picture import over
from vcppo.analysis.table_text import Table
from vcppo.analysis.tables import APART, OTHER_TASK_NOTE, measured, setting_key

WHOLE = "vcppo"
TABLES: Mapping[str, str] = {"table2": "", "table3": "pretrain.steps", "table4": LAMBDA}  # and the setting that varies
TITLES: Mapping[str, str] = {
    "table2": "Table 2 on the task {}. What each component is worth",
    "table3": "Table 3 on the task {}. Value-pretraining steps",
    "table4": "Table 4 on the task {}. λ of the actor",
}
FIRST: Mapping[str, str] = {"table2": "arm", "table3": "pretraining steps", "table4": "λ actor"}
COMPONENTS = (
    "ppo", "ppo-constant", "vcppo-no-pretrain", "vcppo-no-decouple-0.95", "vcppo-no-decouple-1.0", "vcppo", "grpo",
)  # fmt: skip


def rows_of(study: Study, table: str) -> dict[str, str]:
    """Return which arms are rows of a table, and the value of its setting; of table 2 their names. Empty: it has none.

    Of tables 3 and 4 those that differ from VC-PPO in the setting alone, or all of a study that sweeps nothing else. A
    study that sweeps the size of its task has no tables.
    """
    setting, arms = TABLES[table], study.arms
    if sizes(study):
        return {}
    if not setting:
        result = {arm: arm for arm in COMPONENTS if arm in arms}
        return result if {WHOLE, "grpo"} <= result.keys() else {}
    if setting not in study.runs:
        return {}
    first = study.runs.drop_duplicates("arm").set_index("arm")
    if WHOLE not in arms:
        alone = all(arm.startswith(f"{setting}=") and "," not in arm for arm in arms)
        return {arm: setting_key(first[setting][arm]) for arm in arms} if alone else {}
    swept = [name for name in first.columns if ("." in name or name == "method") and name != setting]
    described = first[swept].map(str)
    alike = [arm for arm in arms if (described.loc[arm] == described.loc[WHOLE]).all()]
    return {arm: setting_key(first[setting][arm]) for arm in alike} if len(alike) > 1 else {}


def along(study: Study, arms: Sequence[str]) -> pd.DataFrame:
    """Return one row per arm: along, along_low, along_high, along_runs, the mean accuracy over all iterations, in %.

    Means over runs, without an interval where they lie far apart.
    """
    curve = study.curves[study.curves["metric"] == ACCURACY]
    rows = []
    for arm in arms:
        of_arm = curve[curve["arm"] == arm]
        runs = 100 * of_arm.groupby(run_key(of_arm), sort=True)["value"].mean().dropna()
        middle, interval = costs.mean_interval(
            runs, "along", study.name, arm, shared_draws=study.shared_draws, apart=APART
        )
        rows.append(
            {"arm": arm, "along": middle, "along_low": interval.low, "along_high": interval.high,
             "along_runs": tuple(sorted(runs))}
        )  # fmt: skip
    return pd.DataFrame(rows)


def numbers(study: Study, table: str, published: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table of the paper, measured and published; columns as `tables.measured`, and of `along`.

    Raises:
        NoDataError: the study does not ask this question.
    """
    keys = rows_of(study, table)
    if not keys:
        what = f"that differ in {TABLES[table]} alone" if TABLES[table] else f"{WHOLE} and grpo"
        raise NoDataError(f"{table}-{study.name}: no arms {what} in {study.name}, on a task of one size")
    arms = list(keys) if table == "table2" else sort_arms(keys)
    rows = measured(study, arms).merge(along(study, arms), on="arm")
    if table == "table2":
        return tables.by_label(rows, published)
    means = study.finished.groupby("arm")["pretrain_steps_done"].mean() if table == "table3" else pd.Series(dtype=float)
    done = {str(arm): float(steps) for arm, steps in means.items()}
    return _named_end(tables.by_setting(rows, keys, published), done)


def _named_end(rows: pd.DataFrame, done: Mapping[str, float]) -> pd.DataFrame:
    """Say how far `converge` went, in the mean."""
    steps = [done.get(arm, math.nan) for arm in rows["arm"]]
    named = [
        f"until settled ({step:.0f})" if row == "converge" and not math.isnan(step) else row
        for row, step in zip(rows["row"], steps, strict=True)
    ]
    return rows.assign(row=named)


def table(results: Results, study_name: str, which: str) -> Table:
    """Return a table of the paper as measured on the task of a study, beside the published numbers."""
    name = f"{which}-{study_name}"
    study = needed(results.study(study_name, name), name)
    rows = numbers(study, which, results.published(which))
    notes = [
        OTHER_TASK_NOTE,
        "Published at 8K tokens of context.",
        "Mean along training: accuracy of the responses sampled, all iterations alike; mean over runs [95 % "
        f"percentile bootstrap over {over(study)}].",
    ]
    if which == "table2":
        notes.append("One λ: the paper's row `VC-PPO w/o Decoupled-GAE`, λ = 1 being its likelier reading.")
    if which == "table3":
        notes.append("Until settled: the critic with the least held-out loss (`pretrain.steps = converge`).")
    return tables.beside_published(
        study, name, TITLES[which].format(task_of(study) or study_name), rows, notes, first=FIRST[which]
    )
