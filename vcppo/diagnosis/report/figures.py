"""The figures of the page: each says in a sentence how it is read, and has its numbers in a table of the page."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from vcppo.diagnosis.report.svg import (
    LINE_STYLES,
    MARKERS,
    Axis,
    Element,
    Maybe,
    Panel,
    exact,
    fitted,
    linear,
    ordinal,
    stacked_bars,
)
from vcppo.diagnosis.report.text import number, with_interval
from vcppo.diagnosis.schema import Alignment, CriticPart, Curve, Estimate, Regressor, Report

NARROW = 282  # of four panels in a row
COLOURS = 7  # classes c0 to c6 of page.css, the palette of vcppo.analysis.style
METHODS = {
    "gradient": "policy gradient",
    "preconditioned": "preconditioned gradient",
    "scores": "in the space of scores",
    "surrogate": "surrogate, made without the policy",
}
PLACES: tuple[tuple[Literal["from_start", "from_end", "by_fraction", "by_length"], str, str], ...] = (
    ("from_start", "from the start", "tokens since the start"),
    ("from_end", "from the end", "tokens before the end"),
    ("by_fraction", "by fraction of the response", "fraction of the response"),
    ("by_length", "by length of the response", "response length (tokens)"),
)


@dataclass(frozen=True)
class Figure:
    """Panels with a title and the sentence that explains them."""

    name: str
    title: str
    sentence: str
    panels: tuple[Element, ...]
    legend: bool = True  # whether critics are told apart in it


def letter(place: int) -> str:
    """The letter that stands for a critic in figures and the viewer."""
    return chr(ord("A") + place % 26) + (str(place // 26) if place >= 26 else "")


def look(place: int) -> str:
    """The classes of a critic's lines: a colour and a dash."""
    return f"c{place % COLOURS} d{place % LINE_STYLES}"


def marker(place: int) -> str:
    """A critic's marker."""
    return MARKERS[place % len(MARKERS)]


def figures(report: Report) -> list[Figure]:
    """Every figure that the report has numbers for."""
    makers = (directions, steps, levels, explained, calibration, ranking, made_of, opinions)
    made = [maker(report) for maker in makers]
    return [figure for figure in made if figure is not None]


def directions(report: Report) -> Figure | None:
    """Cosines of each lambda's policy gradient with those of reward and of length; a panel per critic and method."""
    panels = []
    for place, critic in enumerate(report.critics):
        for method, rows in _by_method(critic.alignment).items():
            title = f"{letter(place)}  {critic.name}" + (f" · {METHODS[method]}" if method != "gradient" else "")
            x = ordinal("λ of the advantages (not to scale)", [row.gae_lambda for row in rows])
            y = exact("cosine", -1.08, 1.08, [(t, number(t, 1, signed=True)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)])
            panel = Panel(title, x, y, width=420, right=70)
            panel.rule(0.0)
            xs = [row.gae_lambda for row in rows]
            ceiling = [row.reward_ceiling for row in rows]
            panel.band(xs, *_ends(ceiling), "ceiling")
            panel.line(xs, [e.value for e in ceiling], "ceiling", "ceiling")
            for name, estimates, css, shape, shift in (
                ("length", [row.with_length for row in rows], "length d1", "square", 3.0),
                ("reward", [row.with_reward for row in rows], "reward d0", "circle", -3.0),
            ):
                _estimates(panel, xs, estimates, css, shape, f"cosine with {name}, λ", name, shift=shift)
            panels.append(panel.finished())
    if not panels:
        return None
    return Figure(
        "directions",
        "Where the policy gradient points",
        "Above 0, a step with this critic’s advantages at this λ raises reward (or length); below 0 it lowers it. The "
        "grey ceiling is how well two independent halves of the true, Monte-Carlo gradient agree: near 0, the "
        "responses are too few to tell. Bars are 95 % intervals.",
        tuple(panels),
        legend=False,
    )


def steps(report: Report) -> Figure | None:
    """First-order changes of accuracy and of length along each lambda's gradient."""
    if not any(critic.alignment for critic in report.critics):
        return None
    lambdas = _sorted(row.gae_lambda for critic in report.critics for row in _first_method(critic))
    panels = []
    for title, name, get in (
        ("(a) accuracy", "change of accuracy", _accuracy_change),
        ("(b) length", "change of length (tokens)", _length_change),
    ):
        rows = [get(row) for critic in report.critics for row in _first_method(critic)]
        panel = Panel(title, ordinal("λ of the advantages (not to scale)", lambdas), _axis_for(name, rows, zero=True))
        panel.rule(0.0)
        for place, critic in enumerate(report.critics):
            here = _first_method(critic)
            xs, shift = [row.gae_lambda for row in here], 4.0 * (place - (len(report.critics) - 1) / 2)
            _estimates(panel, xs, [get(row) for row in here], look(place), marker(place), _tip(place, critic, "λ"),
                       letter(place), shift=shift)  # fmt: skip
        panels.append(panel.finished())
    return Figure(
        "steps",
        "What a step would change",
        "The first-order change of accuracy and of mean length along a policy step of unit length at each λ: (a) "
        "should be above 0, and (b) should not be far below it.",
        tuple(panels),
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
    y = _span("mean (reward)", heights)
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
        "and the band is its 95 % interval. A healthy critic lies on the black line.",
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
    y = _span("explained variance", [max(-1.0, min([0.0, *known])), 1.0])
    for field, words, axis in PLACES:
        curves = [(place, getattr(regressor, field)) for place, regressor in regressors if getattr(regressor, field).x]
        if not curves:
            continue
        panel = Panel(f"({'abcd'[len(panels)]}) {words}", _place_axis(field, axis, curves), y, width=NARROW)
        panel.rule(0.0, "a constant")
        for place, curve in curves:
            _estimates(panel, curve.x, curve.explained_variance, look(place), marker(place),
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
        panel.band(bins.predicted_mean, *_ends(bins.return_mean), look(place))
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
        fractions = _sorted(rank.fraction for _, critic in rankers for rank in critic.ranker)
        estimates = [r.within_prompts if within else r.across_prompts for _, critic in rankers for r in critic.ranker]
        lows = [e.low if e.low is not None else e.value for e in estimates]
        low = max(0.0, min([0.4, *(end for end in lows if end is not None)]))
        x = exact("read so far", 0.0, 1.0, [(f, f"{100 * f:g} %") for f in fractions])
        panel = Panel(title, x, _span("AUC", [low, 1.0]))
        panel.rule(0.5, "chance")
        for place, critic in rankers:
            xs = [rank.fraction for rank in critic.ranker]
            here = [rank.within_prompts if within else rank.across_prompts for rank in critic.ranker]
            _estimates(
                panel, xs, here, look(place), marker(place), _tip(place, critic, "AUC at"), letter(place), band=True
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


def opinions(report: Report) -> Figure | None:
    """What an advantage at each lambda is made of."""
    critics = [(place, critic) for place, critic in enumerate(report.critics) if critic.lambdas]
    if not critics:
        return None
    lambdas = _sorted(row.gae_lambda for _, critic in critics for row in critic.lambdas)
    y = [(t, f"{100 * t:.0f} %") for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
    panels = []
    for title, name, real in (
        ("(a) weight of the real reward", "weight", True),
        ("(b) the critic’s own opinion", "share of variance", False),
    ):
        panel = Panel(title, ordinal("λ of the advantages (not to scale)", lambdas), exact(name, 0.0, 1.0, y))
        for place, critic in critics:
            xs = [row.gae_lambda for row in critic.lambdas]
            here = [row.real_reward if real else row.opinion for row in critic.lambdas]
            _estimates(panel, xs, here, look(place), marker(place), _tip(place, critic, "λ"), letter(place), band=True)
        panels.append(panel.finished())
    return Figure(
        "opinions",
        "How much of an advantage is real",
        "(a) How much of the real reward reaches a token at these lengths, λ to the power of the tokens to come, "
        "averaged. (b) How much of the advantages’ variance comes from the critic’s values alone: with a bad critic "
        "and a small λ, training follows that opinion.",
        tuple(panels),
    )


def _estimates(
    panel: Panel,
    xs: Sequence[float],
    estimates: Sequence[Estimate],
    css: str,
    shape: str,
    tip: str,
    label: str,
    *,
    band: bool = False,
    shift: float = 0.0,
) -> None:
    values = [e.value for e in estimates]
    tips = [f"{tip} {x:g}: {with_interval(e)}" for x, e in zip(xs, estimates, strict=True)]
    if band:
        panel.band(xs, *_ends(estimates), css)
    else:
        panel.whiskers(xs, *_ends(estimates), css, shift)
    panel.line(xs, values, css, label, shift)
    panel.points(xs, values, tips, css, shape, shift)


def _tip(place: int, critic: CriticPart, what: str) -> str:
    return f"{letter(place)} {critic.name}, {what}"


def _ends(estimates: Sequence[Estimate]) -> tuple[list[Maybe], list[Maybe]]:
    return [e.low for e in estimates], [e.high for e in estimates]


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


def _span(label: str, heights: Sequence[Maybe]) -> Axis:
    known = [y for y in heights if y is not None]
    return linear(label, min(known, default=0.0), max(known, default=1.0))


def _axis_for(label: str, estimates: Sequence[Estimate], *, zero: bool) -> Axis:
    ends = [end for e in estimates for end in (e.value, e.low, e.high)]
    return _span(label, [*ends, 0.0] if zero else ends)


def _accuracy_change(row: Alignment) -> Estimate:
    return row.accuracy_change


def _length_change(row: Alignment) -> Estimate:
    return row.length_change


def _regressors(report: Report) -> list[tuple[int, Regressor]]:
    return [(i, critic.regressor) for i, critic in enumerate(report.critics) if critic.regressor is not None]


def _by_method(rows: Sequence[Alignment]) -> dict[str, list[Alignment]]:
    methods: dict[str, list[Alignment]] = {}
    for row in sorted(rows, key=lambda row: row.gae_lambda):
        methods.setdefault(row.method, []).append(row)
    return methods


def _first_method(critic: CriticPart) -> list[Alignment]:
    """Its rows of the method named first in METHODS."""
    methods = _by_method(critic.alignment)
    return next((methods[name] for name in METHODS if name in methods), [])


def _sorted(values: Iterable[float]) -> list[float]:
    return sorted(set(values))
