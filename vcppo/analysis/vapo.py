"""VAPO with one of its seven components left out at a time, measured, and the same published beside it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import costs, style, summary, tables
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.picture import Picture, caption, over
from vcppo.analysis.table_text import NOTHING, Table
from vcppo.analysis.training import lost_runs
from vcppo.maths.run_statistics import far_apart
from vcppo.maths.statistics import UNKNOWN

NAME, WHOLE = "vapo", "vapo"
PUBLISHED_AS: Mapping[str, str] = {  # rows of results/paper/vapo_table1.csv, in the paper's order, below them the whole
    "ppo": "Vanilla PPO",
    "vapo-no-pretrain": "VAPO w/o Value-Pretraining",
    "vapo-no-decouple": "VAPO w/o Decoupled-GAE",
    "vapo-no-length-adaptive": "VAPO w/o Length-adaptive GAE",
    "vapo-no-clip-higher": "VAPO w/o Clip-Higher",
    "vapo-no-token-loss": "VAPO w/o Token-level loss",
    "vapo-no-positive-nll": "VAPO w/o Positive-example LM loss",
    "vapo-no-group": "VAPO w/o Group-Sampling",
    "vapo": "VAPO",
}
MEASURES = ("end", "along")
SHOWN = 16.0  # points below VAPO that are drawn; differences beyond are written


def load(results: Results, name: str = NAME) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study, its evaluations with their costs, and the published table."""
    study = results.study(NAME, name)
    if WHOLE not in set(study.finished["arm"]):
        raise NoDataError(f"{name}: no finished run of {WHOLE} in {NAME}/runs.csv; make it with: {study.command}")
    study.need("problems", name)
    return study, costs.evaluations(study, name), results.published("vapo_table1")


def compute(study: Study, points: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm of the study: as `tables.measured`, and what leaving its component out changes, in points.

    Further columns end, end_low, end_high (avg@k minus that of VAPO, same seeds and problems), along, along_low,
    along_high (mean accuracy over the responses sampled, minus that of VAPO, same seeds), pairs (seeds that both have),
    published (AIME 2024, avg@32, %; NaN where the paper has no such row).
    """
    order = [arm for arm in PUBLISHED_AS if arm in study.arms]
    arms = [*order, *(arm for arm in study.arms if arm not in PUBLISHED_AS)]
    table = tables.measured(study, arms)
    table = pd.concat([table, pd.DataFrame([differences(study, points, arm) for arm in arms])], axis=1)
    quoted = paper.drop_duplicates("system").set_index("system")["value"]
    table["published"] = [quoted.get(PUBLISHED_AS.get(arm, ""), float("nan")) for arm in arms]
    return table


def differences(study: Study, points: pd.DataFrame, arm: str) -> dict[str, float]:
    """Return an arm's differences from VAPO in the runs that both have, in points; NaN for VAPO itself."""
    names = [f"{name}{ending}" for name in MEASURES for ending in ("", "_low", "_high")]
    nothing = dict.fromkeys(names, float("nan")) | {"pairs": 0}
    if arm == WHOLE:
        return nothing
    without, whole = (summary.accuracy_table(study.problems, one) for one in (arm, WHOLE))
    runs = without.index.intersection(whole.index)
    if not len(runs):
        return nothing
    table = 100 * (without.loc[runs] - whole.loc[runs])
    apart = far_apart(table.mean(axis=1), tables.APART)
    interval = (
        UNKNOWN if apart else summary.crossed_interval(table, "vapo", "end", arm, shared_draws=study.shared_draws)
    )
    areas = [costs.by_run(points, one, lambda run: costs.mean_along(run["answers"], run["accuracy"]))
             for one in (arm, WHOLE)]  # fmt: skip
    between = (areas[0] - areas[1]).dropna()  # of runs that both have
    along, along_interval = costs.mean_interval(
        between, "vapo", "along", arm, shared_draws=study.shared_draws, apart=tables.APART
    )
    return {
        "end": float(table.to_numpy().mean()), "end_low": interval.low, "end_high": interval.high,
        "along": along, "along_low": along_interval.low, "along_high": along_interval.high, "pairs": len(runs),
    }  # fmt: skip


def draw(computed: pd.DataFrame, study: Study) -> Any:
    """Draw one row per arm: (a) accuracy, (b, c) differences from VAPO, (d) published."""
    arms = list(computed["arm"])
    figure, axes = style.new_figure(
        style.PAGE, 0.75 + 0.215 * len(arms), 1, 4, sharey=True, gridspec_kw={"width_ratios": [0.9, 1.1, 1.1, 0.9]}
    )
    looks, lost = style.arm_styles(arms), lost_runs(study)
    ending, change, along, quoted = axes[0]
    for row, record in enumerate(computed.to_dict("records")):
        look = looks[record["arm"]]
        style.seed_dots(ending, list(100 * summary.final_scores(study.runs, record["arm"])), row, look)
        for panel, name in ((ending, "avg"), (change, "end"), (along, "along")):
            if panel is not ending and record[name] < -SHOWN:
                panel.text(-SHOWN, row, f"◂ {record[name]:.0f}".replace("-", "−"), va="center", color=look.colour,
                           fontsize=6.5)  # fmt: skip
                continue
            style.interval(panel, record[f"{name}_low"], record[f"{name}_high"], row, look)
            panel.plot(record[name], row, marker=look.marker, color=look.colour, markersize=4.6, zorder=3,
                       markeredgecolor="white", markeredgewidth=0.4)  # fmt: skip
        for panel in axes[0]:
            panel.axhline(row, color="0.93", linewidth=0.5, zorder=0)
        quoted.plot(record["published"], row, **(dict(style.PUBLISHED) | {"markersize": 4.2}))
        if record["arm"] in lost:
            ending.annotate(lost[record["arm"]], (0.98, row - 0.36), xycoords=("axes fraction", "data"), ha="right",
                            va="center", fontsize=5, color="0.3")  # fmt: skip
    for panel in (change, along):
        panel.axvline(0, **style.REFERENCE_LINE)
        panel.set_xlabel("difference (points)")
        reach = computed.loc[computed["end"] >= -SHOWN, [f"{name}{end}" for name in MEASURES for end in ("", "_high")]]
        panel.set_xlim(-SHOWN - 1, max(2.0, 1.1 * float(np.nanmax([*reach.to_numpy().ravel(), 0.0]))))
    for panel in axes[0]:
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
    if computed["published"].isna().all():
        style.nothing(quoted, "no published numbers\nin this folder")
    ending.set_yticks(range(len(arms)), [looks[arm].label for arm in arms])
    ending.set(ylim=(len(arms) - 0.4, -0.6), xlim=(-4, 104), xlabel=f"avg@{study.runs['k'].max():g} (%)")
    quoted.set(xlim=(-2, 70), xlabel="AIME, avg@32 (%)")
    style.title(ending, "a", "measured")
    style.title(change, "b", "end, minus VAPO")
    style.title(along, "c", "along, minus VAPO")
    style.title(quoted, "d", "published")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, points, paper = load(results)
    computed = compute(study, points, paper)
    text = (
        "(a) Accuracy at the end of training with one of VAPO's seven components left out; small dots: single "
        "runs. (b) Its difference from the whole in the same seeds and problems, (c) that of the area under "
        "held-out accuracy against answers sampled, over the answers, in the same seeds: left of 0 the component is "
        "missed; ◂ and a number: further left than drawn. (d) The paper's numbers, another model, task and scale: "
        "compare orders, not numbers."
    )
    interval = (
        f"Lines: 95 % percentile bootstrap over {over(study)}, in (a, b) and problems, crossed; none with one run, or "
        f"where runs end more than {tables.APART:g} points apart."
    )
    return Picture(
        NAME,
        draw(computed, study),
        caption("VAPO, one component less.", text, study, interval=interval,
                published="arXiv 2504.05118, table 1; single runs."),
    )  # fmt: skip


def table(results: Results) -> Table:
    """Return the same as a table, the published column beside."""
    study, points, paper = load(results, "table of vapo")
    numbers = compute(study, points, paper)
    k = tables.samples_behind(numbers)
    shown = pd.DataFrame({
        "arm": [style.arm_label(arm) for arm in numbers["arm"]],
        f"measured avg@{k} (%)": tables.scores(numbers, "avg"),
        "end − VAPO (points)": tables.with_interval(numbers, "end"),
        "mean along − VAPO (points)": tables.with_interval(numbers, "along"),
        "seeds": tables.seeds_behind(numbers),
        "pairs": [str(pairs) if pairs else NOTHING for pairs in numbers["pairs"]],
        "published AIME 2024 avg@32 (%)": [tables.number(value, 0) for value in numbers["published"]],
    })  # fmt: skip
    notes = [
        tables.interval_note(study),
        f"Differences from VAPO paired by run: at the end also by problem [95 % percentile bootstrap over "
        f"{over(study)}, and problems, crossed], along training [the same without problems].",
        "Mean along: area under held-out accuracy against answers sampled, over the answers.",
        "Published: arXiv 2504.05118, table 1, Qwen2.5-32B, single runs without intervals. Measured: another task and "
        "model; compare orders, not numbers.",
    ]
    lost = numbers[["failed", "pruned"]].to_numpy().sum() > 0
    return Table(NAME, "VAPO, one component less", numbers, shown, [*notes, *([tables.LOST_NOTE] if lost else [])])
