"""What every figure module returns: a drawing and its caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vcppo.analysis.data import NoDataError, Study
from vcppo.analysis.style import MAX_PANELS, arm_label

CURVE_INTERVAL = "Line: mean over seeds; band: 95 % percentile bootstrap over seeds; thin lines: single seeds."


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
    origin = f"Origin: measured, study `{study.name}`, {counts(study, arms)}{_commits(study)}."
    parts = [f"**{title}** {text}", origin, interval]
    if published:
        parts.append(f"Origin of the dashed grey curves and open points: {published}")
    return " ".join([*parts, f"Data made by `{study.command}`."])


def counts(study: Study, arms: Sequence[str] | None = None) -> str:
    """Describe how many seeds ended, and how many did not.

    One number where every arm has as many seeds; failed and pruned runs are named.
    """
    runs = study.runs if arms is None else study.runs[study.runs["arm"].isin(arms)]
    done = runs[runs["status"] == "done"].groupby("arm").size()
    text = f"n = {done.min()} to {done.max()} seeds an arm" if done.nunique() > 1 else ""
    if not text:
        text = f"n = {done.max()} seed{'s' if done.max() > 1 else ''} an arm" if len(done) else "no finished run"
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


def _commits(study: Study) -> str:
    commits = sorted({text[:10] for text in study.runs["commit"] if text})
    return f", commit {' and '.join(commits)}" if commits else ""
