"""Below which quality a critic is worse than none: gain over GRPO against what the critic explains."""

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from vcppo.analysis import style
from vcppo.analysis.critic_worth import REFERENCE, mean_gain, needed, worth
from vcppo.analysis.data import NoDataError, Results, Study, bases_of, run_key, sort_arms
from vcppo.analysis.picture import Picture, caption, over
from vcppo.analysis.summary import RESAMPLES, rng_for, seeds_of
from vcppo.maths.run_statistics import run_weights
from vcppo.maths.statistics import Interval

GAIN = "gain_mean"
QUALITIES = {"start": "at the start of RL", "along": "mean along RL"}
LAMBDAS = 5  # panels a row


def load(results: Results, study_name: str, name: str) -> Study:
    """Return a study with GRPO and critics whose ceiling was measured."""
    return needed(results.study(study_name, name), name)


def compute(study: Study) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return runs, and where the gain crosses 0.

    Returns:
        Runs with a critic: arm, base_seed, seed, gae_lambda, start, along (quality), gain_mean (points). A row for
        each λ and quality: gae_lambda, quality, runs, then `Crossing`, and low, high as `crossing_interval`.
    """
    runs = worth(study)
    runs = runs[runs["arm"] != REFERENCE].dropna(subset=[GAIN, "gae_lambda", *QUALITIES])
    rows = []
    for gae_lambda, some in runs.groupby("gae_lambda", sort=True):
        for quality in QUALITIES:
            crossed = crossing(some[quality], some[GAIN])
            interval = crossing_interval(some, quality, study.name, gae_lambda, shared_draws=study.shared_draws)
            row = {"gae_lambda": gae_lambda, "quality": quality, "runs": len(some), **crossed._asdict()}
            rows.append({**row, "low": interval.low, "high": interval.high})
    selected = ["arm", *run_key(runs), "gae_lambda", *QUALITIES, GAIN]
    columns = ["gae_lambda", "quality", "runs", *Crossing._fields, "low", "high"]
    return runs[selected].reset_index(drop=True), pd.DataFrame(rows, columns=columns)


class Crossing(NamedTuple):
    """Qualities at which a loss turns into a gain. All infinite if every critic loses, minus infinite if none does."""

    loses: float  # the best quality at which the fit is a loss
    at: float  # where a straight line between the two others passes 0
    gains: float  # the least quality at which it is none


def crossing(quality: ArrayLike, gain: ArrayLike, weights: ArrayLike | None = None) -> Crossing:
    """Return the quality at which the gain turns from loss to gain, were a better critic never worth less.

    The gain is fitted by isotonic regression. Between `loses` and `gains` lies no run, so that nothing but the
    straight line tells of `at`.

    Args:
        quality, gain: [runs]. weights: [runs] of each, 0 for one that is left out; by default alike.

    >>> tuple(crossing([0.0, 0.5, 1.0], [-10.0, -2.0, 6.0]))
    (0.5, 0.625, 1.0)
    >>> crossing([0.0, 1.0], [1.0, 2.0]).at, crossing([0.0], [-1.0]).at
    (-inf, inf)
    """
    share = np.ones(len(np.asarray(quality))) if weights is None else np.asarray(weights, dtype=np.float64)
    some = share > 0
    x, which = np.unique(np.asarray(quality, dtype=np.float64)[some], return_inverse=True)
    total = np.bincount(which, share[some])
    means = np.bincount(which, share[some] * np.asarray(gain, dtype=np.float64)[some]) / total
    fitted = isotonic_regression(means, weights=total).x
    if fitted[0] >= 0:
        return Crossing(-math.inf, -math.inf, -math.inf)
    if fitted[-1] < 0:
        return Crossing(math.inf, math.inf, math.inf)
    after = int(np.argmax(fitted >= 0))
    at = np.interp(0.0, fitted[after - 1 : after + 1], x[after - 1 : after + 1])
    return Crossing(float(x[after - 1]), float(at), float(x[after]))


def crossing_interval(runs: pd.DataFrame, quality: str, *purpose: object, shared_draws: bool) -> Interval:
    """Return the 95 % interval of the crossing: runs resampled as `run_draws` does, with all arms of each.

    From the 2.5 % quantile of `loses` to the 97.5 % quantile of `gains`; its ends may be infinite. With one base and
    seed the two themselves.
    """
    key = run_key(runs)
    units = pd.MultiIndex.from_frame(runs[key]) if len(key) > 1 else pd.Index(runs[key[0]])
    named = units.unique()
    x, y, place = runs[quality].to_numpy(), runs[GAIN].to_numpy(), named.get_indexer(units)
    if len(named) == 1:
        crossed = crossing(x, y)
        return Interval(crossed.loses, crossed.gains)
    seeds, rng = seeds_of(named, shared_draws), rng_for("crossing", quality, *purpose)
    shares = run_weights(bases_of(named), seeds, rng=rng, resamples=RESAMPLES)
    drawn = [crossing(x, y, share[place]) for share in shares]
    low = np.quantile([one.loses for one in drawn], 0.025, method="inverted_cdf")
    high = np.quantile([one.gains for one in drawn], 0.975, method="inverted_cdf")
    return Interval(float(low), float(high))


def draw(runs: pd.DataFrame, crossings: pd.DataFrame, study: Study) -> Any:
    """Draw a column for each λ of the actor, above quality at the start, below along RL; a point a run, arms marked."""
    lambdas = sorted(runs["gae_lambda"].unique())
    figure, axes = style.new_figure(style.PAGE, 4.3, len(QUALITIES), len(lambdas), sharex=True, sharey=True)
    arms = sort_arms(runs["arm"].unique())
    looks = style.arm_styles(arms)
    left, right = min(-0.15, 1.05 * float(runs[list(QUALITIES)].to_numpy().min())), 1.12
    for row, (quality, what) in enumerate(QUALITIES.items()):
        for column, gae_lambda in enumerate(lambdas):
            panel, here = axes[row, column], runs[runs["gae_lambda"] == gae_lambda]
            for arm in sort_arms(here["arm"].unique()):
                _arm(panel, here[here["arm"] == arm], quality, looks[arm], study, arm)
            crossed = crossings[(crossings["gae_lambda"] == gae_lambda) & (crossings["quality"] == quality)].iloc[0]
            if math.isfinite(crossed["at"]):
                panel.axvline(crossed["at"], color="black", linewidth=0.9, zorder=1)
                ends = max(left, crossed["low"]), min(right, crossed["high"])
                panel.axvspan(*ends, color="0.5", alpha=0.15, linewidth=0, zorder=0)
            panel.axhline(0, **style.REFERENCE_LINE)
            panel.set_xlim(left, right)
            panel.tick_params(labelbottom=True)
            if column == len(lambdas) // 2:
                panel.set_xlabel(f"quality of the critic, {what}")
            if row == 0:
                style.title(panel, "abcdefgh"[column], f"λ = {gae_lambda:g}")
    figure.supylabel("mean accuracy along training, less GRPO's (points)", fontsize=style.RC["axes.labelsize"])
    marks = [{"marker": looks[arm].marker, "color": looks[arm].colour} for arm in arms]
    handles = [axes[0, 0].plot([], [], linestyle="none", **mark)[0] for mark in marks]
    figure.legend(handles, [looks[arm].label for arm in arms], loc="outside upper center", ncols=4)
    return figure


def _arm(panel: Any, runs: pd.DataFrame, quality: str, look: style.ArmStyle, study: Study, arm: str) -> None:
    """Draw the runs of an arm as open points, and their mean with its intervals."""
    panel.plot(runs[quality], runs[GAIN], linestyle="none", marker=look.marker, markersize=3.4, alpha=0.7, zorder=2,
               markerfacecolor="none", markeredgecolor=look.colour, markeredgewidth=0.6)  # fmt: skip
    x, x_low, x_high = mean_gain(runs, quality, study.name, arm, shared_draws=study.shared_draws)
    y, y_low, y_high = mean_gain(runs, GAIN, study.name, arm, shared_draws=study.shared_draws)
    panel.plot([x_low, x_high], [y, y], color=look.colour, linewidth=1.0, zorder=3)
    panel.plot([x, x], [y_low, y_high], color=look.colour, linewidth=1.0, zorder=3)
    panel.plot(x, y, linestyle="none", marker=look.marker, markersize=5.4, color=look.colour,
               markeredgecolor="white", markeredgewidth=0.5, zorder=4)  # fmt: skip


def described(crossings: pd.DataFrame, quality: str) -> str:
    """Describe where the gain crosses 0 at each λ."""
    parts = []
    for row in crossings[crossings["quality"] == quality].to_dict("records"):
        name = f"λ {row['gae_lambda']:g}"
        if math.isinf(row["at"]):
            parts.append(f"{name} {'nowhere, every fit is a loss' if row['at'] > 0 else 'nowhere, no fit is a loss'}")
            continue
        parts.append(f"{name} at {row['at']:.2f} [{_end(row['low'])}, {_end(row['high'])}]")
    return "; ".join(parts)


def make(results: Results, study_name: str, name: str) -> Picture:
    """load -> compute -> draw."""
    study = load(results, study_name, name)
    runs, crossings = compute(study)
    if runs.empty:
        raise NoDataError(f"{name}: no run with a critic beside GRPO in {study_name}; make it with: {study.command}")
    if runs["gae_lambda"].nunique() > LAMBDAS:
        raise NoDataError(f"{name}: {study_name} has more than the {LAMBDAS} λ that a page can hold")
    text = (
        "Each open point is one run: mean accuracy over the responses sampled in training less that of GRPO of the "
        "same base and seed, at equal answers, against the quality of its critic, explained variance over the ceiling "
        "(exact critics: 1). Above, at the start of RL: on the held-out responses of value pretraining, or without "
        "it on the first batch; below, its mean along RL over that of the ceiling. Large: means of arms, bars: 95 % "
        f"percentile bootstraps over {over(study)}. Black line: where the gain turns positive, if a better critic is "
        "never worth less (isotonic regression over runs, a straight line where it passes 0, between two runs); grey: "
        "from the last loss to the first gain of that fit, at the ends of their 95 % intervals, all arms of a base and "
        f"seed resampled together. At the start: {described(crossings, 'start')}. Along: "
        f"{described(crossings, 'along')}."
    )
    return Picture(
        name,
        draw(runs, crossings, study),
        caption("When a critic is worse than none.", text, study, interval="Every run is drawn."),
    )


def _end(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else "none" if value > 0 else "all"
