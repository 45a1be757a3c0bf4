"""The critic's error by token position along training: value bias and explained variance, PPO against VC-PPO."""

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import figure6, style, summary
from vcppo.analysis.data import NoDataError, Results, Study, run_key, sort_arms
from vcppo.analysis.figure2 import RARE
from vcppo.analysis.headline import ARMS
from vcppo.analysis.picture import Picture, caption, curve_interval

PLACES = (0.0, 1 / 6, 1 / 2, 1.0)  # of training: where the critic is looked at
COLOURS = ("#9ecae1", "#5b9bd0", "#1f6cb0", "#08306b")  # pale early, dark late: reads in grey
LINES = ((0, (1, 1)), (0, (4, 1.5)), (0, (5, 1, 1, 1)), "-")
FLOOR = -2.0  # explained variance below this is drawn here
QUANTITIES = (("value_bias", "value bias (reward)"), ("explained_variance", "explained variance"))


def load(results: Results) -> tuple[Study, pd.DataFrame]:
    """Return the study and its tables by position, of RL, counted from the start of the response."""
    study = results.study("components", "critic-error")
    rows = study.need("positions", "critic-error")
    rows = rows[(rows["stage"] == "rl") & ~rows["from_end"] & rows["arm"].isin(ARMS)]
    if rows.empty:
        raise NoDataError(f"critic-error: no rl rows of {' or '.join(ARMS)} in components/positions.parquet; "
                          f"make it with: {study.command}")  # fmt: skip
    return study, rows


def compute(rows: pd.DataFrame, apart: Collection[str] = (), *, shared_draws: bool) -> pd.DataFrame:
    """Return arm, step, quantity, position, centre, low, high, seeds at four iterations spread over training."""
    steps = np.sort(rows["step"].unique())
    chosen = sorted({float(steps[np.abs(steps - place * steps[-1]).argmin()]) for place in PLACES})
    rows = rows[rows["step"].isin(chosen)]
    rows = rows[rows["n"] >= RARE * rows.groupby(["arm", *run_key(rows), "step"])["n"].transform("max")]
    names = [name for name, _ in QUANTITIES]
    key = ["arm", "step", *run_key(rows), "position"]
    long = rows.melt(id_vars=key, value_vars=names, var_name="quantity").dropna()
    long["curve"] = long["arm"] + "|" + long["step"].astype(int).astype(str) + "|" + long["quantity"]
    split = set(long.loc[long["arm"].isin(list(apart)), "curve"])
    curves = summary.over_seeds(long, ["curve", "position"], split, shared_draws=shared_draws)
    curves[["arm", "step", "quantity"]] = curves.pop("curve").str.split("|", expand=True).to_numpy().reshape(-1, 3)
    return curves.astype({"step": int})[["arm", "step", "quantity", "position", *summary.SUMMARY]]


def draw(computed: pd.DataFrame) -> Any:
    """Draw rows: value bias, explained variance; columns: arms; lines: iterations."""
    arms, steps = sort_arms(computed["arm"].unique()), sorted(computed["step"].unique())
    figure, axes = style.new_figure(style.PAGE, 3.3, 2, len(arms), sharex=True, sharey="row")
    labels = style.arm_styles(arms)
    for row, (quantity, label) in enumerate(QUANTITIES):
        for column, arm in enumerate(arms):
            panel = axes[row, column]
            for place, step in enumerate(steps):
                one = computed[(computed[["arm", "step", "quantity"]] == [arm, step, quantity]).all(axis=1)]
                if quantity == "explained_variance":
                    one = one.assign(**{name: one[name].clip(lower=FLOOR) for name in ("centre", "low", "high")})
                at = place if len(steps) == len(LINES) else place + len(LINES) - len(steps)
                style.band(panel, one, "position", style.ArmStyle(f"iteration {step}", COLOURS[at], LINES[at], ""))
            panel.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            style.title(panel, "abcd"[row * len(arms) + column], labels[arm].label)
            if not column:
                panel.set_ylabel(label)
            if row:
                panel.set_xlabel("token position in the answer")
    axes[1, 0].set_ylim(FLOOR - 0.05, 1.08)
    axes[0, 0].legend(loc="best", ncols=2)
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, rows = load(results)
    computed = compute(rows, summary.arms_apart(study.runs), shared_draws=study.shared_draws)
    text = (
        "Value bias, mean of value minus Monte-Carlo return (top), and explained variance of those returns (bottom), "
        f"by token position, at iterations {', '.join(map(str, sorted(computed['step'].unique())))}. Explained "
        f"variance below {FLOOR:g} is drawn at {FLOOR:g}; it is unknown where all returns of a bin are equal. Bins "
        f"that fewer than {100 * RARE:g} % of the answers reach are left out."
    )
    ceiling = results.of_base(figure6.CEILING)
    if ceiling is not None:
        text += f" Over all tokens of the first policy its ceiling is {ceiling[0]:.3f}, not 1 (figure 6)."
    interval = curve_interval(study, ARMS, lines=False)
    return Picture("critic-error", draw(computed), caption("The critic's error along training.", text, study,
                                                           arms=ARMS, interval=interval))  # fmt: skip
