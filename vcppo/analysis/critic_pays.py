"""Gain of VC-PPO and of an exact critic over GRPO, against the number of decisions that count."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.critic_worth import compares, mean_gain, sizes, task_of, worth
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, commits, over_all

NAME, TASK, LINES = "critic-pays", "labels", "task.lines"
STUDY = "credit-lines"  # that makes the most of it
STUDIES = ("credit", STUDY)  # further ones of the task have runs of these in them, or other settings
MADE_BY = (
    "python bench/decision_noise.py --batches 2000 --set task.misunderstood=1.0 --set task.slip=0.2 "
    "--out results/decision-noise.csv"
)
SAME: Mapping[str, str] = {"vcppo-no-decouple-1.0": "vcppo-mc"}  # the critic's λ being 1 in both
ARMS = ("exact", "exact-mc", "vcppo", "vcppo-mc")
COMPUTED: Mapping[str, tuple[str, str]] = {  # of decision-noise.csv: the arm whose colour, and the name in print
    "exact, 0.95": ("exact", "exact critic, λ actor = 0.95"),
    "exact, 1": ("exact-mc", "exact critic, λ actor = 1"),
    "blind, 0.95": ("exact-blind", "blind critic, λ actor = 0.95"),
}
MEASURES = {"gain_mean": "mean along training", "gain_end": "at the end"}


def load(results: Results) -> tuple[list[Study], pd.DataFrame]:
    """Return those of the studies that compare critics with GRPO on the task, and the computed signal.

    Raises:
        NoDataError: there are none, or nothing was computed.
    """
    noise = results.noise[results.noise["task"] == TASK]
    if noise.empty:
        raise NoDataError(f"{NAME}: no {results.root / 'decision-noise.csv'}; make it with: {MADE_BY}")
    there = [results.studies[name] for name in STUDIES if name in results.studies]
    studies = [study for study in there if compares(study) and task_of(study) == TASK]
    if not studies:
        raise NoDataError(
            f"{NAME}: no study of {TASK} with GRPO beside critics; make one with: vcppo sweep {STUDY} && vcppo export "
            f"{STUDY}"
        )
    return studies, noise


def compute(studies: list[Study], noise: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return runs, their means, and the computed signal.

    Returns:
        Runs with columns study, arm, base_seed, seed, lines, decisions, gain_mean, gain_end (points). Means with
        columns study, arm, decisions, runs, and of either gain its mean, low and high. The signal with columns
        advantages, decisions, ratio (signal-to-noise over that of GRPO).
    """
    size = noise.drop_duplicates("lines").sort_values("lines")
    parts = []
    for study in studies:
        if set(sizes(study)) - {LINES}:  # another dial of the task, for which nothing was computed
            continue
        rows = worth(study).assign(study=study.name)
        rows["lines"] = rows[LINES] if LINES in rows else lines_of(study)
        rows["arm"] = rows["arm"].replace(dict(SAME))
        parts.append(rows[rows["arm"].isin(ARMS)])
    runs = pd.concat(parts or [pd.DataFrame(columns=["study", "arm", "lines", *MEASURES])], ignore_index=True)
    runs["decisions"] = np.interp(runs["lines"], size["lines"], size["decisions"], left=np.nan, right=np.nan)
    runs = runs.dropna(subset=["decisions", "gain_mean"])
    centres, shared = [], {study.name for study in studies if study.shared_draws}
    for (study_name, arm, decisions), some in runs.groupby(["study", "arm", "decisions"], sort=True):
        row = {"study": study_name, "arm": arm, "decisions": decisions, "runs": len(some)}
        for name in MEASURES:
            middle, low, high = mean_gain(some, name, study_name, arm, decisions, shared_draws=study_name in shared)
            row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        centres.append(row)
    signal = noise.pivot(index="decisions", columns="advantages", values="signal_to_noise")
    ratios = signal[list(COMPUTED)].div(signal["GRPO"], axis=0).reset_index()
    ratios = ratios.melt("decisions", var_name="advantages", value_name="ratio")
    selected = ["study", "arm", *run_key(runs), "lines", "decisions", *MEASURES]
    return runs[selected].reset_index(drop=True), pd.DataFrame(centres), ratios


def lines_of(study: Study) -> float:
    """Return the lines of a study's task, from the names of its problems, `60/538`; NaN where they have none."""
    lines = study.problems["problem"].astype(str).str.extract(r"^(\d+)/")[0].dropna().unique()
    return float(lines[0]) if len(lines) == 1 else float("nan")


def draw(runs: pd.DataFrame, means: pd.DataFrame, ratios: pd.DataFrame) -> Any:
    """Draw left and middle the measured gains, a dot a run, right the computed signal; decisions on one axis each."""
    figure, axes = style.new_figure(style.PAGE, 2.5, 1, 3, sharex=True)
    arms = [arm for arm in ARMS if arm in set(means["arm"])]
    looks = style.arm_styles(arms)
    spread = 0.03  # of the logarithm of decisions, between arms
    for panel, (name, what), letter in zip(axes[0, :2], MEASURES.items(), "ab", strict=True):
        for place, arm in enumerate(arms):
            beside = np.exp(spread * (2 * place - len(arms) + 1))
            look = looks[arm]
            some = runs[runs["arm"] == arm]
            panel.plot(some["decisions"] * beside, some[name], marker="o", markersize=1.5, linestyle="none",
                       color=look.colour, alpha=0.45, markeredgewidth=0, zorder=1)  # fmt: skip
            one = means[means["arm"] == arm].sort_values("decisions")
            at = one["decisions"] * beside
            panel.vlines(at, one[f"{name}_low"], one[f"{name}_high"], color=look.colour, linewidth=1.2, zorder=2)
            panel.plot(at, one[name], color=look.colour, linestyle=look.line, marker=look.marker, linewidth=0.9,
                       markersize=4.6, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
                       label=look.label)  # fmt: skip
        panel.axhline(0, **style.REFERENCE_LINE)
        panel.set_ylabel("accuracy, less GRPO's (points)")
        style.title(panel, letter, f"measured, {what}")
    computed = axes[0, 2]
    for kind, (arm, label) in COMPUTED.items():
        look, one = style.KNOWN[arm], ratios[ratios["advantages"] == kind].sort_values("decisions")
        computed.plot(one["decisions"], one["ratio"], color=look.colour, linestyle=look.line, linewidth=1.2)
        above, height = bool(one["ratio"].iloc[-1] > 1), one["ratio"].max()
        at = (one["decisions"].iloc[-1], height) if above else (one["decisions"].iloc[0], 0.0)
        computed.annotate(label, at, xytext=(0, 1), ha="right" if above else "left", va="bottom",
                          textcoords="offset points", fontsize=6, color=look.colour)  # fmt: skip
    computed.axhline(1, **style.REFERENCE_LINE)
    computed.set(ylabel="signal-to-noise, over GRPO's", ylim=(0, 1.12 * float(ratios["ratio"].max())))
    style.title(computed, "c", "computed")
    for panel in axes[0]:
        panel.set_xscale("log")
        ticks = [10, 20, 50, 100, 200]
        panel.set_xticks(ticks, [f"{tick}" for tick in ticks])
        panel.minorticks_off()
        panel.set_xlabel("decisions that count, a response")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw; NoDataError with fewer than two numbers of decisions."""
    studies, noise = load(results)
    runs, means, ratios = compute(studies, noise)
    if runs["decisions"].nunique() < 2:
        names = ", ".join(study.name for study in studies)
        raise NoDataError(
            f"{NAME}: one number of decisions in {names}, expected two or more; make others with: vcppo sweep {STUDY} "
            f"&& vcppo export {STUDY}"
        )
    used = [study for study in studies if study.name in set(runs["study"])]
    named = ", ".join(f"`{study.name}`{commits(study)}" for study in used)
    text = (
        "**When a critic pays.** Accuracy less that of GRPO of the same base and seed, at equal responses of RL (those "
        "of value pretraining are not counted: the tables critics-STUDY do), against the decisions that count in a "
        f"response of `{TASK}`: lines whose rule is misunderstood. (a) Mean over the responses sampled in training, "
        "(b) at the end on held-out problems, (c) computed before any run: how well an iteration hears of one such "
        "decision, mean over standard deviation of the gradient of its logit, over the same of GRPO; no network "
        "(bench/decision_noise.py, responses as the demonstrations are; uneven since the share of right ones is, "
        f"{100 * noise['right'].min():.0f} to {100 * noise['right'].max():.0f} %). "
        f"Origin: measured, studies {named}, {len(runs)} runs with "
        f"their GRPO, and computed, decision-noise.csv. Marker: mean over runs; bar: 95 % percentile bootstrap over "
        f"{over_all(used)}, none with one run or where runs lie more than 50 points apart; dots: runs. Data made by "
        + ", ".join(f"`{study.command}`" for study in used)
        + f" and `{MADE_BY}`."
    )
    return Picture(NAME, draw(runs, means, ratios), text)
