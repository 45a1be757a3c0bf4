"""Responses of thousands of tokens: with what weight the reward reaches the first, and how each arm fares."""

import math
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style, summary, training
from vcppo.analysis.data import NoDataError, Results, Study, run_key, sort_arms
from vcppo.analysis.picture import Picture, caption, curve_interval, few_enough
from vcppo.store.summary import LAST_ITERATIONS

NAME, STUDY, SEEDS = "long", "components-long", 3
SHARE = "advantage/real_reward_share"
LAMBDAS = {"actor": "gae.lambda_actor", "critic": "gae.lambda_critic"}
SMALLEST = -45.0  # log10 of the smallest number that float32 can tell from 0


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study and its curves."""
    study = results.study(STUDY, NAME, SEEDS)
    few_enough(study, NAME)
    return study, study.need("curves", NAME)


def first_weight(gae_lambda: float, tokens: float) -> float:
    """Return log10 of the weight with which a reward at the end of `tokens` tokens enters the first one's estimate.

    >>> first_weight(0.1, 4), first_weight(1.0, 2006), first_weight(0.0, 2)
    (-3.0, 0.0, -inf)
    """
    return (tokens - 1) * math.log10(gae_lambda) if gae_lambda > 0 else -math.inf


def compute(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return one row per arm and moment (start: iteration 0; end: mean of the last iterations).

    Columns arm, when, tokens (mean length), actor and critic (log10 of the reward's weight at the first token of a
    response of that length, in the advantage and in the critic's target; critic NaN without one), share (mean over
    tokens of the weight in the advantage, %, NaN without a lambda), accuracy (%, of the responses sampled).
    """
    done = runs[runs["status"] == "done"]
    measured = {
        name: _moments(summary.metric(curves, metric, scale=scale))
        for name, metric, scale in (
            ("tokens", training.LENGTH.metric, 1.0),
            ("share", SHARE, 100.0),
            ("accuracy", training.ACCURACY.metric, 100.0),
        )
    }
    rows = []
    for arm in sort_arms(done["arm"].unique()):
        settings = done[done["arm"] == arm].iloc[0]
        learned = settings.get("advantage.estimator", "gae") == "gae"
        for when in ("start", "end"):
            means = {name: float(frame["value"].get((arm, when), math.nan)) for name, frame in measured.items()}
            weights = {
                who: first_weight(float(settings[column]), means["tokens"]) if learned else math.nan
                for who, column in LAMBDAS.items()
            }
            if not learned:
                weights["actor"] = 0.0  # the whole response has one advantage
            rows.append({"arm": arm, "when": when, **means, **weights})
    return pd.DataFrame(rows)


def _moments(values: pd.DataFrame) -> pd.DataFrame:
    """Return means over runs, index (arm, when)."""
    ordered = values.sort_values("step")
    start = ordered[ordered["step"] == 0].assign(when="start")
    key = ["arm", *run_key(ordered)]
    end = ordered.groupby(key).tail(LAST_ITERATIONS).groupby(key, as_index=False)["value"].mean()
    joined = pd.concat([start, end.assign(when="end")])
    means: pd.DataFrame = joined.groupby(["arm", "when"])[["value"]].mean()
    return means


def draw(study: Study, curves: pd.DataFrame, computed: pd.DataFrame) -> Any:
    """Draw left weights at the first token, one row per arm; right mean length during training, over its accuracy."""
    arms = sort_arms(computed["arm"].unique())
    looks = style.arm_styles(arms)
    figure, axes = style.new_figure(style.PAGE, 3.6, 2, 2, gridspec_kw={"width_ratios": (1.15, 1.0)})
    left = figure.add_subplot(axes[0, 0].get_gridspec()[:, 0])
    for unused in axes[:, 0]:
        unused.remove()
    ends = computed[computed["when"] == "end"].set_index("arm")
    apart = summary.arms_apart(study.runs)
    for row, arm in enumerate(arms):
        look, weights = looks[arm], ends.loc[arm]
        for who, filled in (("actor", True), ("critic", False)):
            if not np.isnan(weights[who]):
                left.plot(
                    max(weights[who], 1.25 * SMALLEST),
                    row,
                    marker=look.marker,
                    color=look.colour,
                    markersize=4.5 if filled else 8,
                    markerfacecolor=look.colour if filled else "white",
                    linestyle="none",
                    zorder=4 if filled else 3,
                )
    left.axvline(SMALLEST, **style.REFERENCE_LINE)
    left.set_yticks(range(len(arms)), [looks[arm].label for arm in arms])
    left.set(ylim=(len(arms) - 0.4, -0.6), xlim=(1.3 * SMALLEST, 3.0))
    left.set_xlabel("log10 of the reward's weight at the first token")
    for filled, label in ((True, "in the advantage"), (False, "in the critic's target")):
        left.plot([], [], marker="o", color="black", markerfacecolor="black" if filled else "white", linestyle="none",
                  label=label)  # fmt: skip
    left.legend(loc="lower right", bbox_to_anchor=(1.02, 0.995), ncols=2, handletextpad=0.2, columnspacing=1)
    style.title(left, "a", "")
    for letter, panel, kind in (("b", axes[0, 1], training.LENGTH), ("c", axes[1, 1], training.ACCURACY)):
        values = summary.metric(curves, kind.metric, scale=kind.scale)
        for arm in arms:
            one = values[values["arm"] == arm]
            style.band(
                panel,
                summary.over_seeds(one, ["arm", "step"], apart, shared_draws=study.shared_draws),
                "step",
                looks[arm],
            )
            if arm in apart:
                style.seed_lines(panel, one, "step", looks[arm], alone=True)
        style.title(panel, letter, "")
        panel.set_ylabel(kind.label)
    axes[1, 1].set_xlabel("iteration")
    style.percent(axes[1, 1])
    return figure


def least_weight(computed: pd.DataFrame) -> str:
    """Describe the weights of the arm whose reward reaches least far."""
    ends = computed[(computed["when"] == "end") & np.isfinite(computed["actor"])]
    least = ends.loc[ends["actor"].idxmin()]
    return (
        f"{style.arm_label(least['arm'])} ends with answers of {least['tokens']:.0f} tokens on average: at the first "
        f"of them the reward's weight in the advantage is 10^{least['actor']:.1f}."
    )


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, curves = load(results)
    computed = compute(study.runs, curves)
    if computed[["tokens", "accuracy"]].isna().all(axis=None):
        raise NoDataError(f"{NAME}: no lengths in the curves of {STUDY}; make it with: {study.command}")
    text = (
        "(a) With what weight λ^(length - 1) the reward at the end of an answer of the arm's mean length over its "
        f"last {LAST_ITERATIONS} iterations enters the first token's advantage (filled) and the critic's target there "
        "(open). At 0 it is heard whole; left of the line float32 cannot tell it from nothing, and only what the "
        f"critic says of later states reaches the first token. {least_weight(computed)} GRPO has no λ. (b, c) Mean "
        "length and accuracy of the answers sampled."
    )
    interval = curve_interval(study, lines=False)
    return Picture(NAME, draw(study, curves, computed), caption("Long answers.", text, study, interval=interval))
