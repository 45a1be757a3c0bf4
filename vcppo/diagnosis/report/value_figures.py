"""Figures of values: beside the returns, what they explain, calibration, ranking, what the error is made of."""

from collections.abc import Callable, Sequence
from typing import Literal

from vcppo.diagnosis.report.figure_parts import (
    Figure,
    axis_over,
    draw_estimates,
    ends_of,
    letter,
    look,
    marker,
    sorted_once,
    tip_of,
)
from vcppo.diagnosis.report.svg import Axis, Element, Maybe, Panel, exact, fitted, linear, stacked_bars
from vcppo.diagnosis.report.text import number, with_interval
from vcppo.diagnosis.schema import Curve, Estimate, Regressor, Report

NARROW = 282  # of four panels in a row  # of four panels in a row
PLACES: tuple[tuple[Literal["from_start", "from_end", "by_fraction", "by_length"], str, str], ...] = (
    ("from_start", "from the start", "tokens since the start"),
    ("from_end", "from the end", "tokens before the end"),
    ("by_fraction", "by fraction of the response", "fraction of the response"),
    ("by_length", "by length of the response", "response length (tokens)"),
)


def levels(report: Report) -> Figure | None:
    """Mean value beside mean Monte-Carlo return along the response."""
    regressors = _regressors(report)
    if not regressors:
        return None
    panels: list[Element] = []
    shown = [getattr(regressor, field) for _, regressor in regressors for field, _, _ in PLACES]
    heights = [y for curve in shown for y in (*curve.value_mean, *curve.return_mean)]
    heights += [end for curve in shown for ends in _band_of_values(curve) for end in ends]
    y = axis_over("mean (reward)", heights)
    for field, words, axis in PLACES:
        curves = [(place, getattr(regressor, field)) for place, regressor in regressors if getattr(regressor, field).x]
        if not curves:
            continue
        panel = Panel(f"({'abcd'[len(panels)]}) {words}", _place_axis(field, axis, curves), y, width=NARROW, right=46)
        truth = max((curve for _, curve in curves), key=lambda curve: len(curve.x))
        panel.line(truth.x, truth.return_mean, "truth", "return")
        for place, curve in curves:
            panel.band(curve.x, *_band_of_values(curve), look(place))
            panel.line(curve.x, curve.value_mean, look(place), letter(place))
            tips = [
                f"{letter(place)} at {number(x)}: V {number(v, 3)}, return {number(g, 3)}, {n:,} tokens"
                for x, v, g, n in zip(curve.x, curve.value_mean, curve.return_mean, curve.n, strict=True)
            ]
            panel.points(curve.x, curve.value_mean, tips, look(place), marker(place))
        panels.append(panel.finished())
    return Figure(
        "levels",
        "Values beside the truth",
        "The mean of the critic’s values (lines with markers) and of the Monte-Carlo returns (black): a gap is bias, "
        "and the band is its 95 % interval. A healthy critic lies on "
        "the black line in (a); in (b) to (d), which go by what only the end tells, it may be a little off.",
        tuple(panels),
    )


def explained(report: Report) -> Figure | None:
    """Explained variance along the response."""
    regressors = _regressors(report)
    if not regressors:
        return None
    panels: list[Element] = []
    shown = [getattr(regressor, field) for _, regressor in regressors for field, _, _ in PLACES]
    known = [e.value for curve in shown for e in curve.explained_variance if e.value is not None]
    if not known:
        return None
    y = axis_over("explained variance", [max(-1.0, min([0.0, *known])), 1.0])
    for field, words, axis in PLACES:
        curves = [(place, getattr(regressor, field)) for place, regressor in regressors if getattr(regressor, field).x]
        if not curves:
            continue
        panel = Panel(f"({'abcd'[len(panels)]}) {words}", _place_axis(field, axis, curves), y, width=NARROW)
        panel.rule(0.0, "a constant")
        for place, curve in curves:
            draw_estimates(panel, curve.x, curve.explained_variance, look(place), marker(place),
                       f"{letter(place)}, explained variance at", letter(place), band=True)  # fmt: skip
        panels.append(panel.finished())
    return Figure(
        "explained",
        "Explained variance",
        "1 is a perfect critic, 0 is no better than a constant, and below 0 the values add error; triangles at the "
        "bottom stand for points below the axis. Bands are 95 % intervals.",
        tuple(panels),
    )


def calibration(report: Report) -> Figure | None:
    """Mean return by predicted value; a panel per critic."""
    panels = []
    for place, regressor in _regressors(report):
        bins = regressor.calibration
        if not bins.predicted_mean:
            continue
        ends = [e.value for e in bins.return_mean if e.value is not None]
        low, high = min([*bins.predicted_mean, *ends]), max([*bins.predicted_mean, *ends])
        panel = Panel(
            f"{letter(place)}  {report.critics[place].name}",
            linear("predicted value (reward)", low, high),
            linear("mean return (reward)", low, high),
        )
        panel.diagonal("calibrated")
        tips = [
            f"predicted {number(x, 3)}: return {with_interval(e)}, {n:,} tokens"
            for x, e, n in zip(bins.predicted_mean, bins.return_mean, bins.n, strict=True)
        ]
        panel.band(bins.predicted_mean, *ends_of(bins.return_mean), look(place))
        panel.line(bins.predicted_mean, [e.value for e in bins.return_mean], look(place))
        panel.points(bins.predicted_mean, [e.value for e in bins.return_mean], tips, look(place), marker(place))
        panels.append(panel.finished())
    if not panels:
        return None
    return Figure(
        "calibration",
        "Calibration",
        "Tokens in bins of predicted value, against the mean return that followed: on the dotted diagonal a prediction "
        "means what it says; a flat line is a critic whose differences mean nothing. Bands are 95 % intervals.",
        tuple(panels),
        legend=False,
    )


def ranking(report: Report) -> Figure | None:
    """AUC of V at fractions of the response."""
    rankers = [(place, critic) for place, critic in enumerate(report.critics) if critic.ranker]
    if not rankers:
        return None
    panels = []
    for title, within in (("(a) within prompts", True), ("(b) across prompts", False)):
        fractions = sorted_once(rank.fraction for _, critic in rankers for rank in critic.ranker)
        estimates = [r.within_prompts if within else r.across_prompts for _, critic in rankers for r in critic.ranker]
        lows = [e.low if e.low is not None else e.value for e in estimates]
        low = max(0.0, min([0.4, *(end for end in lows if end is not None)]))
        x = exact("read so far", 0.0, 1.0, [(f, f"{100 * f:g} %") for f in fractions])
        panel = Panel(title, x, axis_over("AUC", [low, 1.0]))
        panel.rule(0.5, "chance")
        for place, critic in rankers:
            xs = [rank.fraction for rank in critic.ranker]
            here = [rank.within_prompts if within else rank.across_prompts for rank in critic.ranker]
            draw_estimates(
                panel, xs, here, look(place), marker(place), tip_of(place, critic, "AUC at"), letter(place), band=True
            )
        panels.append(panel.finished())
    return Figure(
        "ranking",
        "Does it know which responses will be right?",
        "The chance that a response that will be right has a higher value than one that will not, after so much of it "
        "was read: 50 % is guessing. Within prompts is what advantages need; across prompts may be the prompt alone.",
        tuple(panels),
    )


def made_of(report: Report) -> Figure | None:
    """Shares of the mean square error, and of the critic's own variance."""
    error, variance = [], []
    for place, critic in enumerate(report.critics):
        if critic.regressor is not None:
            parts = (critic.regressor.share_offset, critic.regressor.share_slope, critic.regressor.share_rest)
            error.append((f"{letter(place)}  {critic.name}", look(place), [part.value for part in parts]))
        if critic.reacts is not None:
            shares = (critic.reacts.position, critic.reacts.prompt, critic.reacts.neither)
            variance.append((f"{letter(place)}  {critic.name}", look(place), [share.value for share in shares]))
    panels = []
    if error:
        panels.append(stacked_bars("(a) mean square error", error, ("offset", "slope", "rest")))
    if variance:
        panels.append(stacked_bars("(b) variance of the values", variance, ("position", "prompt", "neither")))
    if not panels:
        return None
    return Figure(
        "made-of",
        "What the error, and the critic’s opinion, are made of",
        "(a) An offset is the same error everywhere and a slope a wrong scale; both are cheap to cure, the rest is "
        "not. (b) How much of the values’ variance position alone explains, the prompt alone, and neither: only the "
        "last has learnt anything of the response.",
        tuple(panels),
        legend=False,
    )


def _band_of_values(curve: Curve) -> tuple[list[Maybe], list[Maybe]]:
    """The interval of the mean value: that of the bias, above the mean return."""

    def around(get: Callable[[Estimate], Maybe]) -> list[Maybe]:
        pairs = zip(curve.return_mean, curve.bias, strict=True)
        return [None if g is None or (end := get(bias)) is None else g + end for g, bias in pairs]

    return around(lambda e: e.low), around(lambda e: e.high)


def _place_axis(field: str, label: str, curves: Sequence[tuple[int, Curve]]) -> Axis:
    xs = [x for _, curve in curves for x in curve.x]
    if field == "by_fraction":
        return exact(label, 0.0, 1.0, [(t, f"{100 * t:.0f} %") for t in (0.0, 0.25, 0.5, 0.75, 1.0)])
    low = 0.0 if min(xs) < 0.3 * max(xs) else min(xs)
    return fitted(label, low, max(xs), backwards=field == "from_end", count=4)


def _regressors(report: Report) -> list[tuple[int, Regressor]]:
    return [(i, critic.regressor) for i, critic in enumerate(report.critics) if critic.regressor is not None]
