"""Value errors of K rollouts and of a learned critic, against the truth of 256 rollouts, and the accuracy of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import costs, methods_compute, style, summary, tables, values
from vcppo.analysis.data import NoDataError, Results, Study, sort_arms
from vcppo.analysis.picture import Picture, caption, over
from vcppo.analysis.table_text import Table

NAME = "vine"
TRUTH_ROUNDING = 1e-5  # of values that were computed
BINS = 5  # of the response, from its start to its end
FEW = 0.01  # groups with a smaller share of an arm's states are left out
TRUTH_BINS = np.linspace(-1, 1, 9)
MIDDLE = (0.1, 0.9)  # quantiles of the estimates of states of one truth
CLOSE = 12.0  # points below the best that the panel of accuracy against K shows
SHOWN = ("ppo", "vcppo")  # beside the largest K in the panel of estimates against truth


@dataclass(frozen=True)
class Computed:
    """The data of the panels; `errors` has one row per arm and measure, rms or mae."""

    errors: pd.DataFrame
    rollout: float
    fraction: pd.DataFrame
    training: pd.DataFrame
    estimates: pd.DataFrame
    scores: pd.DataFrame
    seeds: dict[str, list[float]]
    curves: pd.DataFrame
    runs: pd.DataFrame  # of the arms in curves that end in two ways


def load(results: Results, name: str = NAME) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study, its states with estimate and truth, its evaluations with their costs."""
    study = results.study(NAME, name)
    states = study.need("truth", name)
    if (states["truth"].abs() > 1 + TRUTH_ROUNDING).any():
        raise NoDataError(f"{name}: true values in {NAME}/truth.csv beyond -1 to 1; expected rewards of -1 and 1")
    return study, states, costs.evaluations(study, name)


def rollouts_of(arm: str) -> int | None:
    """Return K of an arm whose values are means of K rollouts; None for a learned critic.

    >>> rollouts_of("vine-k9"), rollouts_of("vcppo")
    (9, None)
    """
    match = re.fullmatch(r"vine-k(\d+)", arm)
    return int(match[1]) if match else None


def compute(study: Study, truth: pd.DataFrame, points: pd.DataFrame) -> Computed:
    """Return errors by arm, fraction of the response and iteration; estimates by truth; scores; curves over compute."""
    states, shared = values.with_errors(truth), {"shared_draws": study.shared_draws}
    edges = np.linspace(0, 1, BINS + 1)
    places = np.clip(np.digitize(states["fraction"], edges) - 1, 0, BINS - 1)
    states["middle"] = (edges[places] + edges[places + 1]) / 2
    sampled = states[states["arm"].map(rollouts_of).notna()]
    base = sampled if len(sampled) else states
    errors = pd.concat([
        values.summarise(states, ["arm"], statistic, name, **shared).assign(measure=name)
        for name, statistic in (("rms", values.root_mean_square), ("mae", values.mean_absolute))
    ], ignore_index=True)  # fmt: skip
    return Computed(
        errors=errors,
        rollout=float(values.one_rollout(base[list(values.SUMS)].sum().to_numpy(dtype=np.float64))),
        fraction=_frequent(values.summarise(states, ["arm", "middle"], values.root_mean_square, "fraction", **shared)),
        training=_frequent(values.summarise(states, ["arm", "step"], values.worth, "training", **shared)),
        estimates=against_truth(states),
        scores=tables.measured(study, sort_arms(states["arm"].unique())),
        seeds={arm: list(100 * summary.final_scores(study.runs, arm)) for arm in study.arms},
        curves=methods_compute.compute(points, summary.arms_apart(study.runs), **shared)[0],
        runs=methods_compute.along_compute(points[points["arm"].isin(summary.arms_apart(study.runs))]),
    )


def against_truth(states: pd.DataFrame) -> pd.DataFrame:
    """Return the mean estimate, and the middle 80 % of the estimates, of the states of like truth.

    Columns arm, truth (mean of the bin), estimate, low, high, states; bins with too few states left out.
    """
    places = np.clip(np.digitize(states["truth"], TRUTH_BINS) - 1, 0, len(TRUTH_BINS) - 2)
    groups = states.groupby(["arm", places], sort=True)
    table = groups.agg(truth=("truth", "mean"), estimate=("estimate", "mean"), states=("truth", "size"))
    table["low"], table["high"] = (groups["estimate"].quantile(share) for share in MIDDLE)
    return _frequent(table.droplevel(1).reset_index())


def _frequent(groups: pd.DataFrame) -> pd.DataFrame:
    """Select groups that hold enough of their arm's states."""
    return groups[groups["states"] >= FEW * groups.groupby("arm")["states"].transform("sum")].reset_index(drop=True)


def draw(computed: Computed, k: float) -> Any:
    """Draw above error by K, along the response, against truth; below worth along training, accuracy, compute."""
    figure, axes = style.new_figure(style.PAGE, 4.75, 2, 3)
    figure.get_layout_engine().set(wspace=0.05, hspace=0.04)
    arms = sort_arms(computed.scores["arm"])
    looks = style.arm_styles(arms)
    counts = {arm: rollouts for arm in arms if (rollouts := rollouts_of(arm)) is not None}
    _errors(axes[0, 0], computed, looks, counts)
    _lines(axes[0, 1], computed.fraction, "middle", looks)
    axes[0, 1].set(xlabel="fraction of the answer", ylabel="r.m.s. error (reward)", xlim=(0, 1), ylim=(0, None))
    _estimates(axes[0, 2], computed.estimates, looks, counts)
    _lines(axes[1, 0], computed.training, "step", looks)
    axes[1, 0].set_yscale("log", base=3)
    for rollouts in {1, *counts.values()}:
        axes[1, 0].axhline(rollouts, **style.REFERENCE_LINE)
    ticks = [3.0**i for i in range(-4, 6) if axes[1, 0].get_ylim()[0] <= 3.0**i <= axes[1, 0].get_ylim()[1]]
    axes[1, 0].set_yticks(ticks, [f"{tick:g}" if tick >= 1 else f"1/{1 / tick:.0f}" for tick in ticks])
    axes[1, 0].minorticks_off()
    axes[1, 0].set(xlabel="RL iteration", ylabel="worth in rollouts")
    _scores(axes[1, 1], computed, looks, counts, k)
    for arm in arms:
        one = computed.curves[computed.curves["arm"] == arm]
        marks = {"marker": looks[arm].marker, "markevery": [-1], "markersize": 4.2}
        style.band(axes[1, 2], one, "compute", looks[arm], **marks)
        style.seed_lines(axes[1, 2], computed.runs[computed.runs["arm"] == arm], "compute", looks[arm], alone=True)
    methods_compute.compute_axis(axes[1, 2])
    axes[1, 2].set_ylabel("accuracy (%)")
    style.percent(axes[1, 2])
    names = ("error against K", "error along the answer", "estimate against truth", "rollouts a value is worth",
             "accuracy against K", "accuracy against compute")  # fmt: skip
    for letter, panel, name in zip("abcdef", axes.ravel(), names, strict=True):
        style.title(panel, letter, name)
    handles = [line for line in axes[1, 2].get_lines() if not line.get_label().startswith("_")]
    figure.legend(handles, [looks[arm].label for arm in arms], loc="outside lower center", ncols=len(arms))
    return figure


def _errors(panel: Any, computed: Computed, looks: dict[str, style.ArmStyle], counts: dict[str, int]) -> None:
    """Draw root mean square filled, mean absolute open; critics as bands across; the closed form as a line."""
    errors = {(row["measure"], row["arm"]): row for row in computed.errors.to_dict("records")}
    _k_axis(panel, counts)
    left, right = panel.get_xlim()
    for arm, look in looks.items():
        rms, mae = errors["rms", arm], errors["mae", arm]
        if arm in counts:
            _point(panel, counts[arm], rms, look, look.colour)
        else:
            _across(panel, rms, look)
        _point(panel, counts.get(arm, right), mae, look, "white")
    grid = np.geomspace(left, right, 50)
    panel.plot(grid, computed.rollout / np.sqrt(grid), color="black", linewidth=0.9, zorder=1)
    panel.annotate("closed form", (grid[6], computed.rollout / np.sqrt(grid[6])), xytext=(4, 2),
                   textcoords="offset points", fontsize=6)  # fmt: skip
    panel.set(ylabel="value error (reward)", ylim=(0, None))


def _scores(panel: Any, computed: Computed, looks: dict[str, style.ArmStyle], counts: dict[str, int], k: float) -> None:
    """Draw accuracy at the end at each K, seeds beside; critics as bands across; arms far below are written."""
    floor = max(0.0, float(computed.scores["avg"].max()) - CLOSE)
    below = computed.scores[computed.scores["avg"] < floor].to_dict("records")
    for place, record in enumerate(reversed(below)):
        look = looks[record["arm"]]
        panel.text(0.02, 0.02 + 0.08 * place, f"▾ {look.label} {record['avg']:.1f}", transform=panel.transAxes,
                   fontsize=6.5, color=look.colour)  # fmt: skip
    for record in computed.scores[computed.scores["avg"] >= floor].to_dict("records"):
        arm, look = record["arm"], looks[record["arm"]]
        row = {"centre": record["avg"], "low": record["avg_low"], "high": record["avg_high"]}
        if arm not in counts:
            _across(panel, row, look)
            continue
        at = counts[arm]
        seeds = computed.seeds[arm]
        panel.plot([at * 1.1] * len(seeds), seeds, marker="o", markersize=1.8, linestyle="none",
                   markerfacecolor="white", markeredgecolor=look.colour, markeredgewidth=0.5)  # fmt: skip
        _point(panel, at, row, look, look.colour)
    _k_axis(panel, counts)
    panel.set(ylabel=f"final accuracy, avg@{k:g} (%)", ylim=(None, min(100.5, panel.get_ylim()[1])))


def _point(panel: Any, at: float, row: Mapping[Any, Any], look: style.ArmStyle, face: str) -> None:
    panel.plot([at, at], [row["low"], row["high"]], color=look.colour, linewidth=1.2, zorder=2, clip_on=False)
    panel.plot(at, row["centre"], marker=look.marker, markersize=4.6, markerfacecolor=face, clip_on=False,
               markeredgecolor=look.colour, markeredgewidth=0.8, zorder=3)  # fmt: skip


def _across(panel: Any, row: Mapping[Any, Any], look: style.ArmStyle) -> None:
    """Draw a number that does not depend on K, and its interval."""
    panel.axhline(row["centre"], color=look.colour, linestyle=look.line, linewidth=1.1, zorder=1)
    if not np.isnan(row["low"]):
        panel.axhspan(row["low"], row["high"], color=look.colour, alpha=0.15, linewidth=0, zorder=0)


def _k_axis(panel: Any, counts: dict[str, int]) -> None:
    panel.set_xscale("log")
    every = sorted(counts.values()) or [1]
    panel.set_xticks(every, [str(rollouts) for rollouts in every])
    panel.minorticks_off()
    panel.set(xlim=(every[0] / 1.5, every[-1] * 1.5), xlabel="rollouts a state, K")


def _lines(panel: Any, curves: pd.DataFrame, x: str, looks: dict[str, style.ArmStyle]) -> None:
    for arm, look in looks.items():
        one = curves[curves["arm"] == arm].dropna(subset=["centre"])
        style.band(panel, one, x, look, marker=look.marker, markersize=3)


def _estimates(panel: Any, estimates: pd.DataFrame, looks: dict[str, style.ArmStyle], counts: dict[str, int]) -> None:
    """Draw the mean estimate of states of one truth; bars: the middle 80 %. Three arms, set a little apart."""
    arms = [arm for arm in SHOWN if arm in looks] + ([max(counts, key=counts.__getitem__)] if counts else [])
    panel.plot([-1, 1], [-1, 1], color="0.6", linewidth=0.7, zorder=0)
    for place, arm in enumerate(arms):
        one, look = estimates[estimates["arm"] == arm], looks[arm]
        at = one["truth"] + 0.03 * (place - (len(arms) - 1) / 2)
        panel.vlines(at, one["low"], one["high"], color=look.colour, linewidth=0.9, alpha=0.7)
        panel.plot(at, one["estimate"], color=look.colour, linestyle=look.line, linewidth=0.9, marker=look.marker,
                   markersize=3.6)  # fmt: skip
    panel.set(xlabel="true value (reward)", ylabel="estimate (reward)", xlim=(-1.08, 1.08))


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, truth, points = load(results)
    text = (
        "Values of states of sampled answers against their truth, the mean reward (−1 or 1) of "
        f"{values.TRUTH_SAMPLES} rollouts, whose own noise, (1 − v²) / 255, is taken off every squared error. (a) "
        "Root-mean-square (filled) and mean absolute error (open, not corrected) of the mean of K rollouts; line: "
        "closed form, root of the mean of (1 − v²) / K; across: root-mean-square error of the learned critics, at "
        "the right edge their mean absolute error. Every arm is judged on states of its own policy. (b) "
        "Root-mean-square error by place in the answer. (c) Mean estimate of the states of one truth; bars: the "
        "middle 80 % of the estimates. (d) How many rollouts would be as wrong on the same states: mean of 1 − v² "
        "over mean squared error; below 1 a single rollout is better. (e) Accuracy at the end, critics across; "
        f"small dots: single runs; ▾ ends more than {CLOSE:g} points below the best. (f) Held-out accuracy against "
        f"compute, in forward passes of one token. {costs.ANNEALED_NOTE}"
    )
    interval = (
        f"Bands and lines: 95 % percentile bootstrap over {over(study)}, in (a, b, d) and answers within runs, in (e) "
        "and problems, crossed; none with one run."
    )
    return Picture(
        NAME,
        draw(compute(study, truth, points), study.runs["k"].max()),
        caption("Whose values to trust.", text, study, interval=interval),
    )


def table(results: Results) -> Table:
    """Return errors of every arm's values, their worth in rollouts, and how the arm ended."""
    study, truth, _ = load(results, "vine-values")
    states, shared = values.with_errors(truth), {"shared_draws": study.shared_draws}
    numbers = tables.measured(study, sort_arms(states["arm"].unique()))
    for name, statistic in (("rms", values.root_mean_square), ("mae", values.mean_absolute), ("worth", values.worth)):
        errors = values.summarise(states, ["arm"], statistic, name, **shared).set_index("arm").loc[numbers["arm"]]
        numbers[name] = errors["centre"].to_numpy()
        numbers[[f"{name}_low", f"{name}_high"]] = errors[["low", "high"]].to_numpy()
        numbers["states"] = errors["states"].to_numpy()
    bias = (states["estimate"] - states["truth"]).groupby(states["arm"]).mean()
    numbers["bias"] = numbers["arm"].map(bias)
    shown = pd.DataFrame({
        "arm": [style.arm_label(arm) for arm in numbers["arm"]],
        "r.m.s. error": tables.with_interval(numbers, "rms", 3),
        "mean absolute error": tables.with_interval(numbers, "mae", 3),
        "bias": [tables.number(value, 3) for value in numbers["bias"]],
        "worth in rollouts": tables.with_interval(numbers, "worth"),
        "states": [str(count) for count in numbers["states"]],
        f"avg@{tables.samples_behind(numbers)} (%)": tables.scores(numbers, "avg"),
        "seeds": tables.seeds_behind(numbers),
    })  # fmt: skip
    notes = [
        f"Errors against the mean reward (-1 or 1) of {values.TRUTH_SAMPLES} rollouts from the same state; their "
        "noise, (1 - v^2) / 255, is taken off the squared errors, not off the absolute ones. States of each arm's own "
        f"policy. [95 % percentile bootstrap over {over(study)}, and answers within runs; none with one run.]",
        "Worth in rollouts: mean of 1 - v^2, the variance of one rollout, over the mean squared error.",
        "avg: " + tables.interval_note(study),
    ]
    lost = numbers[["failed", "pruned"]].to_numpy().sum() > 0
    title = "Value error of rollouts and of learned critics"
    return Table("vine-values", title, numbers, shown, [*notes, *([tables.LOST_NOTE] if lost else [])])
