"""One panel of a figure as SVG: axes, lines with bands, points, bars, labels at the end of lines.

Colours are CSS classes, so that a panel follows the page's theme; dashes and markers differ with them, so that it reads
the same in grey. Every point says its numbers in a <title>.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree

from vcppo.diagnosis.report.text import number, visible

Element = ElementTree.Element
Maybe = float | None
Item = TypeVar("Item")
LABEL_HEIGHT = 12.0
MARKERS = ("circle", "square", "triangle", "diamond", "inverted", "plus", "cross")
LINE_STYLES = 4  # classes d0 to d3 of page.css


@dataclass(frozen=True)
class Axis:
    """From numbers to 0..1 along an axis, with its ticks."""

    label: str
    ticks: tuple[tuple[float, str], ...]
    fraction: Callable[[float], float]


def linear(label: str, low: float, high: float, *, count: int = 5) -> Axis:
    """A linear axis, stretched to round numbers at about `count` ticks."""
    step = _round_step((high - low) / max(1, count - 1) or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    ticks = tuple((i * step, number(i * step, decimals)) for i in range(first, last + 1))
    start, width = first * step, (last - first) * step
    return Axis(label, ticks, lambda x: (x - start) / width)


def fitted(label: str, low: float, high: float, *, count: int = 5, backwards: bool = False) -> Axis:
    """A linear axis that ends where the numbers end, with ticks at round numbers within."""
    high = high if high > low else low + 1.0
    round_axis = linear(label, low, high, count=count)
    slack = 1e-9 * (high - low)
    ticks = tuple(tick for tick in round_axis.ticks if low - slack <= tick[0] <= high + slack)
    return Axis(label, ticks, lambda x: (high - x) / (high - low) if backwards else (x - low) / (high - low))


def exact(label: str, low: float, high: float, ticks: Sequence[tuple[float, str]]) -> Axis:
    """A linear axis with ends and ticks as given."""
    return Axis(label, tuple(ticks), lambda x: (x - low) / (high - low))


def ordinal(label: str, values: Sequence[float]) -> Axis:
    """An axis that gives every value the same room, in the order given."""
    place = {value: (i + 0.5) / len(values) for i, value in enumerate(values)}
    return Axis(label, tuple((value, f"{value:g}") for value in values), place.__getitem__)


class Panel:
    """A panel that is drawn into; `element` is the SVG."""

    def __init__(self, title: str, x: Axis, y: Axis, *, width: float = 360, height: float = 240, right: float = 24):
        self.x, self.y = x, y
        self.left = 26.0 + 6.2 * max(len(name) for _, name in y.ticks)
        self.top, self.right, self.bottom = 26.0, width - right, height - 40.0
        self.element = _svg(width, height)
        self.element.set("aria-label", visible(f"{title}. {y.label} against {x.label}."))
        self._labels: list[tuple[float, float, str, str]] = []  # x, y, text, class
        self.text(0, 13, title, "title")
        self._axes()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return (x, y) of a point in the drawing, kept within a little of the panel."""
        across = self.left + self.x.fraction(x) * (self.right - self.left)
        up = min(1.02, max(0.0, self.y.fraction(y)))
        return across, self.bottom - up * (self.bottom - self.top)

    def add(self, tag: str, css: str, **attributes: float | str) -> Element:
        """Append an element; numbers are written short."""
        element = ElementTree.SubElement(self.element, tag, {"class": css})
        for name, value in attributes.items():
            element.set(
                name.replace("_", "-"), value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
            )
        return element

    def text(self, x: float, y: float, text: str, css: str, anchor: str = "start") -> Element:
        """Write text."""
        element = self.add("text", css, x=x, y=y, text_anchor=anchor)
        element.text = visible(text)
        return element

    def rule(self, y: float, label: str = "") -> None:
        """A dotted line across at a height, with what it means."""
        _, height = self.at(_middle(self.x), y)
        self.add("line", "rule", x1=self.left, x2=self.right, y1=height, y2=height)
        if label:
            self.text(self.right, height - 3, label, "small", "end")

    def diagonal(self, label: str = "") -> None:
        """A dotted line where y equals x, drawn between the ends of the y axis."""
        (low, _), (high, _) = self.y.ticks[0], self.y.ticks[-1]
        (x1, y1), (x2, y2) = self.at(low, low), self.at(high, high)
        self.add("line", "rule", x1=x1, y1=y1, x2=x2, y2=y2)
        if label:
            self.text(x2 - 4, y2 + 12, label, "small", "end")

    def band(self, xs: Sequence[float], lows: Sequence[Maybe], highs: Sequence[Maybe], css: str) -> None:
        """Fill between two curves wherever both are known."""
        known = [(x, low, high) for x, low, high in zip(xs, lows, highs, strict=True)]
        for run in _runs(known, lambda one: one[1] is not None and one[2] is not None):
            there = [self.at(x, low or 0.0) for x, low, _ in run]
            back = [self.at(x, high or 0.0) for x, _, high in reversed(run)]
            if len(run) > 1:
                self.add("path", f"band {css}", d=_path([*there, *back]) + "Z")

    def line(self, xs: Sequence[float], ys: Sequence[Maybe], css: str, label: str = "", shift: float = 0) -> None:
        """A curve, broken where it is unknown; the label stands at its end."""

        def at(x: float, y: Maybe) -> tuple[float, float]:
            across, up = self.at(x, y or 0.0)
            return across + shift, up

        runs = _runs(list(zip(xs, ys, strict=True)), lambda one: one[1] is not None)
        for run in runs:
            self.add("path", f"line {css}", d=_path([at(x, y) for x, y in run]))
        if runs and label:
            ends = [at(x, y) for run in runs for x, y in run]
            self._labels.append((*max(ends), label, css))

    def points(
        self, xs: Sequence[float], ys: Sequence[Maybe], tips: Sequence[str], css: str, marker: str, shift: float = 0
    ) -> None:
        """Markers, each with its numbers in words; a hollow triangle at the bottom for what lies below the axis."""
        for x, y, tip in zip(xs, ys, tips, strict=True):
            if y is not None:
                across, up = self.at(x, y)
                below = self.y.fraction(y) < -0.02
                look = ("inverted", f"beyond {css}") if below else (marker, f"marker {css}")
                shape = self.add("path", look[1], d=_marker(look[0], across + shift, up - (5 if below else 0)))
                ElementTree.SubElement(shape, "title").text = visible(tip)

    def whiskers(
        self, xs: Sequence[float], lows: Sequence[Maybe], highs: Sequence[Maybe], css: str, shift: float = 0
    ) -> None:
        """Intervals as upright lines with ends."""
        for x, low, high in zip(xs, lows, highs, strict=True):
            if low is not None and high is not None:
                (across, y1), (_, y2) = self.at(x, low), self.at(x, high)
                across += shift
                ends = f"M{across - 3:.1f} {y1:.1f}h6M{across - 3:.1f} {y2:.1f}h6"
                self.add("path", f"whisker {css}", d=f"M{across:.1f} {y1:.1f}V{y2:.1f}{ends}")

    def finished(self) -> Element:
        """The SVG, labels of lines put where they do not cover each other."""
        labels = sorted(self._labels, key=lambda label: label[1])
        heights: list[float] = []
        for _, height, _, _ in labels:
            heights.append(max(height, heights[-1] + LABEL_HEIGHT) if heights else height)
        excess = max(0.0, heights[-1] - self.bottom) if heights else 0.0
        for i in reversed(range(len(heights))):
            limit = heights[i + 1] - LABEL_HEIGHT if i + 1 < len(heights) else heights[i] - excess
            heights[i] = min(heights[i], limit)
        furthest = max((label[0] for label in labels), default=0.0)
        for (_, _, text, css), height in zip(labels, heights, strict=True):
            self.text(furthest + 8, height + 3.5, text, f"label {css}")
        self._labels.clear()
        return self.element

    def _axes(self) -> None:
        for value, name in self.y.ticks:
            height = self.bottom - self.y.fraction(value) * (self.bottom - self.top)
            self.add("line", "grid", x1=self.left, x2=self.right, y1=height, y2=height)
            self.text(self.left - 5, height + 3.5, name, "tick", "end")
        for value, name in self.x.ticks:
            across = self.left + self.x.fraction(value) * (self.right - self.left)
            self.add("line", "axis", x1=across, x2=across, y1=self.bottom, y2=self.bottom + 3)
            self.text(across, self.bottom + 14, name, "tick", "middle")
        self.add("path", "axis", d=f"M{self.left} {self.top}V{self.bottom}H{self.right:g}")
        self.text((self.left + self.right) / 2, self.bottom + 31, self.x.label, "axis-label", "middle")
        middle = (self.top + self.bottom) / 2
        turned = self.text(11, middle, self.y.label, "axis-label", "middle")
        turned.set("transform", f"rotate(-90 11 {middle:g})")


def stacked_bars(
    title: str, rows: Sequence[tuple[str, str, Sequence[Maybe]]], parts: Sequence[str], *, width: float = 360
) -> Element:
    """Shares of 1 as bars one above the other: rows of (name, css of the name, shares)."""
    bar, left, right = 44.0, 2.0, width - 8
    height = 46 + bar * max(1, len(rows)) + 20
    svg = _svg(width, height)
    svg.set("aria-label", visible(title))

    def text(x: float, y: float, words: str, css: str, anchor: str = "start") -> None:
        ElementTree.SubElement(
            svg, "text", {"class": css, "x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
        ).text = visible(words)

    text(0, 13, title, "title")
    across = left
    for i, part in enumerate(parts):
        ElementTree.SubElement(
            svg, "rect", {"class": f"share s{i}", "x": f"{across:.1f}", "y": "22", "width": "10", "height": "10"}
        )
        text(across + 14, 31, part, "small")
        across += 24 + 6.1 * len(part)
    for place, (name, css, shares) in enumerate(rows):
        y = 58 + bar * place
        text(left, y - 5, name, f"label {css}")
        begin = left
        for i, share in enumerate(shares):
            length = max(0.0, min(1.0, share or 0.0)) * (right - left)
            rect = ElementTree.SubElement(
                svg,
                "rect",
                {
                    "class": f"share s{i}",
                    "x": f"{begin:.1f}",
                    "y": f"{y:.1f}",
                    "width": f"{length:.1f}",
                    "height": "22",
                },
            )
            ElementTree.SubElement(rect, "title").text = visible(f"{name}: {parts[i]} {number(share, 2)}")
            if length > 30:
                text(begin + length / 2, y + 16, f"{100 * (share or 0.0):.0f} %", f"inside s{i}", "middle")
            begin += length
        if all(share is None for share in shares):
            text(left, y + 16, "not measured", "small")
    bottom = 44 + bar * max(1, len(rows))
    for i in range(5):
        x = left + (right - left) * i / 4
        text(x, bottom + 12, f"{25 * i} %", "tick", "middle" if 0 < i < 4 else ("start" if i == 0 else "end"))
    return svg


def swatch(css: str, marker: str) -> Element:
    """A line with a marker, for a legend."""
    svg = Element("svg", {"viewBox": "0 0 34 12", "class": "swatch", "aria-hidden": "true"})
    ElementTree.SubElement(svg, "path", {"class": f"line {css}", "d": "M1 6H33"})
    ElementTree.SubElement(svg, "path", {"class": f"marker {css}", "d": _marker(marker, 17, 6)})
    return svg


def written(element: Element) -> str:
    """The element as text, for a page."""
    return ElementTree.tostring(element, encoding="unicode")


def _svg(width: float, height: float) -> Element:
    size = {"width": f"{width:g}", "height": f"{height:g}"}
    return Element("svg", {"viewBox": f"0 0 {width:g} {height:g}", **size, "role": "img", "class": "panel"})


def _round_step(step: float) -> float:
    size = 10.0 ** math.floor(math.log10(step))
    return next((factor * size for factor in (1, 2, 2.5, 5) if step <= factor * size * 1.0001), 10 * size)


def _middle(axis: Axis) -> float:
    return axis.ticks[len(axis.ticks) // 2][0]


def _runs(items: Sequence[Item], known: Callable[[Item], bool]) -> list[list[Item]]:
    runs: list[list[Item]] = [[]]
    for item in items:
        if known(item):
            runs[-1].append(item)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _marker(kind: str, x: float, y: float) -> str:
    r = 3.2
    paths = {
        "circle": f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0Z",
        "square": f"M{x - 2.8:.1f} {y - 2.8:.1f}h5.6v5.6h-5.6Z",
        "triangle": f"M{x:.1f} {y - 3.8:.1f}l3.6 6.4h-7.2Z",
        "inverted": f"M{x:.1f} {y + 3.8:.1f}l3.6 -6.4h-7.2Z",
        "diamond": f"M{x:.1f} {y - 4:.1f}l4 4l-4 4l-4 -4Z",
        "plus": f"M{x - 1.2:.1f} {y - 3.6:.1f}h2.4v2.4h2.4v2.4h-2.4v2.4h-2.4v-2.4h-2.4v-2.4h2.4Z",
        "cross": f"M{x - 3.6:.1f} {y - 2:.1f}l1.6 -1.6l2 2l2 -2l1.6 1.6l-2 2l2 2l-1.6 1.6l-2 -2l-2 2l-1.6 -1.6l2 -2Z",
    }
    return paths[kind]
