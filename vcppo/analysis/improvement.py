"""Probability that a run of another arm ends better than a run of PPO."""

from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import REFERENCE, NoDataError, Results, Study
from vcppo.analysis.picture import Picture, bases, caption, few_enough


def load(results: Results, study_name: str, name: str) -> Study:
    """Return a study with PPO and another arm."""
    study = results.study(study_name, name)
    few_enough(study, name)
    arms = set(study.finished["arm"])
    if REFERENCE not in arms or len(arms) < 2:
        raise NoDataError(f"{name}: {study_name} lacks finished runs of {REFERENCE} and of another arm to compare with")
    return study


def compute(study: Study) -> pd.DataFrame:
    """Return arm, centre (probability), low, high, won (pairs), pairs, p; arms without a finished run left out."""
    rows = []
    for arm in study.arms:
        result = summary.improvement(study.runs, arm, REFERENCE)
        if arm != REFERENCE and result.pairs:
            interval = (result.interval.low, result.interval.high)
            rows.append((arm, result.probability, *interval, result.won, result.pairs, result.p))
    return pd.DataFrame(rows, columns=["arm", "centre", "low", "high", "won", "pairs", "p"])


def draw(computed: pd.DataFrame) -> Any:
    """Draw one row per arm; right of the line at a half it is better than PPO more often than not."""
    figure, axes = style.new_figure(style.COLUMN, 0.7 + 0.2 * len(computed))
    panel = axes[0, 0]
    looks = style.arm_styles(list(computed["arm"]))
    for row, result in enumerate(computed.to_dict("records")):
        look = looks[result["arm"]]
        panel.plot([result["low"], result["high"]], [row, row], color=look.colour, linewidth=1.4, solid_capstyle="butt")
        for end in (result["low"], result["high"]):
            panel.plot(end, row, marker="|", markersize=5, color=look.colour)
        panel.plot(
            result["centre"], row, marker=look.marker, color=look.colour, markersize=4.5, zorder=3, clip_on=False
        )
        beside = f"{result['won']:g} of {result['pairs']}, {p_text(result['p'])}"
        panel.annotate(beside, (1, row), xycoords=("axes fraction", "data"),
                       xytext=(4, 0), textcoords="offset points", va="center", fontsize=6, color="0.3")  # fmt: skip
    panel.axvline(0.5, color="0.5", linestyle=(0, (1, 1.2)), linewidth=0.8, zorder=0)
    panel.set_yticks(range(len(computed)), [looks[arm].label for arm in computed["arm"]])
    panel.set(xlim=(-0.03, 1.03), ylim=(len(computed) - 0.4, -0.6), xlabel="P(a run ends above a run of PPO)")
    return figure


def p_text(p: float) -> str:
    """Format p with its letter.

    >>> p_text(2 / 252), p_text(0.0001)
    ('p = 0.008', 'p < 0.001')
    """
    text = summary.p_value(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def make(results: Results, study_name: str, name: str) -> Picture:
    """load -> compute -> draw."""
    study = load(results, study_name, name)
    within = ", names dealt anew within each base" if len(bases(study.runs)) > 1 else ""
    text = (
        "Probability that a run of the arm has a higher final accuracy (avg@k) than a run of PPO, ties counted half; "
        "0.5 is no difference. Beside each: pairs of runs in which that of the arm is above, of all pairs, and p of a "
        f"permutation test of the difference of means, two-sided{within}."
    )
    interval = (
        "Lines: exact 95 % interval (Clopper-Pearson) of as many pairs as the arm with fewer runs has runs, "
        "were they independent."
    )
    return Picture(name, draw(compute(study)), caption("Probability of improvement over PPO.", text, study,
                                                       interval=interval))  # fmt: skip
