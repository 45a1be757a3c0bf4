"""End of every single run: one point a run."""

from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, few_enough
from vcppo.analysis.training import lost_runs
from vcppo.maths.run_statistics import TWO_ENDS, ends_apart

SPREAD = 0.22  # how far runs of one row are set apart
COLLAPSE = 0.25


def load(results: Results, study_name: str, name: str) -> Study:
    """Return a study with no more arms than fit on a page, and a finished run."""
    study = results.study(study_name, name)
    few_enough(study, name)
    if study.finished.empty:
        raise NoDataError(f"{name}: no run of {study_name} is finished; go on with: {study.command}")
    return study


def compute(study: Study) -> pd.DataFrame:
    """Return a row per finished run: arm, base_seed, seed, accuracy (avg@k, %), shortest (least length / first)."""
    done = study.finished.sort_values(["arm", *run_key(study.finished)])
    return pd.DataFrame(
        {
            "arm": done["arm"],
            **{name: done[name] for name in run_key(done)},
            "accuracy": 100 * done["avg_at_k"],
            "shortest": done["min_length_fraction"],
        }
    ).reset_index(drop=True)


def draw(computed: pd.DataFrame, arms: list[str], lost: dict[str, str], k: float) -> Any:
    """Draw left final accuracy, right the lowest length during training, as a share of the length at the start."""
    figure, axes = style.new_figure(style.PAGE, 0.75 + 0.21 * len(arms), 1, 2, sharey=True)
    looks = style.arm_styles(arms)
    apart = {arm for arm in arms if ends_apart(computed.loc[computed["arm"] == arm, "accuracy"], 100)}
    for row, arm in enumerate(arms):
        runs, look = computed[computed["arm"] == arm], looks[arm]
        offsets = np.linspace(-SPREAD, SPREAD, len(runs)) if len(runs) > 1 else np.zeros(len(runs))
        for panel, name in zip(axes[0], ("accuracy", "shortest"), strict=True):
            known = runs[name].dropna()
            if len(known) > 1:
                middle = known.median() if arm in apart else known.mean()
                panel.plot([middle, middle], [row - 0.34, row + 0.34], color="black", linewidth=1.1, zorder=2)
            panel.plot(runs[name], row + offsets, marker=look.marker, color=look.colour, markersize=3.8,
                       linestyle="none", alpha=0.9, markeredgecolor="white", markeredgewidth=0.3, zorder=3)  # fmt: skip
        if arm in lost:
            axes[0, 1].annotate(lost[arm], (1, row), xycoords=("axes fraction", "data"), xytext=(3, 0),
                                textcoords="offset points", va="center", fontsize=6, color="0.3")  # fmt: skip
    for panel in axes[0]:
        panel.set_ylim(len(arms) - 0.4, -0.6)
        panel.set_yticks(range(len(arms)), [looks[arm].label for arm in arms])
        for row in range(len(arms)):
            panel.axhline(row, color="0.92", linewidth=0.6, zorder=0)
    axes[0, 0].set(xlim=(-3, 103), xlabel=f"final accuracy, avg@{k:g} (%)")
    axes[0, 1].set_xlabel("shortest mean length / length at the start")
    axes[0, 1].set_xlim(-0.03, max(1.05, 1.05 * float(computed["shortest"].max())))
    axes[0, 1].axvline(COLLAPSE, color="0.5", linestyle=(0, (1, 1.2)), linewidth=0.8, zorder=1)
    style.title(axes[0, 0], "a", "how it ended")
    style.title(axes[0, 1], "b", "how short it got")
    return figure


def make(results: Results, study_name: str, name: str) -> Picture:
    """load -> compute -> draw."""
    study = load(results, study_name, name)
    text = (
        f"Each point is one run: (a) its final accuracy on {study.runs['problems'].max():g} held-out "
        "problems; (b) the lowest mean answer length of its training over that at iteration 0, dotted line: a quarter. "
        f"Bars: mean over runs; median where they end {TWO_ENDS}."
    )
    return Picture(
        name,
        draw(compute(study), study.arms, lost_runs(study), study.runs["k"].max()),
        caption("Outcome of every run.", text, study, interval="Every run is drawn, no interval."),
    )
