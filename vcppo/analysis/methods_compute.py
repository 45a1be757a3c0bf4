"""Accuracy against compute, in forward passes of one token, one panel per family."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from vcppo.analysis import costs, style, summary
from vcppo.analysis.costs import MILLION
from vcppo.analysis.data import FAMILIES, OTHER_FAMILY, Results, Study, family, run_key, sort_arms
from vcppo.analysis.picture import Picture, caption, curve_interval

NAME = "methods-compute"
REFERENCES = {"ppo": (0, (1, 1.2)), "vcppo": "-"}  # drawn grey in the panels of other families
POINTS = 48  # of a curve, spread evenly over the logarithm of compute
COLUMNS = 2


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study `methods` and its evaluations with their costs."""
    study = results.study("methods", NAME)
    return study, costs.evaluations(study, NAME)


def along_compute(points: pd.DataFrame) -> pd.DataFrame:
    """Return arm, base_seed, seed, compute (millions of token forward passes), value (accuracy, %) of every run.

    A curve goes from a twentieth of an arm's shortest run to its end, straight between evaluations on a linear axis.
    """
    curves: list[pd.DataFrame] = []
    key = run_key(points)
    for arm, rows in points.groupby("arm", sort=True):
        runs = [run.sort_values("step") for _, run in rows.groupby(key, sort=True)]
        shortest = min(float(run["compute_tokens"].iloc[-1]) for run in runs)
        grid = np.geomspace(shortest / 20, shortest, POINTS)
        for run in runs:
            accuracy = np.interp(grid, run["compute_tokens"], run["accuracy"])
            one = {"arm": arm, **run[key].iloc[0], "compute": grid / MILLION, "value": accuracy}
            curves.append(pd.DataFrame(one))
    return pd.concat(curves, ignore_index=True) if curves else points[["arm", *key]].assign(compute=[], value=[])


def compute(
    points: pd.DataFrame, apart: Collection[str] = (), *, shared_draws: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return curves and ends, accuracy in per cent, compute in millions of token forward passes.

    Returns:
        Columns arm, compute, centre, low, high, seeds; and per arm a row: arm, compute (mean over runs of the total),
        along (mean over runs of the mean accuracy over the responses sampled), best (bool: no arm has more with less).
    """
    ends = []
    for arm in sorted(points["arm"].unique()):
        spent = costs.by_run(points, arm, lambda run: float(run["compute_tokens"].iloc[-1]))
        along = costs.by_run(points, arm, lambda run: costs.mean_along(run["answers"], run["accuracy"]))
        ends.append((arm, spent.mean() / MILLION, along.mean()))
    summarised = summary.over_seeds(along_compute(points), ["arm", "compute"], apart, shared_draws=shared_draws)
    return summarised, front(pd.DataFrame(ends, columns=["arm", "compute", "along"]))


def front(ends: pd.DataFrame) -> pd.DataFrame:
    """Sort `ends` by compute, and add a column `best`: no arm of less or equal compute has a higher mean accuracy.

    >>> front(pd.DataFrame({"compute": [3, 1, 2], "along": [9, 5, 4]}))["best"].tolist()
    [True, False, True]
    """
    ordered = ends.sort_values(["compute", "along"], ascending=[True, False], ignore_index=True)
    return ordered.assign(best=ordered["along"] > ordered["along"].cummax().shift().fillna(-np.inf))


def draw(runs: pd.DataFrame, curves: pd.DataFrame, ends: pd.DataFrame) -> Any:
    """Draw one panel per family, PPO and VC-PPO grey in those of others; last panel: every arm as a whole.

    Args:
        runs: every run of the arms without a band, see `along_compute`.
    """
    groups = {name: [arm for arm in sort_arms(ends["arm"]) if family(arm) == name]
              for name in (*FAMILIES, OTHER_FAMILY)}  # fmt: skip
    groups = {name: arms for name, arms in groups.items() if arms}
    rows = -(-(len(groups) + 1) // COLUMNS)
    figure, axes = style.new_figure(style.PAGE, 0.35 + 1.62 * rows, rows, COLUMNS, sharey=True)
    looks = style.arm_styles(list(ends["arm"]))
    panels = list(axes.ravel())
    for place, (name, arms) in enumerate(groups.items()):
        panel = panels[place]
        for arm, line in REFERENCES.items():
            if arm not in arms and arm in looks:
                one = curves[curves["arm"] == arm]
                panel.plot(one["compute"], one["centre"], color="0.55", linestyle=line, linewidth=1.0, zorder=2,
                           label=looks[arm].label)  # fmt: skip
        for arm in arms:
            one, look = curves[curves["arm"] == arm], looks[arm]
            marks = {"marker": look.marker, "markevery": [-1], "markersize": 4.2}
            style.band(panel, one, "compute", look, **marks)
            style.seed_lines(panel, runs[runs["arm"] == arm], "compute", look, alone=True)
        style.title(panel, "abcdefgh"[place], name)
        _legend(panel, arms, looks)
    last = panels[len(groups)]
    best = ends[ends["best"]]
    last.step(best["compute"], best["along"], where="post", **style.REFERENCE_LINE)
    for record in ends.to_dict("records"):
        look = looks[record["arm"]]
        last.plot(record["compute"], record["along"], marker=look.marker, color=look.colour, markersize=4.6,
                  linestyle="none", markeredgecolor="white", markeredgewidth=0.4, label=look.label)  # fmt: skip
    names = {looks[arm].label for arm in best["arm"]}
    handles = [line for line in last.get_lines() if line.get_label() in names]
    last.legend(handles=handles, title="most with least", title_fontsize=6.5, alignment="left",
                loc="upper left", bbox_to_anchor=(1.0, 1.02), labelspacing=0.35)  # fmt: skip
    style.title(last, "abcdefgh"[len(groups)], "mean along training, all arms")
    for panel in panels[len(groups) + 1 :]:
        panel.remove()
    last.set_xlim(0.8 * ends["compute"].min(), 1.25 * ends["compute"].max())
    every = (0.85 * curves["compute"].min(), 1.25 * curves["compute"].max())
    for place, panel in enumerate(panels[: len(groups) + 1]):
        compute_axis(panel, (1, 2, 3, 5, 7) if panel is last else (1, 2, 5))
        style.percent(panel)
        panel.set_ylabel("accuracy (%)" if place % COLUMNS == 0 else "")
        under = place + COLUMNS > len(groups)
        panel.tick_params(labelbottom=under or place + COLUMNS == len(groups))  # the last has a separate axis
        if panel is not last:
            panel.set_xlim(every)
        if not under:
            panel.set_xlabel("")
    return figure


def compute_axis(panel: Any, digits: Sequence[float] = (1, 2, 5)) -> None:
    """Set a logarithmic axis of compute, ticks at these leading digits."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=digits))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    panel.set_xlabel("compute (million token passes)")


def _legend(panel: Any, arms: list[str], looks: dict[str, style.ArmStyle]) -> None:
    """Write names beside the panel, the family's first; lines with their marker."""
    lines = [line for line in panel.get_lines() if not line.get_label().startswith("_")]  # thin ones have no label
    handles = {line.get_label(): line for line in lines}
    family_labels = [looks[arm].label for arm in arms]
    names = [*family_labels, *(name for name in handles if name not in family_labels)]
    panel.legend([handles[name] for name in names], names, loc="upper left", bbox_to_anchor=(1.0, 1.02),
                 handlelength=2.4, labelspacing=0.35)  # fmt: skip


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, points = load(results)
    text = (
        "Held-out accuracy during training against compute, in forward passes of one token: tokens generated, tokens "
        "scored, and three times the tokens of forward-backward passes; auxiliary samples are in it. Straight between "
        "evaluations; each curve from a twentieth of its arm's compute to the end of its shortest run. PPO and VC-PPO "
        "stand grey in the panels of other families. Last panel: mean accuracy over the answers sampled against an "
        f"arm's total compute, named where no arm has more with less. {costs.ANNEALED_NOTE}"
    )
    apart = summary.arms_apart(study.runs)
    runs = along_compute(points[points["arm"].isin(apart)])
    interval = curve_interval(study, lines=False) + (" Thin lines: their single runs." if apart else "")
    return Picture(
        NAME,
        draw(runs, *compute(points, apart, shared_draws=study.shared_draws)),
        caption("Accuracy against compute.", text, study, interval=interval),
    )
