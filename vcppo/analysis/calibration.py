"""Is a state that the critic values at v worth v? Before and after value pretraining."""

from typing import Any

import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.figure2 import LOOKS, pretraining_ends
from vcppo.analysis.picture import Picture, caption

FEW = 0.002  # bins with a smaller share of a table's tokens are left out
SMALLEST, LARGEST = 4.0, 70.0  # marker areas, points²


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study and its calibration tables."""
    study = results.study("components", "calibration")
    return study, study.need("calibration", "calibration")


def compute(tables: pd.DataFrame) -> pd.DataFrame:
    """Return columns when (before, after), base_seed, seed, predicted_mean, return_mean, share (of the table's tokens).

    Bins are those of each seed's table; they differ between seeds and are not averaged.
    """
    ends = pretraining_ends(tables)
    ends["share"] = ends["n"] / ends.groupby(["when", *run_key(ends)])["n"].transform("sum")
    ends = ends[ends["share"] >= FEW].dropna(subset=["predicted_mean", "return_mean"])
    key = ["when", *run_key(ends)]
    return ends[[*key, "predicted_mean", "return_mean", "share"]].sort_values(
        [*key, "predicted_mean"], ignore_index=True
    )


def draw(computed: pd.DataFrame) -> Any:
    """Draw points, calibrated on the diagonal; their areas show the tokens of each."""
    figure, axes = style.new_figure(style.COLUMN, 2.9)
    panel = axes[0, 0]
    both = computed[["predicted_mean", "return_mean"]].to_numpy()
    low, high = both.min(), both.max()
    panel.plot([low, high], [low, high], color="0.6", linewidth=0.7, zorder=0)
    for when in ("before", "after"):
        look = LOOKS[when]
        rows = computed[computed["when"] == when]
        for _, one in rows.groupby(run_key(rows), sort=True):
            panel.plot(one["predicted_mean"], one["return_mean"], color=look.colour, linestyle=look.line, linewidth=0.7)
            areas = SMALLEST + (LARGEST - SMALLEST) * one["share"]
            panel.scatter(one["predicted_mean"], one["return_mean"], s=areas, color=look.colour, marker=look.marker,
                          linewidths=0.3, edgecolors="white", zorder=3)  # fmt: skip
        if len(rows):
            panel.plot(
                [], [], color=look.colour, linestyle=look.line, marker=look.marker, linewidth=0.7, label=look.label
            )
    panel.set(xlabel="predicted value (reward)", ylabel="mean Monte-Carlo return (reward)")
    panel.legend(loc="best")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, tables = load(results)
    computed = compute(tables)
    if computed.empty:
        raise NoDataError(f"calibration: no value-pretraining rows in components/calibration.csv; "
                          f"make it with: {study.command}")  # fmt: skip
    critics = len(computed[run_key(computed)].drop_duplicates())
    text = (
        "Mean return of the tokens that the critic valued alike, in bins of equal width, before and after value "
        f"pretraining; a line a critic (n = {critics}), areas by the share of tokens, bins below "
        f"{100 * FEW:g} % of them left out. On the grey diagonal the critic is right on average."
    )
    return Picture("calibration", draw(computed), caption("The critic's calibration.", text, study,
                                                          interval="Seeds are drawn singly, no interval."))  # fmt: skip
