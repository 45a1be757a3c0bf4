"""Figure 6: value pretraining; held-out loss and explained variance over critic updates, published loss beside."""

from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.commands import make_command
from vcppo.analysis.data import NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption, curve_interval

STUDIES = ("pretrain-steps", "components")  # searched for value pretraining, in this order
CEILING = "explained_variance_ceiling"  # of the fixed policy, in base-policy.csv
METRICS = ("pretrain/held_out_loss", "pretrain/explained_variance")
LOOK = style.ArmStyle("measured", "#0b4f8a", "-", "o")


def load(results: Results) -> tuple[Study, pd.DataFrame, pd.DataFrame]:
    """Return the study with value pretraining, its curves, published curve."""
    studies = [results.studies[name] for name in STUDIES if name in results.studies]
    for study in studies:
        if study.curves["metric"].isin(METRICS).any():
            return study, study.curves, results.published("figure6")
    missing = make_command(STUDIES[0], seeds=3)
    raise NoDataError(f"figure6: no {METRICS[0]} in {results.root / STUDIES[0]}; make it with: {missing}")


def compute(curves: pd.DataFrame, *, shared_draws: bool) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """Return held-out loss, then explained variance: each as (runs, summary over them).

    Arms of one base and seed share one pretraining, stopped at different counts, so the longest stands for it.
    """
    rows = curves[curves["metric"].isin(METRICS) & curves["value"].notna()]
    key = run_key(rows)
    furthest = rows.sort_values(["step", "arm"]).groupby(key).tail(1)[[*key, "arm"]]
    longest = rows.merge(furthest, on=[*key, "arm"]).assign(arm="critic")
    both = [summary.metric(longest, name) for name in METRICS]
    return [(values, summary.over_seeds(values, ["arm", "step"], shared_draws=shared_draws)) for values in both]


def draw(
    computed: list[tuple[pd.DataFrame, pd.DataFrame]],
    paper: pd.DataFrame,
    ceiling: tuple[float, float, float] | None = None,
) -> Any:
    """Draw left to right: measured loss, measured explained variance below its ceiling, published loss."""
    figure, axes = style.new_figure(style.PAGE, 1.9, 1, 3)
    labels = ("held-out value loss (reward²)", "explained variance")
    for panel, (seeds, centres), label in zip(axes[0], computed, labels, strict=False):
        style.seed_lines(panel, seeds, "step", LOOK)
        style.band(panel, centres, "step", LOOK)
        panel.set(xlabel="critic updates", ylabel=label, xlim=(0, None))
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 1].set_ylim(top=1.03)
    axes[0, 1].axhline(0, color="0.8", linewidth=0.6, zorder=0)
    if ceiling is not None:
        middle, low, high = ceiling
        axes[0, 1].axhspan(low, high, color="0.5", alpha=0.25, linewidth=0, zorder=0)
        axes[0, 1].axhline(middle, color="0.35", linewidth=0.8, zorder=1)
        axes[0, 1].annotate("ceiling", (1, high), xycoords=("axes fraction", "data"), xytext=(0, 2), ha="right",
                            textcoords="offset points", fontsize=6.5, color="0.35")  # fmt: skip
    style.published(axes[0, 2], paper, "step")
    axes[0, 2].set(xlabel="step", ylabel="value loss (reward²)", xlim=(0, None))
    for panel, letter, text in zip(
        axes[0], "abc", ("loss, measured", "explained variance, measured", "loss, published"), strict=True
    ):
        style.title(panel, letter, text)
    return figure


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study, curves, paper = load(results)
    computed, ceiling = compute(curves, shared_draws=study.shared_draws), results.of_base(CEILING)
    seeds = int(computed[0][1]["seeds"].max())
    text = (
        "Value pretraining on Monte-Carlo returns of the fixed policy: loss (a) and explained variance (b) on held-out "
        f"answers, n = {seeds} pretraining runs; (c) the published training loss, another model and scale."
    )
    if ceiling is not None:
        text += (
            f" Ceiling: the share of the returns' variance that any function of the state can explain, "
            f"{ceiling[0]:.3f} [{ceiling[1]:.3f}, {ceiling[2]:.3f}] (95 % bootstrap over problems; base-policy.csv)."
        )
    return Picture(
        "figure6",
        draw(computed, paper, ceiling),
        caption("Figure 6, value pretraining.", text, study, interval=curve_interval(study, []),
                published="arXiv 2503.01491, figure 6, digitised; single run."),
    )  # fmt: skip
