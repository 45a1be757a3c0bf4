"""`Picture`, the result of every figure module: a drawing and its caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vcppo.analysis.data import NoDataError, Study, sort_arms
from vcppo.analysis.style import MAX_PANELS, arm_label
from vcppo.analysis.summary import arms_apart
from vcppo.maths.run_statistics import TWO_ENDS

CROSSED = " (resampled crossed, since runs of a seed share draws)"


@dataclass(frozen=True)
class Picture:
    """A figure by the name of its files, and its caption in Markdown."""

    name: str
    figure: Any
    caption: str


def caption(
    title: str, text: str, study: Study, *, interval: str, published: str = "", arms: Sequence[str] | None = None
) -> str:
    """Compose title, text, origin, n (of `arms`, by default all), interval, and the command that made the data."""
    origin = f"Origin: measured, study `{study.name}`, {counts(study, arms)}{commits(study)}."
    parts = [f"**{title}** {text}", origin, interval]
    if published:
        parts.append(f"Origin of the dashed grey curves and open points: {published}")
    return " ".join([*parts, f"Data made by `{study.command}`."])


def over(study: Study) -> str:
    """Describe what runs are resampled over.

    With one base an interval holds for other seeds of it, and says nothing of other bases.
    """
    if len(bases(study.runs)) == 1:
        return "seeds, all of one base"
    crossed = study.shared_draws and study.runs["seed"].nunique() > 1
    return f"bases and seeds{CROSSED}" if crossed else "bases and the seeds within them"


def over_all(studies: Sequence[Study]) -> str:
    """Describe what runs of several studies are resampled over, each within its own."""
    named: dict[str, list[str]] = {}
    for study in studies:
        named.setdefault(over(study), []).append(f"`{study.name}`")
    if len(named) == 1:
        return next(iter(named))
    return ", ".join(f"{what} in {' and '.join(names)}" for what, names in named.items())


def bases(runs: pd.DataFrame) -> list[float]:
    """Return the base seeds of some runs, in order."""
    return sorted(runs["base_seed"].unique()) if "base_seed" in runs else [0.0]


def curve_interval(study: Study, arms: Sequence[str] | None = None, *, lines: bool = True) -> str:
    """Describe lines and bands of curves, of `arms` or of all.

    Args:
        lines: whether every run is drawn as a thin line too.
    """
    split = arms_apart(study.runs) & set(study.arms if arms is None else arms)
    text = f"Line: mean over runs; band: 95 % percentile bootstrap over {over(study)}"
    text += "; thin lines: single runs." if lines else "."
    if split:
        text += (
            f" {', '.join(arm_label(arm) for arm in sort_arms(split))}: runs end {TWO_ENDS}, "
            "so the line is their median, without a band."
        )
    return text


def counts(study: Study, arms: Sequence[str] | None = None) -> str:
    """Describe how many runs ended, over how many bases, and how many did not.

    One number where every arm has as many; failed and pruned runs are named.
    """
    runs = study.runs if arms is None else study.runs[study.runs["arm"].isin(arms)]
    done = runs[runs["status"] == "done"].groupby("arm").size()
    several = len(bases(runs))
    what = "seed" if several == 1 else "run"
    text = f"n = {done.min()} to {done.max()} {what}s an arm" if done.nunique() > 1 else ""
    if not text:
        text = f"n = {done.max()} {what}{'s' if done.max() > 1 else ''} an arm" if len(done) else "no finished run"
    text += f" over {several} bases" if several > 1 else ""
    lost = runs[runs["status"] != "done"]
    for (arm, status), rows in lost.groupby(["arm", "status"], sort=True):
        text += f", {len(rows)} of {(runs['arm'] == arm).sum()} {status} ({arm_label(str(arm))})"
    return text


def few_enough(study: Study, figure: str, most: int = MAX_PANELS) -> None:
    """Refuse to draw more arms than a page can hold."""
    if len(study.arms) > most:
        raise NoDataError(
            f"{figure}: {study.name} has {len(study.arms)} arms, more than the {most} a page can hold; "
            f"its numbers are in {study.name}/runs.csv"
        )


def commits(study: Study) -> str:
    """Describe the commits that the runs were made at, as a clause; empty where none is known."""
    known = sorted({text[:10] for text in study.runs["commit"] if text})
    return f", commit {' and '.join(known)}" if known else ""
