"""The map of both lambdas: final accuracy at each λ_actor and λ_critic."""

from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.analysis.picture import Picture, caption, over
from vcppo.maths.run_statistics import TWO_ENDS, ends_apart
from vcppo.maths.statistics import UNKNOWN

BELOW = 2.0  # per cent
AXES = ("gae.lambda_actor", "gae.lambda_critic")


def load(results: Results) -> Study:
    """Return the study `lambda-grid`, its runs with both swept columns."""
    study = results.study("lambda-grid", "lambda-grid", seeds=3)
    missing = [name for name in AXES if name not in study.runs]
    if missing:
        raise NoDataError(
            f"lambda-grid: lambda-grid/runs.csv has no column {missing[0]}; make it with: {study.command}"
        )
    study.need("problems", "lambda-grid")
    return study


def compute(study: Study) -> pd.DataFrame:
    """Return one row per cell of the map: actor, critic, centre (mean avg@k, %), low, high, done, tried, below.

    Where runs end apart (`ends_apart`) the centre is the median, without an interval, and below is how many ended
    below 2 %; else that is 0.
    """
    cells = []
    for (actor, critic), runs in study.runs.groupby(list(AXES), sort=True):
        (arm,) = runs["arm"].unique()
        scores = summary.final_scores(runs, arm)
        table = summary.accuracy_table(study.problems, arm)
        apart = ends_apart(scores)
        interval = UNKNOWN
        if len(table) and not apart:
            interval = summary.crossed_interval(table, "lambda-grid", arm, shared_draws=study.shared_draws)
        low, high = (100 * interval.low, 100 * interval.high)
        centre = 100 * (scores.median() if apart else scores.mean()) if len(scores) else np.nan
        below = int((100 * scores < BELOW).sum()) if apart else 0
        cells.append((actor, critic, centre, low, high, len(scores), len(runs), below))
    return pd.DataFrame(cells, columns=["actor", "critic", "centre", "low", "high", "done", "tried", "below"])


def draw(computed: pd.DataFrame) -> Any:
    """Draw rows λ_critic, columns λ_actor; each cell shows its mean, n and the width of its interval."""
    values = computed.pivot(index="critic", columns="actor", values="centre")
    width, height = (max(style.COLUMN, 0.9 + 0.75 * len(values.columns)), max(1.6, 0.8 + 0.5 * len(values)))
    figure, axes = style.new_figure(width, height)
    panel = axes[0, 0]
    panel.set_facecolor("0.93")
    image = panel.imshow(np.ma.masked_invalid(values.to_numpy()), cmap="Blues", vmin=0, vmax=100, origin="lower",
                         aspect="auto")  # fmt: skip
    for cell in computed.to_dict("records"):
        x, y = list(values.columns).index(cell["actor"]), list(values.index).index(cell["critic"])
        ink = "white" if cell["centre"] > 55 else "black"
        small = cell_note(cell["low"], cell["high"], cell["done"], cell["tried"], cell["below"])
        for shift, text, size in ((0.2, f"{cell['centre']:.1f}" if cell["done"] else "–", 8), (-0.2, small, 5.5)):
            panel.text(x, y + shift, text, ha="center", va="center", color=ink, fontsize=size)
    panel.set_xticks(range(len(values.columns)), [f"{name:g}" for name in values.columns])
    panel.set_yticks(range(len(values)), [f"{name:g}" for name in values.index])
    panel.set(xlabel="λ actor", ylabel="λ critic")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)
    figure.colorbar(image, ax=panel, label="final accuracy (%)", pad=0.02).outline.set_visible(False)
    return figure


def cell_note(low: float, high: float, done: int, tried: int, below: int = 0) -> str:
    r"""Return the small text of a cell, in two lines.

    >>> cell_note(80, 86, 3, 3), cell_note(float("nan"), float("nan"), 1, 3), cell_note(80, 86, 0, 3)
    ('n = 3\nwidth 6.0', 'n = 1 of 3', '0 of 3')
    >>> cell_note(float("nan"), float("nan"), 25, 25, below=2)
    'n = 25\n2 below 2 %'
    """
    count = f"{done} of {tried}" if done < tried else f"{done}"
    if not done:
        return count
    if below:
        return f"n = {count}\n{below} below {BELOW:g} %"
    return f"n = {count}" + ("" if np.isnan(low) else f"\nwidth {high - low:.1f}")


def make(results: Results) -> Picture:
    """load -> compute -> draw."""
    study = load(results)
    text = (
        f"Final accuracy (avg@{study.runs['k'].max():g}, mean over {study.runs['problems'].max():g} held-out problems "
        "and over runs) at each pair of λ. In each cell: the mean in per cent, n runs, and the width of its interval "
        f"in percentage points; where runs end {TWO_ENDS} their median, and how many ended "
        f"below {BELOW:g} %. Runs that failed or were pruned (n = 2 of 3) are not counted as 0."
    )
    interval = f"Interval: 95 % percentile bootstrap over {over(study)}, and problems, crossed."
    return Picture(
        "lambda-grid", draw(compute(study)), caption("λ actor and λ critic.", text, study, interval=interval)
    )
