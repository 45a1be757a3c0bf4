"""CPPO: what pruning completions saves in wall time, against what it could save, and what it costs in accuracy."""

import re
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from vcppo.analysis import costs, style, summary, tables
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, over

NAME, UNPRUNED = "cppo", "grpo"
ARM = r"cppo-(0?\.\d+)(-refill)?"
PARTS = ("generate_s", "score_s", "update_s")  # of time/iteration_s; what is left is the rest
PART_LOOKS = {
    "generate_s": ("generate", "#9ecae1", ""),
    "score_s": ("score", "#d98b2b", "////"),
    "update_s": ("update", "#0b4f8a", ""),
    "other_s": ("other", "0.8", "...."),
}
PLAIN = style.ArmStyle("pruned", "#7b59a8", "-", "s")
REFILL = style.ArmStyle("pruned and refilled", "#b8732b", (0, (4, 1.5)), "D")


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study and its times, one row per run: arm, base_seed, seed, seconds an iteration by part, response_s.

    response_s is an iteration's time by the responses that it samples.
    """
    study = results.study(NAME, NAME)
    curves = study.need("curves", NAME)
    if UNPRUNED not in set(study.finished["arm"]):
        raise NoDataError(f"{NAME}: no finished run of {UNPRUNED} in {NAME}/runs.csv; make it with: {study.command}")
    names = [f"time/{part}" for part in (*PARTS, "iteration_s")]
    for name in names:
        if name not in curves["metric"].unique():
            raise NoDataError(f"{NAME}: no {name} in the curves of {NAME}; make it with: {study.command}")
    key = ["arm", *run_key(curves)]
    times = curves[curves["metric"].isin(names)].pivot_table(index=key, columns="metric", values="value")
    times = times.set_axis(times.columns.str.removeprefix("time/"), axis=1).reset_index()
    times["other_s"] = times["iteration_s"] - times[list(PARTS)].sum(axis=1)
    spent = costs.totals(study, NAME)
    spent["sampled"] = spent["answers"] / spent["iterations"]
    times = times.merge(spent[[*key, "sampled"]], on=key)
    return study, times.assign(response_s=times["iteration_s"] / times["sampled"])


def pruning(arm: str) -> tuple[float, bool] | None:
    """Return an arm's pruning rate and whether freed places are refilled; None for an arm that has none.

    >>> pruning("grpo"), pruning("cppo-0.875-refill"), pruning("vcppo")
    ((0.0, False), (0.875, True), None)
    """
    match = re.fullmatch(ARM, arm)
    return (0.0, False) if arm == UNPRUNED else (float(match[1]), match[2] is not None) if match else None


def bound(share: float, rate: ArrayLike) -> NDArray[np.float64]:
    """Return Amdahl's bound on an iteration's speed-up when a share f of it shrinks to 1 - P.

    1 / ((1 - f) + f (1 - P)), f the share of scoring and update in the unpruned iteration.

    >>> bound(0.5, [0, 0.5, 1]).round(3).tolist()
    [1.0, 1.333, 2.0]
    """
    return np.asarray(1 / ((1 - share) + share * (1 - np.asarray(rate, dtype=np.float64))))


def compute(study: Study, times: pd.DataFrame) -> tuple[pd.DataFrame, tuple[float, float, float]]:
    """Return one row per arm, sorted by rate, and the share f of the unpruned arm with both ends of its interval.

    Columns arm, rate, refill, seconds of each part (mean over seeds), speed_up (mean over seeds of response_s, unpruned
    over pruned, of one seed) with _low, _high and _seeds, accuracy (avg@k, %) with _low, _high and _seeds.
    """
    prunable = (times["score_s"] + times["update_s"]) / times["iteration_s"]
    key = run_key(times)
    shares = prunable.set_axis(times.set_index(key).index)[(times["arm"] == UNPRUNED).to_numpy()]
    share, interval = costs.mean_interval(shares, NAME, "share", shared_draws=study.shared_draws)
    unpruned = times[times["arm"] == UNPRUNED].set_index(key)["response_s"]
    rows = []
    for arm in study.arms:
        kind = pruning(arm)
        runs = times[times["arm"] == arm].set_index(key)
        if kind is None or runs.empty:
            continue
        faster = (unpruned / runs["response_s"]).dropna()
        middle, ends = costs.mean_interval(faster, NAME, "speed-up", arm, shared_draws=study.shared_draws)
        score = tables.measured(study, [arm]).iloc[0]
        rows.append({
            "arm": arm, "rate": kind[0], "refill": kind[1],
            **{part: runs[part].mean() for part in PART_LOOKS},
            "speed_up": middle, "speed_up_low": ends.low, "speed_up_high": ends.high, "speed_up_seeds": tuple(faster),
            "accuracy": score["avg"], "accuracy_low": score["avg_low"], "accuracy_high": score["avg_high"],
            "accuracy_seeds": tuple(100 * summary.final_scores(study.runs, arm)),
        })  # fmt: skip
    table = pd.DataFrame(rows).sort_values(["rate", "refill"], ignore_index=True)
    return table, (share, interval.low, interval.high)


def draw(computed: pd.DataFrame, share: tuple[float, float, float], k: float) -> Any:
    """Draw (a) where the seconds go, (b) speed-up against the bound, (c) accuracy."""
    figure, axes = style.new_figure(style.PAGE, 2.5, 1, 3, gridspec_kw={"width_ratios": [1.15, 1, 1]})
    figure.get_layout_engine().set(wspace=0.05)
    seconds, speed, accuracy = axes[0]
    _stack(seconds, computed)
    highest = max(0.9, float(computed["rate"].max()))
    rates = np.linspace(0, min(1.0, highest + 0.02), 100)
    middle, low, high = share
    speed.plot(rates, bound(middle, rates), color="black", linewidth=1.0, label="Amdahl's bound")
    if not np.isnan(low):
        speed.fill_between(rates, bound(low, rates), bound(high, rates), color="black", alpha=0.12, linewidth=0)
    for look, refilled in ((PLAIN, False), (REFILL, True)):
        rows = computed[computed["refill"] == refilled]
        if rows.empty:
            continue
        with_start = computed[(computed["refill"] == refilled) | (computed["rate"] == 0)]
        for panel, name in ((speed, "speed_up"), (accuracy, "accuracy")):
            panel.plot(with_start["rate"], with_start[name], color=look.colour, linestyle=look.line, linewidth=1.0)
            shift = 0.008 if refilled else -0.008
            for row in rows.to_dict("records"):
                at = row["rate"] + shift
                panel.plot([at, at], [row[f"{name}_low"], row[f"{name}_high"]], color=look.colour, linewidth=1.2)
                seeds = row[f"{name}_seeds"]
                panel.plot([at + shift] * len(seeds), seeds, marker="o", markersize=1.8, linestyle="none",
                           markerfacecolor="white", markeredgecolor=look.colour, markeredgewidth=0.5)  # fmt: skip
            panel.plot(rows["rate"] + shift, rows[name], marker=look.marker, markersize=4.6, linestyle="none",
                       color=look.colour, markeredgecolor="white", markeredgewidth=0.4, label=look.label)  # fmt: skip
    speed.set(ylabel="speed-up by answers sampled", ylim=(0, None))
    speed.axhline(1, **style.REFERENCE_LINE)
    speed.legend(loc="upper left")
    accuracy.set_ylabel(f"final accuracy, avg@{k:g} (%)")
    accuracy.margins(y=0.12)
    for panel in (speed, accuracy):
        panel.set_xlabel("pruning rate P")
        panel.set_xlim(-0.04, highest + 0.06)
    style.title(seconds, "a", "where the time goes")
    style.title(speed, "b", f"speed-up, f = {100 * middle:.0f} %")
    style.title(accuracy, "c", "accuracy at the end")
    return figure


def _stack(panel: Any, computed: pd.DataFrame) -> None:
    """Draw bars of seconds per iteration, refilled arms marked below."""
    places = np.arange(len(computed))
    bottom = np.zeros(len(computed))
    for part, (label, colour, hatch) in PART_LOOKS.items():
        panel.bar(places, computed[part], 0.72, bottom=bottom, color=colour, hatch=hatch, edgecolor="white",
                  linewidth=0.4, label=label)  # fmt: skip
        bottom += computed[part].to_numpy()
    marks = [f"{rate:g}\n+ refill" if refill else f"{rate:g}"
             for rate, refill in zip(computed["rate"], computed["refill"], strict=True)]  # fmt: skip
    panel.set_xticks(places, marks, fontsize=5.5)
    panel.tick_params(axis="x", length=0)
    panel.set(xlabel="pruning rate P", ylabel="seconds an iteration", ylim=(0, 1.38 * bottom.max()))
    panel.legend(loc="upper left", ncols=2, handlelength=1.4, columnspacing=1.0)


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, times = load(results)
    text = (
        "(a) Wall time of an iteration, mean over iterations and seeds; refilled arms generate answers to more "
        "prompts until the update is as wide as GRPO's. (b) Time by answers sampled, GRPO's (P = 0) over that of "
        "the pruned run of the same seed; line: Amdahl's bound 1 / ((1 − f) + f (1 − P)) with f the share of "
        "scoring and update in GRPO's iteration, band: from the interval of f. Answers shorter than GRPO's, and "
        "larger batches in refilled arms, may lift a point above it. (c) Accuracy at the same number of iterations. "
        "Small dots: single runs."
    )
    interval = (
        f"Lines and band: 95 % percentile bootstrap over {over(study)}, in (c) and problems, crossed; none with one "
        "run."
    )
    computed, share = compute(study, times)
    return Picture(
        NAME,
        draw(computed, share, study.runs["k"].max()),
        caption("CPPO, time and accuracy by pruning rate.", text, study, interval=interval),
    )
