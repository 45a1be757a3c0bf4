"""All methods at an equal sample budget: how each ended, and how it stood on average along the way."""

import math
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import costs, style, summary, tables
from vcppo.analysis.data import FAMILIES, OTHER_FAMILY, Results, Study, family
from vcppo.analysis.picture import Picture, caption, over
from vcppo.analysis.training import lost_runs

NAME = "methods"
REFERENCE = "vcppo"
CLOSE = 8.0  # points below the best that panel (b) shows
ROW, MARGIN = 0.185, 0.75  # inches


def load(results: Results, name: str = NAME) -> tuple[Study, pd.DataFrame]:
    """Return the study and its evaluations with their costs; `name` is of the figure or table, for messages."""
    study = results.study(NAME, name)
    return study, costs.evaluations(study, name)


def compute(study: Study, points: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm, by family and then by accuracy, arms without a finished run last in theirs.

    Columns arm, family, then for `end` (avg@k, %; mean over runs and problems) and `along` (mean accuracy over the
    responses sampled, %; mean over runs): the centre, _low, _high, and _seeds, a tuple with one number per run.
    """
    ends = tables.measured(study, study.arms).set_index("arm")
    rows = []
    for arm in study.arms:
        along = costs.by_run(points, arm, lambda run: costs.mean_along(run["answers"], run["accuracy"]))
        middle, interval = costs.mean_interval(along, "along", study.name, arm, shared_draws=study.shared_draws)
        rows.append({
            "arm": arm, "family": family(arm), "end": ends.loc[arm, "avg"], "end_low": ends.loc[arm, "avg_low"],
            "end_high": ends.loc[arm, "avg_high"], "end_seeds": tuple(100 * summary.final_scores(study.runs, arm)),
            "along": middle, "along_low": interval.low, "along_high": interval.high, "along_seeds": tuple(along),
        })  # fmt: skip
    return by_family(pd.DataFrame(rows), "end")


def by_family(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """Sort rows of arms by the column `family`, families in their order, the highest score of each first."""
    places = rows["family"].map([*FAMILIES, OTHER_FAMILY].index)
    ordered = rows.assign(place=places).sort_values(["place", score], ascending=[True, False], kind="stable")
    return ordered.drop(columns="place").reset_index(drop=True)


def heights(computed: pd.DataFrame) -> tuple[dict[str, int], dict[str, int]]:
    """Return the row of each arm and of each family's heading, from the top."""
    arms: dict[str, int] = {}
    heads: dict[str, int] = {}
    for arm, group in computed[["arm", "family"]].itertuples(index=False):
        heads.setdefault(group, len(arms) + len(heads))
        arms[arm] = len(arms) + len(heads)
    return arms, heads


def draw(computed: pd.DataFrame, lost: dict[str, str], k: float) -> Any:
    """Draw one row per arm; (a) accuracy at the end, (b) its upper part enlarged, (c) mean along training."""
    arms, heads = heights(computed)
    rows = len(arms) + len(heads)
    figure, axes = style.new_figure(
        style.PAGE, MARGIN + ROW * rows, 1, 3, sharey=True, gridspec_kw={"width_ratios": [1.15, 1, 1.15]}
    )
    looks = style.arm_styles(list(arms))
    top = computed["end"].max()
    floor = -math.inf if math.isnan(top) else max(0.0, top - CLOSE)
    for column, name in enumerate(("end", "end", "along")):
        panel = axes[0, column]
        for record in computed.to_dict("records"):
            row, look = arms[record["arm"]], looks[record["arm"]]
            panel.axhline(row, color="0.93", linewidth=0.5, zorder=0)
            if column == 1 and record["end"] < floor:
                panel.annotate("◂", (0.005, row), xycoords=("axes fraction", "data"), va="center", color=look.colour)
                continue
            seeds = record[f"{name}_seeds"]
            style.seed_dots(panel, seeds, row, look)
            if len(seeds) and max(seeds) - min(seeds) > tables.APART:
                continue  # their mean describes none of them
            style.interval(panel, record[f"{name}_low"], record[f"{name}_high"], row, look)
            panel.plot(record[name], row, marker=look.marker, color=look.colour, markersize=4.6, zorder=3,
                       markeredgecolor="white", markeredgewidth=0.4)  # fmt: skip
        if REFERENCE in arms:
            panel.axvline(computed.set_index("arm").loc[REFERENCE, name], **style.REFERENCE_LINE)
        panel.tick_params(axis="y", length=0)
        panel.spines["left"].set_visible(False)
        panel.set_xlim(-4, 104)
    for arm, text in lost.items():
        axes[0, 2].annotate(text, (1, arms[arm]), xycoords=("axes fraction", "data"), ha="right", va="center",
                            fontsize=5.5, color="0.3", bbox={"color": "white", "pad": 1})  # fmt: skip
    axes[0, 0].set_yticks([*arms.values(), *heads.values()], [*(looks[arm].label for arm in arms), *heads])
    for label in axes[0, 0].get_yticklabels()[len(arms) :]:
        label.set_fontweight("bold")
    axes[0, 0].set_ylim(rows - 0.4, -0.6)
    if math.isfinite(floor):
        close = computed[computed["end"] >= floor]
        reach = [np.max(values) for values in close["end_seeds"] if len(values)]
        axes[0, 1].set_xlim(floor - 0.5, min(100.4, max([close["end_high"].max(), *reach]) + 0.5))
    axes[0, 0].set_xlabel(f"final accuracy, avg@{k:g} (%)")
    axes[0, 1].set_xlabel(f"final accuracy, avg@{k:g} (%)")
    axes[0, 2].set_xlabel("mean accuracy along training (%)")
    style.title(axes[0, 0], "a", "at the end")
    style.title(axes[0, 1], "b", "at the end, enlarged")
    style.title(axes[0, 2], "c", "area under the curve")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, points = load(results)
    text = (
        f"(a) Accuracy on {study.runs['problems'].max():g} held-out problems at the end of training, every arm with "
        f"the same prompts, seeds and number of iterations; (b) the same, enlarged, ◂ where an arm ended more than "
        f"{CLOSE:g} points below the best; (c) area under held-out accuracy against answers sampled, divided by the "
        "answers. Small dots: single runs, alone where they lie more than "
        f"{tables.APART:g} points apart. Dotted line: VC-PPO. Families and, within them, arms by accuracy."
    )
    interval = (
        f"Lines: 95 % percentile bootstrap over {over(study)}, in (a, b) and problems, crossed; none with one run. "
        "Failed and pruned runs enter no mean."
    )
    return Picture(
        NAME,
        draw(compute(study, points), lost_runs(study), study.runs["k"].max()),
        caption("Methods at an equal sample budget.", text, study, interval=interval),
    )
