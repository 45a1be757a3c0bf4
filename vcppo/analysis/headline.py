"""The headline: PPO and VC-PPO side by side, length and accuracy, measured."""

from collections.abc import Collection
from typing import Any

import pandas as pd

from vcppo.analysis import style, summary, training
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.picture import Picture, caption, curve_interval

ARMS = ("ppo", "vcppo")
MARKS = 8  # markers per curve


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study and the curves of the two arms."""
    study = results.study("components", "headline")
    curves = study.need("curves", "headline")
    curves = curves[curves["arm"].isin(ARMS)]
    if set(curves["arm"].unique()) != set(ARMS):
        raise NoDataError(
            f"headline: components lacks finished runs of {' or '.join(ARMS)}; make it with: {study.command}"
        )
    return study, curves


def compute(
    curves: pd.DataFrame, apart: Collection[str] = (), *, shared_draws: bool
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Return length, then accuracy: each as (runs, summary over them)."""
    return [
        training.compute(curves, kind, apart, shared_draws=shared_draws)
        for kind in (training.LENGTH, training.ACCURACY)
    ]


def draw(computed: list[tuple[pd.DataFrame, pd.DataFrame]]) -> Any:
    """Draw left length, right accuracy."""
    figure, axes = style.new_figure(style.PAGE, 2.1, 1, 2)
    looks = style.arm_styles(ARMS)
    for place, (panel, (seeds, centres)) in enumerate(zip(axes[0], computed, strict=True)):
        kind = (training.LENGTH, training.ACCURACY)[place]
        for arm, look in looks.items():
            one = centres[centres["arm"] == arm]
            style.seed_lines(panel, seeds[seeds["arm"] == arm], "step", look)
            every = max(1, len(one) // MARKS)
            marks = {"marker": look.marker, "markevery": every, "markersize": 4, "clip_on": False}
            style.band(panel, one, "step", look, **marks)
        panel.set(xlabel="RL iteration", ylabel=kind.label, xlim=(0, max(1, centres["step"].max())))
        if place:
            style.percent(panel)
        else:
            panel.set_ylim(bottom=0)
            panel.legend(loc="best")
        style.title(panel, "ab"[place], ("answer length", "accuracy")[place])
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, curves = load(results)
    text = (
        "Mean length of a sampled answer (a) and share of right answers (b) along training, PPO and VC-PPO. The "
        "symptom is that of arXiv 2503.01491, the cause here another (docs/results.md)."
    )
    compared = summary.improvement(study.runs, ARMS[1], ARMS[0])
    text += (
        f" A run of VC-PPO ends above one of PPO in {compared.won:g} of {compared.pairs} pairs; p of a permutation "
        f"test: {summary.p_value(compared.p)}."
    )
    return Picture(
        "headline",
        draw(compute(curves, summary.arms_apart(study.runs), shared_draws=study.shared_draws)),
        caption("PPO and VC-PPO.", text, study, arms=ARMS, interval=curve_interval(study, ARMS)),
    )
