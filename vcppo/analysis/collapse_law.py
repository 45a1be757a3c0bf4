"""Errors of the critic that collapse PPO: the law's prediction, drawn over the end of every run."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vcppo.analysis import style
from vcppo.analysis.data import LAMBDA, NoDataError, Results, Study
from vcppo.analysis.picture import Picture, caption
from vcppo.analysis.starts import FIRST_ITERATIONS, starts
from vcppo.analysis.table_text import Table
from vcppo.maths.collapse_law import Chain, turning_offset, turning_value

NEAR = 0.3  # cells nearer to the threshold than this are not judged
LOOKS = {
    "stops": style.ArmStyle("predicted: learns to stop", "#c44601", "-", "o"),
    "near": style.ArmStyle(f"within {NEAR:g} of the threshold", "0.55", "-", "D"),
    "goes on": style.ArmStyle("predicted: learns to go on", "#0b4f8a", "-", "s"),
}


@dataclass(frozen=True)
class Sweep:
    """A study of the law: what it sweeps, and where the law and the race put their thresholds."""

    setting: str
    axis: str
    chain: Chain
    turning: Callable[[Chain, float], float]  # below it the first updates teach the policy to stop
    symbol: str
    race: Mapping[float, float]  # by lambda: where half of simulated runs end with nothing right, as the file says


_RACE = {0.9: -2.7, 0.95: -2.6, 0.99: -3.2}
SWEEPS: Mapping[str, Sweep] = {
    "collapse-law": Sweep(
        "critic.initial_value", "value of every state at the start", Chain(30, 0.09), turning_value, "v*", _RACE
    ),
    "collapse-law-frozen": Sweep(
        "critic.initial_value", "value of every state, for good", Chain(30, 0.09), turning_value, "v*", {}
    ),
    "collapse-law-pretrained": Sweep(
        "critic.offset", "offset of the pretrained critic", Chain(30, 0.09), turning_offset, "c*",
        {0.9: -2.0, 0.95: -2.0, 0.99: -2.6},
    ),
    "collapse-law-exact": Sweep(
        "critic.offset", "offset of the exact critic, for good", Chain(30, 0.09), turning_offset, "c*", {}
    ),
    "collapse-law-size": Sweep(
        "critic.initial_value", "value of every state at the start", Chain(12, 0.2), turning_value, "v*",
        {0.9: -2.6, 0.95: -2.8, 0.99: -5.7},
    ),
}  # fmt: skip


def load(results: Results, name: str) -> Study:
    """Return one of these studies, with what it sweeps and its first iterations."""
    study = results.study(name, name, seeds=1)
    for column in (SWEEPS[name].setting, LAMBDA):
        if column not in study.runs:
            raise NoDataError(f"{name}: no column {column} in {name}/runs.csv; make it with: {study.command}")
    study.need("curves", name)
    return study


def compute(study: Study) -> pd.DataFrame:
    """Return one row per finished run.

    Columns gae_lambda, at (the swept setting), threshold (-inf: none), predicted (stops, near, goes on), length (mean
    length after the first iterations over that at the start), moved (stops, goes on), accuracy (avg@k, %), ended (the
    same words: whether less or more is right than the chain's policy has at the start).
    """
    sweep = SWEEPS[study.name]
    runs = starts(study)
    computed = pd.DataFrame({"gae_lambda": runs[LAMBDA], "at": runs[sweep.setting]})
    thresholds = {x: sweep.turning(sweep.chain, x) for x in computed["gae_lambda"].unique()}
    computed["threshold"] = computed["gae_lambda"].map(thresholds)
    beyond = computed["at"] - computed["threshold"]
    computed["predicted"] = np.select([beyond.abs() < NEAR - 1e-9, beyond < 0], ["near", "stops"], "goes on")
    computed["length"] = runs["length"]
    computed["moved"] = np.where(runs["length"] < 1.0, "stops", "goes on")
    computed["accuracy"] = 100 * runs["avg_at_k"]
    computed["ended"] = np.where(runs["avg_at_k"] < sweep.chain.accuracy, "stops", "goes on")
    return computed.dropna(subset=["length", "accuracy"]).sort_values(["gae_lambda", "at"]).reset_index(drop=True)


def judged(computed: pd.DataFrame) -> pd.DataFrame:
    """Return one row per cell away from the threshold.

    Columns gae_lambda, at, threshold, predicted, runs, and for `moved` and `ended` how many runs agree with the
    prediction, and whether the cell does: more than half of its runs.
    """
    away = computed[computed["predicted"] != "near"]
    rows = []
    for (gae_lambda, at), runs in away.groupby(["gae_lambda", "at"], sort=True):
        row = {"gae_lambda": gae_lambda, "at": at, "threshold": runs["threshold"].iloc[0]}
        row |= {"predicted": runs["predicted"].iloc[0], "runs": len(runs)}
        for what in ("moved", "ended"):
            agree = int((runs[what] == runs["predicted"]).sum())
            row |= {f"{what}_runs": agree, what: 2 * agree > len(runs)}
        rows.append(row)
    columns = ["gae_lambda", "at", "threshold", "predicted", "runs", "moved_runs", "moved", "ended_runs", "ended"]
    return pd.DataFrame(rows, columns=columns)


def draw(computed: pd.DataFrame, sweep: Sweep) -> Any:
    """Draw columns λ; above the length after the first iterations over that at the start, below final accuracy."""
    lambdas = sorted(computed["gae_lambda"].unique())
    figure, axes = style.new_figure(style.PAGE, 3.4, 2, len(lambdas), sharex=True, sharey="row")
    for column, gae_lambda in enumerate(lambdas):
        runs = computed[computed["gae_lambda"] == gae_lambda]
        threshold = float(runs["threshold"].iloc[0])
        for panel, name in zip(axes[:, column], ("length", "accuracy"), strict=True):
            for predicted, look in LOOKS.items():
                some = runs[runs["predicted"] == predicted]
                panel.plot(some["at"] + _beside(some, 0.05), some[name], linestyle="none", marker=look.marker,
                           markersize=3.2, markerfacecolor="none", markeredgecolor=look.colour, markeredgewidth=0.8,
                           label=look.label, zorder=3)  # fmt: skip
            if math.isfinite(threshold):
                panel.axvline(threshold, color="black", linewidth=0.9, zorder=2)
            if name == "accuracy" and gae_lambda in sweep.race:
                panel.axvline(sweep.race[gae_lambda], **{**style.REFERENCE_LINE, "color": "black"})
        label = f"{sweep.symbol} = {threshold:.2f}" if math.isfinite(threshold) else f"no {sweep.symbol}"
        style.title(axes[0, column], "abcd"[column] if column < 4 else "", f"λ actor {gae_lambda:g}, {label}")
        axes[0, column].axhline(1.0, **style.REFERENCE_LINE)
        axes[1, column].axhline(100 * sweep.chain.accuracy, **style.REFERENCE_LINE)
    axes[0, 0].set_yscale("log")
    ticks = [0.25, 0.5, 1.0, 2.0]
    axes[0, 0].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes[0, 0].yaxis.minorticks_off()
    axes[0, 0].set_ylabel(f"length after {FIRST_ITERATIONS}\niterations / at the start")
    style.percent(axes[1, 0])
    axes[1, 0].set_ylabel("final accuracy (%)")
    figure.supxlabel(sweep.axis, fontsize=style.RC["axes.labelsize"])
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3)
    return figure


def _beside(runs: pd.DataFrame, spread: float) -> np.ndarray[Any, Any]:
    """Return shifts that set the runs of a cell apart."""
    number, count = runs.groupby("at").cumcount(), runs.groupby("at")["at"].transform("size")
    return np.asarray(spread * (2 * number / (count - 1).clip(lower=1) - 1) * (count > 1))


def make(results: Results, name: str) -> Picture:
    """load -> compute -> draw."""
    study, sweep = load(results, name), SWEEPS[name]
    computed = compute(study)
    if computed.empty:
        raise NoDataError(f"{name}: no finished run in {name}/runs.csv; make it with: {study.command}")
    cells = judged(computed)
    text = (
        f"Each point is one run: above, mean length of responses after {FIRST_ITERATIONS} iterations over that at the "
        f"start; below, accuracy at the end on {study.runs['problems'].max():g} held-out problems. Black line: "
        f"{sweep.symbol}, below which the law has the first updates teach the policy to stop "
        f"({sweep.chain.lines} lines, hazard {sweep.chain.hazard:g}; vcppo/maths/collapse_law.py). "
        + ("Dotted: where half of simulated races between critic and policy are lost. " if sweep.race else "")
        + f"Grey lines: no change, and the accuracy at the start. {agreement(cells)}"
    )
    return Picture(
        name,
        draw(computed, sweep),
        caption("The law of the collapse.", text, study, interval="Every run is drawn, no interval."),
    )


def agreement(cells: pd.DataFrame) -> str:
    """Say how many cells agree with the law."""
    total = len(cells)
    return (
        f"Away from it by {NEAR:g} the first moves are as predicted in {int(cells['moved'].sum())} of {total} cells, "
        f"the end in {int(cells['ended'].sum())} of {total}."
    )


def table(results: Results) -> Table:
    """Return agreement by study and λ, every cell that disagrees in a note."""
    rows, notes = [], []
    for name in SWEEPS.keys() & results.studies.keys():
        cells = judged(compute(load(results, name)))
        for gae_lambda, some in cells.groupby("gae_lambda", sort=True):
            row = {"study": name, "gae_lambda": gae_lambda, "threshold": some["threshold"].iloc[0], "cells": len(some)}
            counts = ("runs", "moved", "moved_runs", "ended", "ended_runs")
            rows.append(row | {what: int(some[what].sum()) for what in counts})
        for what, said in (("moved", "first moves"), ("ended", "end")):
            wrong = cells[~cells[what].astype(bool)]
            if len(wrong):
                listed = ", ".join(
                    f"{at:g} at λ {x:g} ({n} of {runs} runs as predicted)"
                    for at, x, n, runs in zip(
                        wrong["at"], wrong["gae_lambda"], wrong[f"{what}_runs"], wrong["runs"], strict=True
                    )
                )
                notes.append(f"{name}, {said} otherwise than predicted: {listed}.")
    if not rows:
        raise NoDataError(f"table collapse-law: none of {', '.join(SWEEPS)}; make one with: vcppo sweep collapse-law")
    order = list(SWEEPS)
    numbers = pd.DataFrame(rows).sort_values(["study", "gae_lambda"], key=_in_order(order)).reset_index(drop=True)
    shown = pd.DataFrame(
        {
            "study": numbers["study"],
            "λ actor": [f"{x:g}" for x in numbers["gae_lambda"]],
            "threshold": [f"{x:.2f}" if math.isfinite(x) else "none" for x in numbers["threshold"]],
            "first moves as predicted": _of(numbers, "moved"),
            "end as predicted": _of(numbers, "ended"),
        }
    )
    head = (
        f"Cells (and their runs) that lie {NEAR:g} or more from the threshold. A cell is as predicted if more than "
        f"half of its runs are. First moves: mean length after {FIRST_ITERATIONS} iterations below its start where "
        "the law has the policy learn to stop, above it elsewhere. End: final accuracy below or above that of the "
        "start. The end is not what the law is about where the critic unlearns its error: see the studies' files."
    )
    return Table(
        "collapse-law", "The law of the collapse: predicted and happened", numbers, shown, [head, *sorted(notes)]
    )


def _in_order(names: list[str]) -> Callable[["pd.Series[Any]"], "pd.Series[Any]"]:
    return lambda column: column.map(names.index) if column.name == "study" else column


def _of(numbers: pd.DataFrame, what: str) -> list[str]:
    return [
        f"{cells} of {of} ({runs} of {of_runs})"
        for cells, of, runs, of_runs in zip(
            numbers[what], numbers["cells"], numbers[f"{what}_runs"], numbers["runs"], strict=True
        )
    ]
