"""Figure 2: the critic's value of each token of a response, before and after value pretraining."""

from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, curve_interval

COLUMNS = ("value_mean", "advantage_mean", "return_mean")
RARE = 0.05  # bins that fewer than this share of the responses reach are left out
LOOKS = {
    "before": style.ArmStyle("before pretraining", "#c44601", (0, (1, 1)), "s"),
    "after": style.ArmStyle("after pretraining", "#0b4f8a", "-", "o"),
    "return_mean": style.ArmStyle("mean return", "black", "-", ""),
}


def load(results: Results) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study, its table by position, published curves."""
    study = results.study("components", "figure2")
    return study, study.need("positions", "figure2"), results.published("figure2")


def pretraining_ends(positions: pd.DataFrame) -> pd.DataFrame:
    """Return first and last table of the longest value pretraining of each run, with a column `when`: before, after.

    Arms of one base and seed share their pretraining, so one arm stands for all: that which goes furthest, vcppo among
    equals.
    """
    rows = positions[positions["stage"] == "value-pretraining"]
    if rows.empty:
        return rows.assign(when=pd.Series(dtype=str))
    key = run_key(rows)
    reach = rows.groupby(["arm", *key], as_index=False)["step"].agg(last="max")
    reach = reach.assign(preferred=reach["arm"] == "vcppo").sort_values(["last", "preferred", "arm"])
    furthest = rows.merge(reach.groupby(key).tail(1)[["arm", *key, "last"]], on=["arm", *key])
    before = furthest[furthest["step"] == 0].assign(when="before")
    after = furthest[(furthest["step"] == furthest["last"]) & (furthest["last"] > 0)].assign(when="after")
    return pd.concat([before, after], ignore_index=True).drop(columns="last")


def compute(positions: pd.DataFrame, *, shared_draws: bool) -> pd.DataFrame:
    """Return columns quantity, when, position, centre, low, high, seeds, for the bins that are not rare.

    Quantities: value_mean, advantage_mean (return - value: lambda 1, not whitened), return_mean (from `before` alone).
    """
    ends = pretraining_ends(positions[~positions["from_end"]])
    key = ["when", *run_key(ends)]
    reached = ends.groupby(key)["n"].transform("max")
    ends = ends[ends["n"] >= RARE * reached]
    long = ends.melt(id_vars=[*key, "position"], value_vars=list(COLUMNS), var_name="quantity")
    long = long[(long["quantity"] != "return_mean") | (long["when"] == "before")].dropna(subset=["value"])
    long["curve"] = long["quantity"] + " " + long["when"]
    curves = summary.over_seeds(long, ["curve", "position"], shared_draws=shared_draws)
    curves[["quantity", "when"]] = curves.pop("curve").str.split(" ", expand=True).to_numpy().reshape(-1, 2)
    return curves[["quantity", "when", "position", *summary.SUMMARY]]


def draw(computed: pd.DataFrame, paper: pd.DataFrame) -> Any:
    """Draw rows: value, advantage; columns: measured, published."""
    figure, axes = style.new_figure(style.PAGE, 3.5, 2, 2, sharex="col")
    for row, (quantity, label) in enumerate((("value_mean", "value"), ("advantage_mean", "advantage"))):
        measured, beside = axes[row]
        note = " (λ = 1)" if row else ""
        rows = computed[computed["quantity"] == quantity]
        for when in ("before", "after"):
            style.band(measured, rows[rows["when"] == when], "position", LOOKS[when])
        if row == 0:
            look = LOOKS["return_mean"]
            style.band(
                measured, computed[computed["quantity"] == "return_mean"], "position", look, zorder=2, linewidth=0.8
            )
            measured.legend(loc="best", ncols=1)
        style.published(beside, paper[paper["metric"] == quantity], "position")
        for panel in (measured, beside):
            panel.axhline(0, color="0.8", linewidth=0.6, zorder=0)
            panel.set_ylabel(f"{label} (reward)")
        style.title(measured, "ac"[row], f"{label}{note}, measured")
        style.title(beside, "bd"[row], f"{label}{note}, {style.PUBLISHED_TITLE}")
    for panel in axes[1]:
        panel.set_xlabel("token position in the answer")
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, positions, paper = load(results)
    computed = compute(positions, shared_draws=study.shared_draws)
    if computed.empty:
        raise NoDataError(
            f"figure2: no value-pretraining rows in components/positions.parquet; make it with: {study.command}"
        )
    seeds = int(computed["seeds"].max())
    text = (
        "Mean value (a) and mean advantage, return minus value, λ = 1, not whitened (c), by token position in answers "
        "of the fixed cold-start policy: before value pretraining, when the critic is the reward model, and after it. "
        f"Bins that fewer than {100 * RARE:g} % of the answers reach are left out; n = {seeds} pretrained critics."
    )
    return Picture(
        "figure2",
        draw(computed, paper),
        caption("Figure 2, the bias of the critic's start.", text, study,
                interval=curve_interval(study, [], lines=False),
                published="arXiv 2503.01491, figure 2 (before pretraining only), digitised; single run."),
    )  # fmt: skip
