"""The paper's tables 2 to 4 as points: each task that asks their questions beside the published numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style, task_tables
from vcppo.analysis.critic_worth import compares, task_of
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.picture import Picture, commits, counts, over
from vcppo.analysis.table_text import NOTHING
from vcppo.analysis.tables import setting_key
from vcppo.maths.run_statistics import TWO_ENDS, ends_apart

NAME = "tables-beside"
DIGITS = ("components", "pretrain-steps", "lambda-actor")  # the studies of the task `digits`, by table
PUBLISHED = "published AIME pass@1"
AXES: Mapping[str, str] = {"table2": "", "table3": "pretraining updates", "table4": "λ actor"}
SHIFT = 0.14  # between the end and the mean along training
LOOK = style.ArmStyle("at the end", "#0b4f8a", "-", "o")
ALONG = style.ArmStyle("mean along training", "#c44601", "-", "s")


def load(results: Results) -> dict[str, dict[str, Study]]:
    """Return task -> table -> the study that asks its question there with most arms; tasks without any are left out.

    Raises:
        NoDataError: no task has any.
    """
    asked: dict[str, dict[str, Study]] = {}
    others = [name for name in sorted(results.studies) if name not in DIGITS and compares(results.studies[name])]
    for name in [*(name for name in DIGITS if name in results.studies), *others]:
        study = results.studies[name]
        if study.curves.empty or study.finished.empty:
            continue
        task = "digits" if name in DIGITS else task_of(study) or name
        for table in task_tables.TABLES:
            rows, before = task_tables.rows_of(study, table), asked.get(task, {}).get(table)
            if len(rows) > (len(task_tables.rows_of(before, table)) if before is not None else 0):
                asked.setdefault(task, {})[table] = study
    if not asked:
        raise NoDataError(
            f"{NAME}: no study with the arms of a table of the paper in {results.root}; make one with: vcppo sweep "
            "credit && vcppo export credit"
        )
    return asked


def compute(asked: Mapping[str, Mapping[str, Study]], results: Results) -> pd.DataFrame:
    """Return one row per task, table and row of it.

    Columns task (`published` last), table, row, and in per cent end, end_low, end_high, end_runs, along, along_low,
    along_high, along_runs: means over runs, the median where they lie far apart. Published numbers have an end alone.
    """
    frames = []
    for task, tables in asked.items():
        for table, study in tables.items():
            numbers = task_tables.numbers(study, table, results.published(table))
            numbers = numbers[numbers["done"] > 0].rename(columns=lambda name: name.replace("avg", "end", 1))
            split = numbers["end_runs"].map(lambda runs: ends_apart(runs, 100))
            numbers["end"] = numbers["end"].mask(split, numbers["end_median"])
            numbers["along"] = numbers["along"].mask(
                numbers["along_low"].isna(), numbers["along_runs"].map(lambda runs: np.median(runs) if runs else np.nan)
            )
            selected = ["row", *(f"{a}{b}" for a in ("end", "along") for b in ("", "_low", "_high", "_runs"))]
            frames.append(numbers[selected].assign(task=task, table=table))
    for table in task_tables.TABLES:
        paper = results.published(table)
        paper = paper[(paper["metric"] == "pass_at_1") & (paper["benchmark"] == "AIME")] if len(paper) else paper
        if paper.empty:
            continue
        keys = paper["setting_value"].map(setting_key) if table != "table2" else paper["arm"]
        rows = keys.map(style.arm_label) if table == "table2" else keys
        one = pd.DataFrame({"row": rows.to_numpy(), "end": paper["value"].to_numpy()})
        frames.append(one.assign(task="published", table=table))
    return pd.concat(frames, ignore_index=True)


def draw(computed: pd.DataFrame) -> Any:
    """Draw a row for each table, a column for each task, the last for what was published."""
    tasks, tables = list(dict.fromkeys(computed["task"])), list(task_tables.TABLES)
    figure, axes = style.new_figure(
        style.PAGE, 5.6, len(tables), len(tasks), gridspec_kw={"height_ratios": [1.25, 1, 1]}
    )
    arms = [style.arm_label(arm) for arm in task_tables.COMPONENTS]
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    for line, table in enumerate(tables):
        of_table = computed[computed["table"] == table]
        shared = [arm for arm in arms if arm in set(of_table["row"])] if table == "table2" else None
        for column, task in enumerate(tasks):
            panel, here = axes[line, column], of_table[of_table["task"] == task]
            published = task == "published"
            style.title(panel, next(letters), "published" if published else f"task {task}")
            ticks = shared or list(here["row"])
            _points(panel, here, ticks, published=published, flat=table == "table2")
            if here.empty:
                style.nothing(panel, "not asked")
            if table == "table2":
                panel.set_yticks(range(len(ticks)), ticks if column == 0 else [""] * len(ticks))
                panel.set_ylim(len(ticks) - 0.5, -0.5)
                panel.set_xlim((-2, 52) if published else (-4, 104))
                panel.set_xlabel("AIME, pass@1 (%)" if published else "accuracy (%)")
                continue
            panel.set_xticks(range(len(ticks)), [_short(tick) for tick in ticks])
            panel.set_xlim(-0.5, max(1, len(ticks)) - 0.5)
            panel.set_xlabel(AXES[table])
            panel.set_ylim((-2, 52) if published else (-4, 104))
            panel.set_ylabel("AIME (%)" if published else "accuracy (%)" if column == 0 else "")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _points(panel: Any, rows: pd.DataFrame, ticks: list[str], *, published: bool, flat: bool) -> None:
    """Draw the rows at their ticks, values across where `flat`: the mean with its interval, and every run."""
    order = rows.set_index("row").reindex(ticks)
    places = np.arange(len(ticks), dtype=float)
    if published:
        panel.plot(*_across(order["end"], places, flat), **({**style.PUBLISHED, "linestyle": "none"}))
        return
    for name, look, side in (("end", LOOK, -1), ("along", ALONG, 1)):
        at = places + side * SHIFT
        for place, (low, high, runs) in enumerate(order[[f"{name}_low", f"{name}_high", f"{name}_runs"]].to_numpy()):
            if isinstance(runs, tuple) and len(runs) > 1:
                spread = at[place] + np.linspace(-0.07, 0.07, len(runs))
                panel.plot(*_across(np.array(runs), spread, flat), marker="o", markersize=1.5, linestyle="none",
                           color=look.colour, alpha=0.4, markeredgewidth=0, zorder=1)  # fmt: skip
            ends, here = np.array([low, high], dtype=float), np.full(2, at[place])
            panel.plot(*_across(ends, here, flat), color=look.colour, linewidth=1.2, zorder=2)
        panel.plot(*_across(order[name], at, flat), linestyle="none", marker=look.marker, markersize=4.2, zorder=3,
                   color=look.colour, markeredgecolor="white", markeredgewidth=0.4, label=look.label)  # fmt: skip


def _across(values: Any, places: Any, flat: bool) -> tuple[Any, Any]:
    return (values, places) if flat else (places, values)


def _short(tick: str) -> str:
    """Break a tick that is too long for one line.

    >>> _short("until settled (160)"), _short("0.95")
    ('settled\\n(160)', '0.95')
    """
    return tick.replace("until settled ", "settled\n")


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    asked = load(results)
    studies = {study.name: study for tables in asked.values() for study in tables.values()}
    described = "; ".join(
        f"`{name}`, {counts(study)}, over {over(study)}{commits(study)}" for name, study in studies.items()
    )
    commands = ", ".join(f"`{study.command}`" for study in studies.values())
    text = (
        "**The paper's tables 2 to 4, task by task.** Above, components (table 2); middle, steps of value pretraining "
        "(table 3; settled: the critic with the least held-out loss, and its mean number of updates); below, λ of the "
        "actor, that of the critic being 1 (table 4). Blue: accuracy at the end on held-out problems; orange: mean "
        "over the responses sampled in training; marker: mean over runs, bar: 95 % percentile bootstrap of it; median "
        f"without a bar where they lie {TWO_ENDS}; dots: runs. Origin: measured, studies "
        f"{described}. Origin of the open grey points: arXiv 2503.01491, tables 2 to 4, AIME, pass@1, 8K tokens of "
        f"context, another task, model and scale of steps: compare orders. Data made by {commands}."
    )
    return Picture(NAME, draw(compute(asked, results)), text.replace(NOTHING, "-"))
