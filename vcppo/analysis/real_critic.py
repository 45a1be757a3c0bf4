"""The critic of a real model by token position: value less return of its reward model, raw and in units of reward, and
of what value pretraining makes of each; the published error beside."""

from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.figure2 import RARE, pretraining_ends
from vcppo.analysis.picture import Picture, caption

NAME = "real-critic"
LOOKS = {  # arms, by where the critic starts from
    "reward-model": style.ArmStyle("reward model", "#c44601", style.DOT, "s"),
    "fitted": style.ArmStyle("in units of reward", "#b07aa1", style.DASH, "X"),
}
PANELS = (
    ("reward model as it is", "before", ("reward-model",)),
    ("in units of reward", "before", ("fitted",)),
    ("after value pretraining", "after", ("reward-model", "fitted")),
)
QUANTILE = NormalDist().inv_cdf(0.975)


def load(results: Results) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study, its tables of value pretraining from the start of the response, published curves."""
    study = results.study(NAME, NAME, seeds=1)
    rows = study.need("positions", NAME)
    rows = rows[(rows["stage"] == "value-pretraining") & ~rows["from_end"] & rows["arm"].isin(list(LOOKS))]
    if rows.empty:
        raise NoDataError(f"{NAME}: no value-pretraining rows of {' or '.join(LOOKS)} in {NAME}/positions.parquet; "
                          f"make it with: {study.command}")  # fmt: skip
    return study, rows, results.published("figure2")


def compute(rows: pd.DataFrame) -> pd.DataFrame:
    """Return columns arm, when, position, centre, low, high, runs, of bins that are not rare.

    Centre: mean over runs of value less return. The interval is over held-out responses alone: returns are 1 or -1, so
    those of a bin vary by 1 - mean², of which the critic leaves the share 1 - explained variance. A response counts
    once in a bin, whose tokens share its return: n tokens are of n / width responses at least. No interval (NaN) where
    all returns of a bin are equal.
    """
    ends = pd.concat([pretraining_ends(rows[rows["arm"] == arm]) for arm in sorted(rows["arm"].unique())])
    ends = ends[ends["n"] >= RARE * ends.groupby(["arm", "when", *run_key(ends)])["n"].transform("max")]
    width = np.diff(np.unique(rows["position"])).min(initial=np.inf)
    responses = ends["n"] / (width if np.isfinite(width) else 1)
    left = (1 - ends["explained_variance"]) * (1 - ends["return_mean"] ** 2)
    ends = ends.assign(variance=(left / responses).where(left >= 0))
    curves = ends.groupby(["arm", "when", "position"], as_index=False).agg(
        centre=("value_bias", "mean"), variance=("variance", lambda some: some.sum(skipna=False)),
        runs=("value_bias", "size"),
    )  # fmt: skip
    half = QUANTILE * np.sqrt(curves.pop("variance")) / curves["runs"]
    curves = curves.assign(low=curves["centre"] - half, high=curves["centre"] + half)
    return curves[["arm", "when", "position", "centre", "low", "high", "runs"]]


def draw(rows: pd.DataFrame, computed: pd.DataFrame, paper: pd.DataFrame) -> Any:
    """Draw left to right: the panels of PANELS, then the published error."""
    figure, axes = style.new_figure(style.PAGE, 2.1, 1, len(PANELS) + 1, sharey=True)
    for panel, letter, (text, when, arms) in zip(axes[0], "abc", PANELS, strict=False):
        for arm in arms:
            curve = computed[(computed["arm"] == arm) & (computed["when"] == when)]
            of_arm = pretraining_ends(rows[rows["arm"] == arm])
            runs = of_arm[(of_arm["when"] == when) & of_arm["position"].isin(curve["position"])]
            style.seed_lines(panel, runs.rename(columns={"value_bias": "value"}), "position", LOOKS[arm])
            style.band(panel, curve, "position", LOOKS[arm])
        style.title(panel, letter, text)
    axes[0, 2].legend(loc="best", title="started from", title_fontsize=6.5)
    error = paper[paper["metric"] == "advantage_mean"] if len(paper) else paper
    style.published(axes[0, 3], error.assign(value=-error["value"]), "position")
    style.title(axes[0, 3], "d", "reward model, published")
    for panel in axes[0]:
        panel.axhline(0, color="0.8", linewidth=0.6, zorder=0)
        panel.set_xlabel("token of the response")
    axes[0, 0].set_ylabel("value less return (reward)")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, rows, paper = load(results)
    computed = compute(rows)
    runs = int(computed["runs"].max())
    text = (
        "Value less Monte-Carlo return by token position, on held-out responses of the fixed cold-start policy, of a "
        "critic that is the reward model (a), the reward model with scale and origin fitted to the rewards (b), and "
        f"what value pretraining makes of each (c), n = {runs} critics a line; beside it the published error of a "
        f"reward model (d). Bins that fewer than {100 * RARE:g} % of the responses reach are left out."
    )
    interval = (
        "Line: mean over runs; band: 95 % interval by the normal distribution, over the held-out responses of these "
        "runs and not over bases; thin lines: single runs, where there are several."
    )
    return Picture(
        NAME,
        draw(rows, computed, paper),
        caption("The critic of a real model, before and after value pretraining.", text, study, interval=interval,
                published="arXiv 2503.01491, figure 2, its advantage with the sign changed, digitised; single run."),
    )  # fmt: skip
