"""Is the forecast true: what it said of every run, what became of it, and which number told best."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from vcppo.analysis import style
from vcppo.analysis.commands import command_of
from vcppo.analysis.data import Results
from vcppo.analysis.forecast_runs import HALF, PREDICTORS, Family, available, scored
from vcppo.analysis.picture import Picture
from vcppo.analysis.summary import RESAMPLES
from vcppo.analysis.table_text import NOTHING, Table
from vcppo.maths.forecast_skill import VERDICTS, Logistic, auc, balanced_accuracy, best_threshold, brier
from vcppo.maths.run_statistics import run_draws
from vcppo.maths.statistics import UNKNOWN, Array, percentiles

Statistic = Callable[[Array, NDArray[np.bool_]], float]
BASE_RATE = "base_rate"
LOOKS = {
    False: style.ArmStyle("did not fail", "#0b4f8a", "-", "o"),
    True: style.ArmStyle("failed", "#c44601", "-", "X"),
}
COLOURS = ("#0b4f8a", "#c44601")
FORECASTS = (  # those that a diagnosis with the policy at hand makes; the others compete with them
    "reward_cosine",
    "gain_share",
    "length_cosine",
    "verdict",
    "plain_reward_cosine",
    "surrogate_reward_cosine",
)


def skill(runs: pd.DataFrame, lead: str) -> pd.DataFrame:
    """Return one row per predictor, and one of the base rate.

    Columns predictor; auc with its interval, over all bases; below_lead, by how much it is below that of the lead, with
    an interval of the paired difference; and of the second half of the bases, by what the first half chose: brier with
    its interval, threshold (a score) and right, the balanced accuracy of it, with its interval.

    Args:
        runs: of one family with a critic, from `scored`. lead: the predictor that others are compared with.
    """
    first, second = (runs[runs["half"] == half] for half in ("first", "second"))
    everywhere, judged = draws(runs), draws(second)
    areas = {name: resampled(auc, runs[f"score:{name}"], runs["failed"], everywhere) for name in PREDICTORS}
    rows = []
    for name in PREDICTORS:
        score = f"score:{name}"
        row: dict[str, Any] = {"predictor": name, **_ends("auc", areas[name])}
        row |= _ends("below_lead", areas[lead] - areas[name])
        if len(first) and len(second):
            chance = Logistic.fit(first[score], first["failed"])
            row["threshold"] = best_threshold(first[score], first["failed"])
            predicted = second[score] > row["threshold"]
            row |= _ends("brier", resampled(brier, chance.chances(second[score]), second["failed"], judged))
            row |= _ends("right", resampled(balanced_accuracy, predicted, second["failed"], judged))
        rows.append(row)
    base: dict[str, Any] = {"predictor": BASE_RATE, "auc": 0.5}
    if len(first) and len(second):
        share = np.full(len(second), float(first["failed"].mean()))
        base |= {**_ends("brier", resampled(brier, share, second["failed"], judged)), "right": 0.5}
    return pd.DataFrame([*rows, base])


def draws(runs: pd.DataFrame) -> list[NDArray[np.int64]]:
    """Return the runs as they are, then resamples of them, as row numbers: bases first, then the runs of each."""
    if runs.empty:
        return []
    drawn = run_draws(runs["base_seed"].tolist(), rng=np.random.default_rng(0), resamples=RESAMPLES)
    return [np.arange(len(runs)), *(row[row >= 0] for row in np.stack(list(drawn), axis=1))]


def resampled(statistic: Statistic, scores: ArrayLike, failed: ArrayLike, rows: Sequence[NDArray[np.int64]]) -> Array:
    """Return [1 + R]: a statistic of the runs, then of each resample; NaN where it is not defined."""
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(failed, dtype=bool)
    return np.array([statistic(x[draw], y[draw]) for draw in rows] or [math.nan])


def _ends(name: str, numbers: Array) -> dict[str, float]:
    """A number and both ends of its 95 % interval; NaN where no resample differs."""
    known = numbers[1:][np.isfinite(numbers[1:])]
    ends = percentiles(known, 0.95) if len(known) and np.ptp(known) > 0 else UNKNOWN
    return {name: float(numbers[0]), f"{name}_low": ends.low, f"{name}_high": ends.high}


def verdict_counts(runs: pd.DataFrame) -> pd.DataFrame:
    """Return how many runs had each verdict, and how many of them failed: columns verdict, runs, failed."""
    rows = [
        {"verdict": name, "runs": len(of_verdict), "failed": int(of_verdict["failed"].sum())}
        for name in reversed(VERDICTS)
        if len(of_verdict := runs[runs["verdict"] == name])
    ]
    return pd.DataFrame(rows, columns=["verdict", "runs", "failed"])


def warned(runs: pd.DataFrame) -> dict[str, float] | None:
    """Return what the live warning came to, None where no run had one.

    failed and fine: runs; failed_warned and fine_warned: those of them that warned; lead: the median of how many
    iterations before its failure a failed run warned, NaN where that is not known.
    """
    if runs["warned_at"].isna().all():
        return None
    failed = runs[runs["failed"]]
    lead = (failed["failed_at"] - failed["warned_at"]).dropna()
    return {
        "failed": len(failed),
        "failed_warned": int(failed["warned_at"].notna().sum()),
        "fine": len(runs) - len(failed),
        "fine_warned": int(runs.loc[~runs["failed"], "warned_at"].notna().sum()),
        "lead": float(lead.median()) if len(lead) else math.nan,
    }


def draw(families: Sequence[tuple[Family, pd.DataFrame]]) -> Any:
    """Draw a panel a family, its end against the forecast that leads there, and one of every predictor's AUC."""
    ratios = [1.0] * len(families) + [0.95]
    figure, axes = style.new_figure(style.PAGE, 2.9, 1, len(families) + 1, width_ratios=ratios)
    for panel, letter, (family, runs) in zip(axes[0], "ab", families, strict=False):
        _outcomes(panel, family, runs)
        style.title(panel, letter, family.title)
    _predictors(axes[0, -1], families)
    style.title(axes[0, -1], "abc"[len(families)], "which number tells")
    return figure


def _outcomes(panel: Any, family: Family, runs: pd.DataFrame) -> None:
    scale = 100 if family.reference is None else 1
    shown = "end" if family.reference is None else "gain"
    for failed, look in LOOKS.items():
        some = runs[runs["failed"] == failed]
        x, y = some[family.lead].fillna(0.0), scale * some[shown]
        low, high = (some[f"{family.lead}_{end}"].fillna(0.0) for end in ("low", "high"))
        panel.hlines(y, low, high, color=look.colour, linewidth=0.5, alpha=0.35, zorder=2)
        panel.plot(x, y, linestyle="none", marker=look.marker, markersize=3.4, markerfacecolor="none",
                   markeredgecolor=look.colour, markeredgewidth=0.8, label=look.label, zorder=3)  # fmt: skip
    if family.reference is None:
        panel.axvline(0.0, **style.REFERENCE_LINE)
        panel.set_xlim(-1.08, 1.08)
        panel.set_xticks([-1, -0.5, 0, 0.5, 1])
        panel.set(xlabel="cosine with the gradient of the score", ylabel="accuracy at the end (%)")
        style.percent(panel)
    else:
        panel.axvline(1.0, **style.REFERENCE_LINE)
        panel.axhline(HALF, **style.REFERENCE_LINE)
        panel.set(xlabel="gain of an update, of Monte-Carlo's", ylabel="accuracy gained, of Monte-Carlo's")
    panel.legend(loc="best", handletextpad=0.2)


def _predictors(panel: Any, families: Sequence[tuple[Family, pd.DataFrame]]) -> None:
    names = [*PREDICTORS]
    for place, (family, runs) in enumerate(families):
        rows = skill(scored(runs), family.lead).set_index("predictor")
        look = style.ArmStyle(family.title, COLOURS[place], "-", "os"[place])
        for row, name in enumerate(names):
            at = row + 0.3 * (place - (len(families) - 1) / 2)
            value, low, high = rows.loc[[name], ["auc", "auc_low", "auc_high"]].to_numpy(dtype=float)[0]
            style.interval(panel, low, high, at, look)
            panel.plot(value, at, marker=look.marker, color=look.colour, markersize=3.4, linestyle="none",
                       label=look.label if row == 0 else None, zorder=4)  # fmt: skip
    panel.axvline(0.5, **style.REFERENCE_LINE)
    panel.axhline(len(FORECASTS) - 0.5, color="0.8", linewidth=0.6)
    panel.set_yticks(range(len(names)), [PREDICTORS[name].label for name in names])
    panel.set_ylim(len(names) - 0.5, -0.7 - len(families))  # room for the legend above
    panel.set_xlim(-0.02, 1.03)
    panel.set_xlabel("AUC")
    panel.legend(loc="upper left", handletextpad=0.2)


def make(results: Results) -> Picture:
    """compute -> draw."""
    families = available(results)
    counted = "; ".join(f"{_counts(runs)} of `{family.study}` {family.failed}" for family, runs in families)
    made = " and ".join(f"`{command_of(family.study, runs)}`" for family, runs in families)
    text = (
        "**Is the forecast true?** Each point is one run, forecast from responses of its base before its first step: "
        "(a) accuracy of its last ten iterations against the preconditioned cosine of its policy gradient with that of "
        "the score, where it cannot be told from noise at 0; failed: below half of the base's; (b) accuracy gained, as "
        "a share of what Monte-Carlo returns with a baseline of the position gain on the same base, against the gain "
        "of an update forecast in the same unit; failed: below a half. Lines: 95 % intervals of the forecast. (c) how "
        "well each number ranks runs with a critic, forecasts above the line and competitors below; dots: AUC of all "
        "of them, bars: 95 % bootstrap over bases, then runs; signs were fixed before any run. "
        f"{counted}. Origin: measured. Data made by {made}."
    )
    return Picture("forecast", draw(families), text)


def table(results: Results) -> Table:
    """The skill of every predictor, family by family; notes on verdicts and the live warning."""
    families = available(results)
    numbers, notes = [], list[str]()
    for family, runs in families:
        judged = scored(runs)
        numbers.append(skill(judged, family.lead).assign(study=family.study))
        notes += _notes(family, runs, judged)
    rows = pd.concat(numbers, ignore_index=True)
    rows = rows[["study", *(name for name in rows if name != "study")]]
    shown = pd.DataFrame(
        {
            "study": rows["study"],
            "known before the first step": [_label(name) for name in rows["predictor"]],
            "AUC": [_with(rows.loc[i], "auc") for i in rows.index],
            "below the lead": [_with(rows.loc[i], "below_lead") for i in rows.index],
            "Brier, second half": [_with(rows.loc[i], "brier") for i in rows.index],
            "threshold right, second half": [_with(rows.loc[i], "right") for i in rows.index],
        }
    )
    leads = ", ".join(f"{_label(family.lead)} in `{family.study}`" for family, _ in families)
    notes.append(
        "AUC: chance that a failed run is ranked above one that did not fail, all bases, sign fixed before any run; "
        f"lead: {leads}. Brier: mean square error of a chance of failure, logistic in that number, fitted to the first "
        "half of the bases and judged on the second; base rate: the first half's share of failures. Threshold: the one "
        "with the best balanced accuracy in the first half, its balanced accuracy in the second. [95 % percentile "
        "bootstrap over bases, then runs.]"
    )
    title = "Is the forecast true? Numbers known before the first step, and failure"
    return Table("forecast", title, rows, shown, notes)


def _notes(family: Family, runs: pd.DataFrame, judged: pd.DataFrame) -> list[str]:
    verdicts = ", ".join(
        f"`{row.verdict}` {row.failed} of {row.runs}" for row in verdict_counts(runs).itertuples(index=False)
    )
    without = len(runs) - len(judged)
    notes = [
        f"`{family.study}`: {_counts(runs)} {family.failed}; by verdict: {verdicts}."
        + (f" Runs without a critic, {without}, are in these counts and not in the rows." if without else "")
    ]
    live = warned(runs)
    if live is not None:
        lead = "" if math.isnan(live["lead"]) else f", at the median {live['lead']:g} iterations before the failure"
        notes.append(
            f"`{family.study}`: the live warning came in {live['failed_warned']:g} of {live['failed']:g} runs that "
            f"failed{lead}, and in {live['fine_warned']:g} of {live['fine']:g} that did not."
        )
    return notes


def _counts(runs: pd.DataFrame) -> str:
    bases = runs["base_seed"].nunique()
    return f"{int(runs['failed'].sum())} of {len(runs)} runs over {bases} base{'s' if bases > 1 else ''}"


def _label(name: str) -> str:
    return "nothing: the base rate" if name == BASE_RATE else PREDICTORS[name].label


def _with(row: "pd.Series[Any]", name: str) -> str:
    value, low, high = (row.get(f"{name}{end}", math.nan) for end in ("", "_low", "_high"))
    if pd.isna(value):
        return NOTHING
    value, low, high = (round(float(x), 2) + 0.0 for x in (value, low, high))  # no -0.00
    return f"{value:.2f}" if pd.isna(low) else f"{value:.2f} [{low:.2f}, {high:.2f}]"
