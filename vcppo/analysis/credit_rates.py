"""Accuracy of each arm at each rate, of the policy or of the critic, or at each sight of the critic."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.critic_worth import mean_gain, worth
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, over
from vcppo.maths.run_statistics import APART

MEASURES = {"mean": "mean along training", "end": "at the end"}


@dataclass(frozen=True)
class Swept:
    """Which number a study sweeps: its setting, what a reader calls it, and what the study asks.

    A rate is drawn in its logarithm, and each arm is best somewhere; a share is not, and more of it is just more.
    """

    setting: str
    label: str
    question: str
    share: bool = False

    def in_print(self, value: float) -> str:
        """One value of it."""
        return f"{value:g}" if self.share else f"{value:.0e}".replace("e-0", "e−")


STUDIES = {
    "credit-rates": Swept("policy.learning_rate", "rate of the policy", "Does the rate decide?"),
    "credit-critic-rates": Swept("critic.learning_rate", "rate of the critic in RL", "Does the critic's rate decide?"),
    "credit-sight": Swept("critic.sight", "sight of the critic", "Which sight allows which λ?", share=True),
}


def load(results: Results, name: str) -> Study:
    """Return the study of that name, one of STUDIES; NoDataError if there is none, or it sweeps no rate."""
    study, rate = results.study(name, name), STUDIES[name].setting
    if rate not in study.runs:
        raise NoDataError(f"{name}: {name}/runs.csv has no column {rate}; make it with: {study.command}")
    study.need("curves", name)
    return study


def compute(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs of one of STUDIES, and their means.

    Returns:
        Runs with columns arm (without its rate), base_seed, seed, rate, mean and end (accuracy, %). Means with columns
        arm, rate, runs, and of either accuracy itself, `_low` and `_high`; those are NaN where runs lie far apart.
    """
    setting = STUDIES[study.name].setting
    rates = study.finished.set_index(["arm", *run_key(study.finished)])[setting].rename("rate")
    runs = worth(study).join(rates, on=["arm", *run_key(study.finished)])
    runs["arm"] = runs["arm"].str.partition(f",{setting}=")[0]
    runs = runs[["arm", *run_key(study.finished), "rate", *MEASURES]]
    means = []
    for (arm, rate), some in runs.groupby(["arm", "rate"], sort=True):
        row = {"arm": arm, "rate": rate, "runs": len(some)}
        for name in MEASURES:
            middle, low, high = mean_gain(some, name, study.name, arm, rate, shared_draws=study.shared_draws)
            row |= {name: middle, f"{name}_low": low, f"{name}_high": high}
        means.append(row)
    return runs, pd.DataFrame(means)


def best(means: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the row of the best rate of each arm, the best arm first."""
    rows = means.loc[means.groupby("arm")[measure].idxmax()]
    return rows.sort_values(measure, ascending=False, ignore_index=True)


def draw(runs: pd.DataFrame, means: pd.DataFrame, swept: Swept) -> Any:
    """Draw accuracy against what is swept, a dot a run and a line an arm; a ring is an arm's best rate."""
    figure, axes = style.new_figure(style.PAGE, 2.6, 1, 2, sharex=True, sharey=True)
    looks = style.arm_styles(sorted(means["arm"].unique()))
    for panel, (name, what), letter in zip(axes[0], MEASURES.items(), "ab", strict=True):
        peaks = best(means, name).set_index("arm")
        for place, (arm, look) in enumerate(looks.items()):
            aside = 2 * place - len(looks) + 1
            factor, shift = (1.0, 0.006 * aside) if swept.share else (np.exp(0.02 * aside), 0.0)
            some, one = runs[runs["arm"] == arm], means[means["arm"] == arm].sort_values("rate")
            dots, at = (factor * rows["rate"].to_numpy(dtype=float) + shift for rows in (some, one))
            panel.plot(dots, some[name], marker="o", markersize=1.8, linestyle="none",
                       color=look.colour, alpha=0.45, markeredgewidth=0, zorder=1)  # fmt: skip
            panel.vlines(at, one[f"{name}_low"], one[f"{name}_high"], color=look.colour, linewidth=1.2, zorder=2)
            panel.plot(at, one[name], color=look.colour, linestyle=look.line, marker=look.marker, linewidth=0.9,
                       markersize=4.6, markeredgecolor="white", markeredgewidth=0.4, zorder=3,
                       label=look.label)  # fmt: skip
            if not swept.share:
                panel.plot(factor * float(peaks["rate"].loc[arm]), peaks.loc[arm, name], marker="o", markersize=9,
                           linestyle="none", markerfacecolor="none", markeredgecolor=look.colour,
                           zorder=2)  # fmt: skip
        panel.set_xscale("linear" if swept.share else "log")
        ticks = sorted(means["rate"].unique())
        panel.set_xticks(ticks, [swept.in_print(tick) for tick in ticks])
        panel.minorticks_off()
        panel.set(xlabel=swept.label, ylim=(0, 100))
        style.title(panel, letter, what)
    axes[0, 0].set_ylabel("accuracy (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


def make(results: Results, name: str) -> Picture:
    """load -> compute -> draw."""
    study, swept = load(results, name), STUDIES[name]
    runs, means = compute(study)
    text = (
        f"Accuracy at each {swept.label}, at equal responses: (a) mean over the responses sampled in training, (b) "
        "at the end on held-out problems. Dots are runs."
    )
    if not swept.share:
        at_best = "; ".join(
            f"{what}: "
            + ", ".join(
                f"{style.arm_label(str(row['arm']))} {row[measure]:.1f} at {swept.in_print(row['rate'])}"
                for row in best(means, measure).to_dict("records")
            )
            for measure, what in MEASURES.items()
        )
        text += f" A ring is an arm's best rate. At their best, {at_best}."
    interval = (
        f"Marker: mean over runs; bar: 95 % percentile bootstrap over {over(study)}, none where runs lie more than "
        f"{100 * APART:g} points apart."
    )
    figure = draw(runs, means, swept)
    return Picture(name, figure, caption(swept.question, text, study, interval=interval))
