"""Critics that are shifted by a constant: what becomes of the length, of cut responses and of accuracy."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vcppo.analysis import style, summary
from vcppo.analysis.data import ACCURACY, LAMBDA, NoDataError, Results, Study, run_key
from vcppo.analysis.picture import Picture, caption
from vcppo.analysis.starts import FIRST_ITERATIONS, LENGTH, starts

OFFSET, INITIAL = "critic.offset", "critic.initial_value"
LATE = 10  # iterations at the end of a run that are averaged


@dataclass(frozen=True)
class Column:
    """The runs of one column of panels: an arm at one λ_actor, over a setting."""

    title: str
    arm: str
    gae_lambda: float
    setting: str = OFFSET
    turning: tuple[float, ...] = ()  # where the push is computed to turn


@dataclass(frozen=True)
class Row:
    """What one row of panels shows."""

    name: str
    label: str
    of: Callable[[Study], "pd.Series[float]"]  # one number per run, by arm, base and seed
    percent: bool = False


@dataclass(frozen=True)
class Shifted:
    """A study of shifted critics, as it is drawn."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    axis: str
    title: str
    text: str


def last_iterations(study: Study, metric: str, scale: float = 1.0) -> "pd.Series[float]":
    """Return a metric's mean over the last iterations of each run, by arm, base and seed."""
    values = summary.metric(study.curves, metric, scale=scale)
    run = ["arm", *run_key(values)]
    late = values[values["step"] > values.groupby(run)["step"].transform("max") - LATE]
    means: pd.Series[float] = late.groupby(run)["value"].mean()
    return means


def length_ratio(study: Study) -> "pd.Series[float]":
    """Return the mean length over the last iterations over that of the first one, of each run."""
    values = summary.metric(study.curves, LENGTH)
    first = values[values["step"] == values["step"].min()].set_index(["arm", *run_key(values)])["value"]
    ratio: pd.Series[float] = last_iterations(study, LENGTH) / first
    return ratio


def first_moves(study: Study) -> "pd.Series[float]":
    """Return the mean length after the first iterations over that at the start, of each run."""
    runs = starts(study)
    return runs.set_index(["arm", *run_key(runs)])["length"]


def final_accuracy(study: Study) -> "pd.Series[float]":
    """Return accuracy at the end in per cent, of each run."""
    runs = study.finished
    return 100 * runs.set_index(["arm", *run_key(runs)])["avg_at_k"]


STUDIES: Mapping[str, Shifted] = {
    "endings": Shifted(
        columns=(
            Column("exact, λ actor 0.95", "exact", 0.95, turning=(-0.21, 2.4)),
            Column("exact, λ actor 1", "exact-mc", 1.0),
            Column("fresh, learns", "fresh", 0.95, INITIAL),
            Column("pretrained, learns", "pretrained", 0.95, INITIAL),
        ),
        rows=(
            Row("length", f"length, last {LATE}\niterations / the first", length_ratio),
            Row("truncated", "cut at the limit (%)", lambda s: last_iterations(s, "rollout/truncated_rate", 100), True),
            Row("accuracy", "accuracy (%)", lambda s: last_iterations(s, ACCURACY, 100), True),
        ),
        axis="offset of the exact critic (a, b); value of every state at first (c, d)",
        title="Which way a wrong critic drives the length.",
        text="Each point is one run on `endings`, where a response may end at any line: mean length over that of the "
        f"first iteration, responses cut at the limit, and accuracy, over the last {LATE} iterations. Vertical lines: "
        "where the push on ending is computed to turn, at bad lines and at good ones (bench/decision_noise.py).",
    ),
    "collapse-law-reward-model": Shifted(
        columns=(
            Column("raw, λ actor 0.95", "raw", 0.95),
            Column("raw, λ actor 1", "raw", 1.0),
            Column("in units of reward, 0.95", "fitted", 0.95),
            Column("in units of reward, 1", "fitted", 1.0),
        ),
        rows=(
            Row("length", f"length after {FIRST_ITERATIONS}\niterations / at the start", first_moves),
            Row("accuracy", "final accuracy (%)", final_accuracy, True),
        ),
        axis="what is added to the reward model's scores",
        title="The reward model as a critic, shifted.",
        text=f"Each point is one run: mean length of responses after {FIRST_ITERATIONS} iterations over that at the "
        "start, and accuracy at the end. Raw: Bradley-Terry logits; in units of reward: scale and origin fitted to the "
        "rewards of whole responses.",
    ),
}


def compute(study: Study) -> pd.DataFrame:
    """Return one row per finished run and column of panels.

    Columns: column (its title), at (the setting of its axis), and the name of each row of panels.

    Raises:
        NoDataError: a setting that the study varies is not in its runs.csv.
    """
    shifted, runs = STUDIES[study.name], study.finished
    wanted = {LAMBDA, *(column.setting for column in shifted.columns)}
    if not wanted <= set(runs.columns):
        raise NoDataError(
            f"{study.name}: no columns {' and '.join(sorted(wanted - set(runs.columns)))} in {study.name}/runs.csv; "
            f"make it with: {study.command}"
        )
    numbers = {row.name: row.of(study) for row in shifted.rows}
    frames = []
    for column in shifted.columns:
        some = runs[(runs["arm"].str.split(",").str[0] == column.arm) & (runs[LAMBDA] == column.gae_lambda)]
        key = pd.MultiIndex.from_frame(some[["arm", *run_key(some)]])
        frame = pd.DataFrame({"column": column.title, "at": some[column.setting].to_numpy(dtype=float)})
        for name, values in numbers.items():
            frame[name] = values.reindex(key).to_numpy(dtype=float)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).dropna().sort_values(["column", "at"], ignore_index=True)


def draw(computed: pd.DataFrame, shifted: Shifted) -> Any:
    """Draw every run as a point, and a line through the medians."""
    size = len(shifted.rows), len(shifted.columns)
    figure, axes = style.new_figure(style.PAGE, 0.5 + 1.35 * len(shifted.rows), *size, sharex="col", sharey="row")
    for across, column in enumerate(shifted.columns):
        runs = computed[computed["column"] == column.title]
        style.title(axes[0, across], "abcdefgh"[across], column.title)
        for panel, row in zip(axes[:, across], shifted.rows, strict=True):
            median = runs.groupby("at")[row.name].median()
            panel.plot(median.index, median, color="#0b4f8a", linewidth=0.9, zorder=2)
            panel.plot(runs["at"], runs[row.name], linestyle="none", marker="o", markersize=3.0,
                       markerfacecolor="none", markeredgecolor="#0b4f8a", markeredgewidth=0.7, zorder=3)  # fmt: skip
            for turning in column.turning:
                panel.axvline(turning, **style.REFERENCE_LINE)
    for panel, row in zip(axes[:, 0], shifted.rows, strict=True):
        panel.set_ylabel(row.label)
        if row.percent:
            style.percent(panel)
        else:
            panel.set_yscale("log", base=2)
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for panels, row in zip(axes, shifted.rows, strict=True):
        if not row.percent:
            for panel in panels:
                panel.axhline(1.0, **style.REFERENCE_LINE)
    figure.supxlabel(shifted.axis, fontsize=style.RC["axes.labelsize"])
    return figure


def make(results: Results, name: str) -> Picture:
    """load -> compute -> draw."""
    study = results.study(name, name, seeds=1)
    study.need("curves", name)
    computed, shifted = compute(study), STUDIES[name]
    if computed.empty:
        raise NoDataError(f"{name}: no finished run in {name}/runs.csv; make it with: {study.command}")
    interval = "Every run is drawn, lines are medians, no interval."
    return Picture(name, draw(computed, shifted), caption(shifted.title, shifted.text, study, interval=interval))
