"""Figures by lambda: where the policy gradient points, what a step would change, what an advantage is made of."""

from collections.abc import Sequence

from vcppo.diagnosis.report.figure_parts import (
    METHODS,
    Figure,
    axis_over,
    by_method,
    draw_estimates,
    ends_of,
    first_method,
    letter,
    look,
    marker,
    sorted_once,
    tip_of,
)
from vcppo.diagnosis.report.svg import Axis, Panel, exact, ordinal
from vcppo.diagnosis.report.text import number
from vcppo.diagnosis.schema import Alignment, Estimate, Report


def directions(report: Report) -> Figure | None:
    """Cosines of each lambda's policy gradient with those of reward and of length; a panel per critic and method."""
    panels = []
    for place, critic in enumerate(report.critics):
        for method, rows in by_method(critic.alignment).items():
            title = f"{letter(place)}  {critic.name}" + (f" · {METHODS[method]}" if method != "gradient" else "")
            x = ordinal("λ of the advantages (not to scale)", [row.gae_lambda for row in rows])
            y = exact("cosine", -1.08, 1.08, [(t, number(t, 1, signed=True)) for t in (-1.0, -0.5, 0.0, 0.5, 1.0)])
            panel = Panel(title, x, y, width=420, right=70)
            panel.rule(0.0)
            xs = [row.gae_lambda for row in rows]
            ceiling = [row.reward_ceiling for row in rows]
            panel.band(xs, *ends_of(ceiling), "ceiling")
            panel.line(xs, [e.value for e in ceiling], "ceiling", "ceiling")
            for name, estimates, css, shape, shift in (
                ("length", [row.with_length for row in rows], "length d1", "square", 3.0),
                ("reward", [row.with_reward for row in rows], "reward d0", "circle", -3.0),
            ):
                draw_estimates(panel, xs, estimates, css, shape, f"cosine with {name}, λ", name, shift=shift)
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
    lambdas = sorted_once(row.gae_lambda for critic in report.critics for row in first_method(critic))
    panels = []
    for title, name, get in (
        ("(a) accuracy", "change of accuracy", _accuracy_change),
        ("(b) length", "change of length (tokens)", _length_change),
    ):
        rows = [get(row) for critic in report.critics for row in first_method(critic)]
        panel = Panel(title, ordinal("λ of the advantages (not to scale)", lambdas), _axis_for(name, rows, zero=True))
        panel.rule(0.0)
        for place, critic in enumerate(report.critics):
            here = first_method(critic)
            xs, shift = [row.gae_lambda for row in here], 4.0 * (place - (len(report.critics) - 1) / 2)
            tip = tip_of(place, critic, "λ")
            draw_estimates(
                panel, xs, [get(row) for row in here], look(place), marker(place), tip, letter(place), shift=shift
            )
        panels.append(panel.finished())
    return Figure(
        "steps",
        "What a step would change",
        "The first-order change of accuracy and of mean length along a policy step of unit length at each λ: (a) "
        "should be above 0, and (b) should not be far below it.",
        tuple(panels),
    )


def opinions(report: Report) -> Figure | None:
    """Draw the shares of real reward and of the critic's opinion in an advantage at each lambda."""
    critics = [(place, critic) for place, critic in enumerate(report.critics) if critic.lambdas]
    if not critics:
        return None
    lambdas = sorted_once(row.gae_lambda for _, critic in critics for row in critic.lambdas)
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
            draw_estimates(
                panel, xs, here, look(place), marker(place), tip_of(place, critic, "λ"), letter(place), band=True
            )
        panels.append(panel.finished())
    return Figure(
        "opinions",
        "How much of an advantage is real",
        "(a) How much of the real reward reaches a token at these lengths, λ to the power of the tokens to come, "
        "averaged. (b) How much of the advantages’ variance comes from the critic’s values alone: with a bad critic "
        "and a small λ, training follows that opinion.",
        tuple(panels),
    )


def _axis_for(label: str, estimates: Sequence[Estimate], *, zero: bool) -> Axis:
    ends = [end for e in estimates for end in (e.value, e.low, e.high)]
    return axis_over(label, [*ends, 0.0] if zero else ends)


def _accuracy_change(row: Alignment) -> Estimate:
    return row.accuracy_change


def _length_change(row: Alignment) -> Estimate:
    return row.length_change
