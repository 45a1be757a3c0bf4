"""Figure 1: plain PPO's responses shorten until none is right. Measured above, published below."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.picture import Picture, caption, curve_interval

METRICS = ("rollout/length_tokens", "rollout/accuracy")
LABELS = ("answer length (tokens)", "accuracy (%)")


@dataclass(frozen=True)
class Inputs:
    """PPO's runs of the study `components`, and the two published curves."""

    study: Study
    curves: pd.DataFrame
    published: tuple[pd.DataFrame, pd.DataFrame]


def load(results: Results) -> Inputs:
    """Return the rows this figure needs; NoDataError if there is no run of PPO."""
    study = results.study("components", "figure1")
    curves = study.need("curves", "figure1")
    if "ppo" not in curves["arm"].unique():
        raise NoDataError(f"figure1: components has no finished run of ppo; make it with: {study.command}")
    return Inputs(study, curves, (results.published("figure1a"), results.published("figure1b")))


def compute(
    curves: pd.DataFrame, apart: Collection[str] = (), *, shared_draws: bool
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Return length in tokens, then accuracy in per cent: each as (runs, summary over them) of the arm ppo."""
    seeds = [summary.metric(curves, name, ["ppo"], scale) for name, scale in zip(METRICS, (1, 100), strict=True)]
    return [(values, summary.over_seeds(values, ["arm", "step"], apart, shared_draws=shared_draws)) for values in seeds]


def draw(computed: list[tuple[pd.DataFrame, pd.DataFrame]], published: tuple[pd.DataFrame, pd.DataFrame]) -> Any:
    """Draw rows: measured, published; columns: length, accuracy."""
    figure, axes = style.new_figure(style.PAGE, 3.3, 2, 2)
    look = style.arm_styles(["ppo"])["ppo"]
    for column, ((seeds, centre), paper, label) in enumerate(zip(computed, published, LABELS, strict=True)):
        above, below = axes[0, column], axes[1, column]
        style.seed_lines(above, seeds, "step", look)
        style.band(above, centre, "step", look)
        style.published(below, paper, "step", scale=100 if column else 1)
        style.title(above, "ab"[column], "PPO, measured")
        style.title(below, "cd"[column], f"PPO, {style.PUBLISHED_TITLE}")
        for panel, unit in ((above, "RL iteration"), (below, "step")):
            panel.set_xlabel(unit)
            panel.set_ylabel(label if panel is above or not column else "AIME accuracy (%)")
            panel.set_ylim(bottom=0)
            panel.set_xlim(left=0)
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    inputs = load(results)
    apart = summary.arms_apart(inputs.study.runs)
    computed = compute(inputs.curves, apart, shared_draws=inputs.study.shared_draws)
    text = (
        "Mean length of a sampled answer (a) and share of right answers (b) while PPO trains from a critic that is the "
        "reward model, both λ 0.95; (c, d) the same symptom in the paper, of another model, task and scale, and of "
        "another cause (docs/results.md)."
    )
    return Picture(
        "figure1",
        draw(computed, inputs.published),
        caption("Figure 1, PPO's collapse.", text, inputs.study, arms=["ppo"],
                interval=curve_interval(inputs.study, ["ppo"]),
                published="arXiv 2503.01491, figure 1, digitised; single run."),
    )  # fmt: skip
