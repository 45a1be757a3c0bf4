"""Figure 3: the reward's weight at a token far from the end; lambda^distance, and each arm's measured share."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import NoDataError, Results, Study, run_key, sort_arms
from vcppo.analysis.picture import Picture, caption, few_enough, over
from vcppo.maths.run_statistics import TWO_ENDS
from vcppo.store.summary import LAST_ITERATIONS

LAMBDAS = (0.95, 0.97, 0.99)
TOKENS = 200  # of the paper's figure
LINES = ("-", (0, (5, 1, 1, 1)), (0, (1, 1)))
METRIC = "advantage/real_reward_share"
BAR = "0.35"


def load(results: Results) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study, its curves, published points (those read off the figure, not the analytic ones)."""
    study = results.study("components", "figure3")
    few_enough(study, "figure3")
    paper = results.published("figure3")
    return study, study.need("curves", "figure3"), paper[paper["reading"] != "analytic"] if len(paper) else paper


def decay(lambdas: tuple[float, ...] = LAMBDAS, tokens: int = TOKENS) -> pd.DataFrame:
    """Return a terminal reward's weight at `distance` tokens before it, columns lambda, distance, weight.

    >>> decay((0.5,), 2)["weight"].tolist()
    [1.0, 0.5, 0.25]
    """
    distance = np.arange(tokens + 1)
    return pd.concat(
        [pd.DataFrame({"lambda": one, "distance": distance, "weight": one**distance}) for one in lambdas],
        ignore_index=True,
    )


def compute(curves: pd.DataFrame, apart: Collection[str] = (), *, shared_draws: bool) -> pd.DataFrame:
    """Return the real reward's share in an advantage (%), columns arm, when (start, end), centre, low, high, seeds.

    Start: iteration 0; end: mean of the last iterations of each seed.
    """
    shares = summary.metric(curves, METRIC, scale=100).sort_values("step")
    start = shares[shares["step"] == 0].assign(when="start")
    key = ["arm", *run_key(shares)]
    end = shares.groupby(key).tail(LAST_ITERATIONS).groupby(key, as_index=False)["value"].mean()
    both = pd.concat([start, end.assign(when="end")])
    return summary.over_seeds(both, ["arm", "when"], apart, shared_draws=shared_draws)


def draw(computed: pd.DataFrame, paper: pd.DataFrame) -> Any:
    """Draw left analytic decay with published points, right the measured share, start to end, one row per arm."""
    arms = sort_arms(computed["arm"].unique())
    figure, axes = style.new_figure(style.PAGE, max(2.2, 0.7 + 0.2 * len(arms)), 1, 2)
    left, right = axes[0]
    for (one, curve), line in zip(decay().groupby("lambda"), LINES, strict=True):
        left.plot(
            curve["distance"], curve["weight"], linestyle=line, color="black", linewidth=1.0, label=f"λ = {one:g}"
        )
    if len(paper):
        looks = {**style.PUBLISHED, "linestyle": "none"}
        left.plot(paper["distance_tokens"], paper["value"], label="published points", **looks)
    left.set(
        xlabel="distance to the end of the answer (tokens)", ylabel="weight of the final reward", ylim=(-0.03, 1.05)
    )
    left.legend(loc="upper right")
    style.title(left, "a", "λ to the power of the distance")
    looks_of = style.arm_styles(arms)
    for row, arm in enumerate(arms):
        shares, look = computed[computed["arm"] == arm].set_index("when"), looks_of[arm]
        if "start" in shares.index:
            right.plot(shares.loc["start", "centre"], row, marker="|", color=BAR, markersize=9, linestyle="none")
        end = shares.loc["end"]
        right.plot([end["low"], end["high"]], [row, row], color=look.colour, linewidth=1.2)
        right.plot(end["centre"], row, marker=look.marker, color=look.colour, markersize=4.5)
    right.set_yticks(range(len(arms)), [looks_of[arm].label for arm in arms])
    right.set(ylim=(len(arms) - 0.4, -0.6), xlim=(-3, 104), xlabel="weight of the final reward (%)")
    right.plot([], [], marker="|", color=BAR, markersize=9, linestyle="none", label="start")
    right.plot([], [], marker="o", color="black", markersize=4.5, linestyle="none", label="end of training")
    right.legend(loc="lower right", bbox_to_anchor=(1.02, 0.995), ncols=2, handletextpad=0.2, columnspacing=1)
    style.title(right, "b", "measured")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, curves, paper = load(results)
    apart = summary.arms_apart(study.runs)
    computed = compute(curves, apart, shared_draws=study.shared_draws)
    if computed.empty:
        raise NoDataError(f"figure3: no {METRIC} in the curves of components; make it with: {study.command}")
    text = (
        "(a) Weight λ^distance with which a reward at the end of an answer enters an earlier token's advantage without "
        "passing through the critic; analytic. (b) That weight averaged over the tokens the actor trained on: at "
        f"iteration 0 (bar) and over the last {LAST_ITERATIONS} iterations (marker). It depends on λ actor and on "
        "length alone."
    )
    return Picture(
        "figure3",
        draw(computed, paper),
        caption("Figure 3, decay of the reward signal.", text, study,
                interval=f"Marker: mean over runs; line: 95 % percentile bootstrap over {over(study)}; of arms whose "
                f"runs end {TWO_ENDS} the median, without a line.",
                published="arXiv 2503.01491, figure 3, points read off it and quoted in notes."),
    )  # fmt: skip
