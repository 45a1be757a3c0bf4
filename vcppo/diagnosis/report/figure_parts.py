"""Parts that the figures of the page share: marks of critics, estimates with their intervals, axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vcppo.diagnosis.report.svg import LINE_STYLES, MARKERS, Axis, Element, Maybe, Panel, linear
from vcppo.diagnosis.report.text import with_interval
from vcppo.diagnosis.schema import Alignment, CriticPart, Estimate

COLOURS = 7  # classes c0 to c6 of page.css, the palette of vcppo.analysis.style
METHODS = {
    "gradient": "policy gradient",
    "preconditioned": "preconditioned gradient",
    "scores": "in the space of scores",
    "surrogate": "surrogate, made without the policy",
}


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


def draw_estimates(
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
    """Draw a line through estimates, with a band or whiskers for their intervals; `shift` is in px, to the right."""
    values = [e.value for e in estimates]
    tips = [f"{tip} {x:g}: {with_interval(e)}" for x, e in zip(xs, estimates, strict=True)]
    if band:
        panel.band(xs, *ends_of(estimates), css)
    else:
        panel.whiskers(xs, *ends_of(estimates), css, shift)
    panel.line(xs, values, css, label, shift)
    panel.points(xs, values, tips, css, shape, shift)


def tip_of(place: int, critic: CriticPart, what: str) -> str:
    """Return the text shown over a critic's point: its letter and name, and `what` is drawn."""
    return f"{letter(place)} {critic.name}, {what}"


def ends_of(estimates: Sequence[Estimate]) -> tuple[list[Maybe], list[Maybe]]:
    """Return the lower and the upper ends of the intervals; None where there is none."""
    return [e.low for e in estimates], [e.high for e in estimates]


def axis_over(label: str, heights: Sequence[Maybe]) -> Axis:
    """Make a linear axis over the heights that are known; 0 to 1 where none is."""
    known = [y for y in heights if y is not None]
    return linear(label, min(known, default=0.0), max(known, default=1.0))


def by_method(rows: Sequence[Alignment]) -> dict[str, list[Alignment]]:
    """Group rows by method, each group in the order of λ."""
    methods: dict[str, list[Alignment]] = {}
    for row in sorted(rows, key=lambda row: row.gae_lambda):
        methods.setdefault(row.method, []).append(row)
    return methods


def first_method(critic: CriticPart) -> list[Alignment]:
    """Its rows of the method named first in METHODS."""
    methods = by_method(critic.alignment)
    return next((methods[name] for name in METHODS if name in methods), [])


def sorted_once(values: Iterable[float]) -> list[float]:
    """Return the values in ascending order, each once."""
    return sorted(set(values))
