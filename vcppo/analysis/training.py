"""Accuracy (figure 4) and length during training: a small panel for each arm, the published curve in another."""

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import REFERENCE, NoDataError, Results, Study, sort_arms
from vcppo.analysis.picture import Picture, caption, curve_interval, few_enough

COLUMNS = 4  # panels per row
WRAP = 27  # letters of a panel's title, a line
NOTHING = 0.02  # accuracy below which a run solves nothing


@dataclass(frozen=True)
class Kind:
    """One quantity along training."""

    metric: str
    scale: float
    label: str
    what: str


ACCURACY = Kind("rollout/accuracy", 100, "accuracy (%)", "Share of right answers among those sampled for training")
LENGTH = Kind("rollout/length_tokens", 1, "length (tokens)", "Mean length of the answers sampled for training")


def load(results: Results, study_name: str, figure: str) -> tuple[Study, pd.DataFrame]:
    """Return the study and its curves, if it has no more arms than fit on a page."""
    study = results.study(study_name, figure)
    few_enough(study, figure)
    return study, study.need("curves", figure)


def compute(
    curves: pd.DataFrame, kind: Kind, apart: Collection[str] = (), *, shared_draws: bool
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return (arm, base_seed, seed, step, value) and its summary over runs; of arms that are `apart` the median."""
    values = summary.metric(curves, kind.metric, scale=kind.scale)
    return values, summary.over_seeds(values, ["arm", "step"], apart, shared_draws=shared_draws)


def draw(
    values: pd.DataFrame,
    centres: pd.DataFrame,
    kind: Kind,
    lost: Mapping[str, str],
    ends: Mapping[str, str],
    paper: pd.DataFrame | None,
) -> Any:
    """Draw one panel per arm on shared axes, PPO's centre repeated in each as a dotted line.

    Args:
        lost: arm -> "1 of 5 failed", for arms that lost runs; arms of it without any curve have an empty panel.
        ends: arm -> "4 of 5 end below 2 %", for arms that end in two ways; every run of them is drawn darker.
        paper: the published curve for a last panel with separate axes; None for none.
    """
    arms = sort_arms({*centres["arm"], *lost})
    panels = len(arms) + (paper is not None)
    columns = min(COLUMNS, panels)
    rows = -(-panels // columns)
    figure, grid = style.new_figure(style.PAGE, 0.45 + 1.35 * rows, rows, columns)
    axes, looks = grid.ravel(), style.arm_styles(arms)
    measured = axes[: len(arms)]
    for panel, arm in zip(measured, arms, strict=True):
        one, look = centres[centres["arm"] == arm], looks[arm]
        reference = centres[centres["arm"] == REFERENCE]
        if arm != REFERENCE and len(reference):
            panel.plot(reference["step"], reference["centre"], color=looks[REFERENCE].colour,
                       linestyle=(0, (1, 1.2)), linewidth=0.9)  # fmt: skip
        style.seed_lines(panel, values[values["arm"] == arm], "step", look, alone=arm in ends)
        style.band(panel, one, "step", look, linestyle="-")
        if one.empty:
            style.nothing(panel, "no finished run")
        ending = f"\n{ends[arm]}" if arm in ends else ""
        panel.set_title(textwrap.fill(look.label, WRAP) + ending, fontsize=7)
        if arm in lost:
            panel.text(0.98, 0.02, lost[arm], transform=panel.transAxes, ha="right", va="bottom", fontsize=6)
        panel.set_xlim(0, max(1, centres["step"].max()))
        if kind is ACCURACY:
            style.percent(panel)
        else:
            panel.set_ylim(0, 1.05 * values["value"].max())
    for place, panel in enumerate(measured):
        panel.tick_params(labelleft=place % columns == 0, labelbottom=place + columns >= len(arms))
        panel.set_xlabel("RL iteration" if place // columns == (len(arms) - 1) // columns else "")
        panel.set_ylabel(kind.label if place % columns == 0 else "")
    for panel in axes[panels:]:
        panel.remove()
    if paper is not None:
        beside = axes[len(arms)]
        name = "PPO" if kind is LENGTH else "VC-PPO"
        style.published(beside, paper, "step")
        beside.set_title(f"{name}, published", fontsize=7)
        beside.set_xlabel("step")
        beside.set_ylim(0)
        beside.set_xlim(0)
    return figure


def make(results: Results, study_name: str, kind: Kind, name: str) -> Picture:
    """load -> compute -> draw; beside the study `components` stands the published curve."""
    study, curves = load(results, study_name, name)
    values, centres = compute(curves, kind, summary.arms_apart(study.runs), shared_draws=study.shared_draws)
    if values.empty:
        raise NoDataError(f"{name}: no {kind.metric} in the curves of {study.name}; make it with: {study.command}")
    source = "figure4" if kind is ACCURACY else "figure1a"
    paper = results.published(source) if study_name == "components" else None
    title = "Figure 4, accuracy during training." if name == "figure4" else f"{kind.label.split(' (')[0].capitalize()}."
    has_reference = REFERENCE in study.arms and len(study.arms) > 1
    text = f"{kind.what}, an arm a panel" + (", PPO's repeated in each as a dotted line." if has_reference else ".")
    quoted = f"arXiv 2503.01491, figure {source[6:]}, digitised; single run, other model, task and scale."
    return Picture(
        name,
        draw(values, centres, kind, lost_runs(study), two_ends(study), paper),
        caption(title, text, study, interval=curve_interval(study), published=quoted if paper is not None else ""),
    )


def two_ends(study: Study) -> dict[str, str]:
    """Return arm -> how many of its runs end at nothing, for arms that end in two ways (`summary.arms_apart`)."""
    texts = {}
    for arm in sort_arms(summary.arms_apart(study.runs)):
        scores = summary.final_scores(study.runs, arm)
        texts[arm] = f"{int((scores < NOTHING).sum())} of {len(scores)} end below {100 * NOTHING:g} %"
    return texts


def lost_runs(study: Study) -> dict[str, str]:
    """Return arm -> how many of its runs did not finish, for arms where some did not."""
    losses = {}
    for arm, runs in study.runs.groupby("arm", sort=True):
        lost = runs["status"][runs["status"] != "done"].value_counts().sort_index()
        if len(lost):
            losses[str(arm)] = ", ".join(f"{number} of {len(runs)} {status}" for status, number in lost.items())
    return losses
