"""Push on the decision to stop, measured before the first update, against the way that a run goes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.data import NoDataError, Results
from vcppo.analysis.picture import Picture
from vcppo.analysis.starts import FIRST_ITERATIONS, starts

CLEAR = 2.0  # standard errors from 0 beyond which a push is read as a prediction
COLUMNS = ("study", "push", "push_error", "length")


def compute(results: Results) -> pd.DataFrame:
    """Return one row per finished run that logged its push: columns study, push, push_error, length."""
    frames = [starts(study).assign(study=name) for name, study in sorted(results.studies.items())]
    known = [frame[list(COLUMNS)].dropna() for frame in frames]
    return pd.concat([frame for frame in known if len(frame)] or [pd.DataFrame(columns=list(COLUMNS))])


def as_said(computed: pd.DataFrame) -> tuple[int, int]:
    """Return (runs whose length moved as a clear push says, runs with a clear push)."""
    clear = computed[computed["push"].abs() > CLEAR * computed["push_error"]]
    return int(((clear["push"] > 0) == (clear["length"] < 1.0)).sum()), len(clear)


def draw(computed: pd.DataFrame) -> Any:
    """Draw the length after the first iterations over that at the start against the push, a point a run."""
    figure, axes = style.new_figure(style.COLUMN, 2.9)
    panel = axes[0, 0]
    looks: Mapping[str, style.ArmStyle] = style.arm_styles(list(computed["study"].unique()))
    for study, runs in computed.groupby("study", sort=True):
        look = looks[str(study)]
        marks = {"marker": look.marker, "markersize": 2.8, "markerfacecolor": "none", "markeredgewidth": 0.7}
        panel.plot(
            runs["push"], runs["length"], linestyle="none", markeredgecolor=look.colour, label=str(study), **marks
        )
    panel.axhline(1.0, **style.REFERENCE_LINE)
    panel.axvline(0.0, **style.REFERENCE_LINE)
    panel.set_yscale("log")
    ticks = [tick for tick in (0.25, 0.5, 1.0, 2.0) if tick >= 0.8 * float(np.min(computed["length"]))]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.yaxis.minorticks_off()
    panel.set_xlabel("push on the decision to stop, before any update")
    panel.set_ylabel(f"length after {FIRST_ITERATIONS} iterations / at the start")
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def make(results: Results) -> Picture:
    """compute -> draw."""
    computed = compute(results)
    if computed.empty:
        raise NoDataError("push: no study has logged policy/push; make one with: vcppo sweep collapse-law")
    right, clear = as_said(computed)
    text = (
        "**The push before the first update.** Each point is one run: mean gradient of the decision to stop over the "
        "answers of iteration 0, from the advantages that training has, against mean length after "
        f"{FIRST_ITERATIONS} iterations over that at the start. Of {clear} runs whose push is more than {CLEAR:g} "
        f"standard errors from 0, {right} moved as it says. Origin: measured, studies "
        f"{', '.join(f'`{name}`' for name in sorted(computed['study'].unique()))}, {len(computed)} runs. Every run is "
        "drawn, no interval. Data made by `vcppo sweep STUDY && vcppo export STUDY`."
    )
    return Picture("push", draw(computed), text)
