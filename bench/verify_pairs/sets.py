"""Intervals, unions, sets, lists of solutions, tuples, matrices."""

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

from .writing import Case, forms, framed, nonzero, plain, tex

OPEN_OR_CLOSED = ("<", "\\le", ">", "\\ge")
LONG_SIGNS = ("<", "\\leq", ">", "\\geq")
SLANTED_SIGNS = ("<", "\\leqslant", ">", "\\geqslant")
UNICODE_SIGNS = ("<", "≤", ">", "≥")
Ends = tuple[Fraction | None, Fraction | None]  # None is an infinite one


class Interval(NamedTuple):
    """None is an infinite end."""

    low: Fraction | None
    high: Fraction | None
    with_low: bool
    with_high: bool

    def brackets(self, number: Callable[[Fraction], str] = tex, separator: str = ", ") -> str:
        """[1, 2)."""
        low = "-\\infty" if self.low is None else number(self.low)
        high = "\\infty" if self.high is None else number(self.high)
        return f"{'[' if self.with_low else '('}{low}{separator}{high}{']' if self.with_high else ')'}"

    def inequality(self, x: str, signs: Sequence[str] = OPEN_OR_CLOSED, number: Callable[[Fraction], str] = tex) -> str:
        """1 <= x < 2."""
        if self.low is None and self.high is not None:
            return f"{x} {signs[self.with_high]} {number(self.high)}"
        if self.high is None and self.low is not None:
            return f"{x} {signs[2 + self.with_low]} {number(self.low)}"
        assert self.low is not None
        assert self.high is not None
        return f"{number(self.low)} {signs[self.with_low]} {x} {signs[self.with_high]} {number(self.high)}"

    def turned(self, x: str) -> str:
        """2 > x >= 1."""
        right = "" if self.low is None else f" {OPEN_OR_CLOSED[2 + self.with_low]} {tex(self.low)}"
        if self.high is None and self.low is not None:
            return f"{tex(self.low)} {OPEN_OR_CLOSED[self.with_low]} {x}"
        assert self.high is not None
        return f"{tex(self.high)} {OPEN_OR_CLOSED[2 + self.with_high]} {x}{right}"

    def written(self, x: str) -> list[str]:
        """In brackets and as an inequality of x."""
        large = self.brackets()
        for bracket in "([":
            large = large.replace(bracket, f"\\left{bracket}")
        for bracket in ")]":
            large = large.replace(bracket, f"\\right{bracket}")
        found = [self.brackets(), large, self.brackets(plain), self.brackets(separator=",")]
        found += [self.brackets(separator="; "), f"{x} \\in {self.brackets()}", self.turned(x)]
        signs = (OPEN_OR_CLOSED, LONG_SIGNS, SLANTED_SIGNS)
        return [*found, *(self.inequality(x, s) for s in signs), self.inequality(x, UNICODE_SIGNS, plain)]

    def ends_flipped(self) -> list["Interval"]:
        """An open end closed, a closed one opened."""
        low = [] if self.low is None else [self._replace(with_low=not self.with_low)]
        return low + ([] if self.high is None else [self._replace(with_high=not self.with_high)])

    def near_misses(self) -> list["Interval"]:
        """Another end, open for closed, or to the other side."""
        found = self.ends_flipped()
        if self.low is not None:
            found.append(self._replace(low=self.low - 1))
        if self.high is not None:
            found.append(self._replace(high=self.high + 1))
        if self.low is None or self.high is None:
            found.append(Interval(self.high, self.low, self.with_high, self.with_low))
        return found


def _ascending(rng: random.Random, count: int) -> list[Fraction]:
    """A few of them halves."""
    grid = [Fraction(k) for k in range(-15, 16)] * 4 + [Fraction(k, 2) for k in range(-15, 16, 2)]
    return sorted(rng.sample(list(dict.fromkeys(rng.choices(grid, k=40))), count))


def _between(low: Fraction | None, high: Fraction | None, rng: random.Random) -> Interval:
    """Ends open or closed as it comes, infinite ones open."""
    closed = [rng.random() < 0.5 for _ in range(2)]
    return Interval(low, high, closed[0] and low is not None, closed[1] and high is not None)


def intervals(rng: random.Random) -> Case:
    """Bounded or not, in brackets or as an inequality."""
    low, high = _ascending(rng, 2)
    ends: tuple[Ends, ...] = ((low, high), (low, high), (None, high), (low, None))
    interval = _between(*rng.choice(ends), rng)
    x = rng.choice("xxyat")
    other = [form for miss in interval.near_misses() for form in miss.written(x)]
    if interval.low is not None and interval.high is not None:
        swapped = interval._replace(low=high, high=low)
        other += [swapped.brackets(), swapped.brackets(plain), tex(high - low)]
    else:
        other.append(tex(high if interval.low is None else low))
    references = [interval.brackets(), interval.brackets(), interval.inequality(x), interval.inequality(x, LONG_SIGNS)]
    return Case(rng.choice(references), interval.written(x), other)


def unions(rng: random.Random) -> Case:
    """Of two intervals, or everything but a number."""
    a, b, c, d = _ascending(rng, 4)
    x = rng.choice("xxyt")
    if rng.random() < 0.25:
        return _hole(*rng.sample((a, b, c, d), 2), x=x, rng=rng)
    outer: tuple[Ends, Ends] = ((None, a), (b, None))
    ends: tuple[tuple[Ends, Ends], ...] = (outer, outer, ((a, b), (c, d)), ((a, b), (c, None)), ((None, a), (b, c)))
    first, second = (_between(*pair, rng) for pair in rng.choice(ends))

    def written(*parts: Interval) -> list[str]:
        mixed = rng.sample(parts, len(parts))
        return [
            " \\cup ".join(part.brackets() for part in parts),
            "\\cup".join(part.brackets(separator=",") for part in mixed),
            " ∪ ".join(part.brackets(plain) for part in mixed),
            f"{x} \\in " + " \\cup ".join(part.brackets() for part in mixed),
            " \\text{ or } ".join(part.inequality(x) for part in mixed),
            " or ".join(part.inequality(x, LONG_SIGNS) for part in parts),
            "\\text{ or }".join(part.inequality(x, LONG_SIGNS) for part in mixed),
        ]

    assert second.low is not None
    further = second._replace(low=second.low + Fraction(1, 3)) if second.high is None else second
    misses = [(miss, second) for miss in first.ends_flipped()] + [(first, miss) for miss in second.ends_flipped()]
    misses.append((first, further._replace(high=None if second.high is None else second.high + 1)))
    other = [form for miss in misses for form in written(*miss)]
    other += [first.brackets(), second.brackets(), first.inequality(x), f"{first.brackets()} \\cap {second.brackets()}"]
    same = written(first, second)
    return Case(rng.choice((same[0], same[0], same[4])), same, other)


def _hole(at: Fraction, near: Fraction, *, x: str, rng: random.Random) -> Case:
    pieces = "(-\\infty, @a) \\cup (@a, \\infty) | (-\\infty,@a)\\cup(@a,\\infty)"
    ways = f"{pieces} | @x \\ne @a | @x \\neq @a | \\mathbb{{R}} \\setminus \\{{@a\\}} | @x ≠ @b"
    same = forms(f"{ways} | @x < @a \\text{{ or }} @x > @a", x=x, a=tex(at), b=plain(at))
    closed = "(-\\infty, @a] \\cup (@a, \\infty) | (-\\infty, @a) \\cup [@a, \\infty)"
    wrong = forms(f"{closed} | @x > @a | @x < @a | @x = @a | @a", x=x, a=tex(at))
    return Case(rng.choice((same[0], same[2])), same, wrong + forms(ways, x=x, a=tex(near), b=plain(near)))


def _elements(rng: random.Random, count: int, most: int = 30) -> list[Fraction]:
    """Different numbers, a few of them thirds."""
    grid = [Fraction(k) for k in range(-most, most + 1)] * 4 + [Fraction(k, 3) for k in range(-10, 11) if k % 3]
    return list(dict.fromkeys(rng.choices(grid, k=40)))[:count]


def _one_changed(elements: Sequence[Fraction], rng: random.Random) -> list[Fraction]:
    """To a number that is not among them."""
    i = rng.randrange(len(elements))
    changes = [elements[i] + 1, elements[i] - 1, -elements[i], 2 * elements[i], max(elements) + 3]
    changed = rng.choice([value for value in changes if value not in elements])
    return [changed if k == i else value for k, value in enumerate(elements)]


def sets(rng: random.Random) -> Case:
    """In any order; a tuple is no set."""
    if rng.random() < 0.08:
        wrong = forms("\\{0\\} | 0 | \\{\\emptyset\\} | \\mathbb{R} | \\{@a\\} | @a", a=rng.randint(1, 99))
        same = ["\\emptyset", "\\varnothing", "\\{\\}", "∅", "\\{ \\}", "$\\emptyset$"]
        return Case(rng.choice(same[:2]), same, wrong)
    elements = _elements(rng, rng.randint(2, 5))

    def written(elements: Sequence[Fraction]) -> list[str]:
        mixed = rng.sample(list(elements), len(elements))
        in_tex, tight = ", ".join(map(tex, mixed)), ",".join(map(plain, mixed))
        return [*framed("\\{@\\} | \\left\\{@\\right\\} | \\{ @ \\}", [in_tex]), f"\\{{{tight}\\}}"]

    inside = ", ".join(map(tex, elements))
    misses = [elements[1:], _one_changed(elements, rng), _one_changed(elements, rng), [*elements, max(elements) + 1]]
    other = [form for miss in misses for form in written(miss)] + [f"({inside})"]
    return Case(f"\\{{{inside}\\}}", written(elements), other)


def lists(rng: random.Random) -> Case:
    """Several solutions, in any order."""
    if rng.random() < 0.2:
        n = rng.randint(1, 99)
        ways = "\\pm @n | \\pm@n | @n, -@n | -@n, @n | x = \\pm @n | @n \\text{ and } -@n | ±@n"
        wrong = forms("@n | -@n | \\pm @m | @n, -@m | 0, @n | x = @n", n=n, m=n + 1)
        return Case(rng.choice(forms(ways, n=n)[:4]), forms(ways, n=n), wrong)
    elements = _elements(rng, rng.choice((2, 2, 3)), most=rng.choice((30, 30, 999)))

    def written(elements: Sequence[Fraction]) -> list[str]:
        mixed = rng.sample(list(elements), len(elements))
        comma, equal = ", ".join(map(tex, mixed)), ", ".join(f"x = {tex(value)}" for value in mixed)
        found = [comma, ", ".join(map(plain, mixed)), ", ".join(map(tex, elements)), f"x = {comma}", equal]
        *before, last = map(tex, mixed)
        head, tail = ", ".join(before), plain(mixed[-1])
        found += [f"{head} \\text{{ and }} {last}", f"{', '.join(map(plain, mixed[:-1]))} and {tail}"]
        if len(mixed) == 2:
            ways = "@a \\text{ or } @b | x = @a \\text{ or } x = @b | @a or @b | x=@a or x=@b"
            found += forms(ways, a=head, b=last)
        return found

    misses = [_one_changed(elements, rng), _one_changed(elements, rng), [*elements, max(elements) + 2]]
    if len(elements) == 3:
        misses.append(elements[:2])
    other = [form for miss in misses for form in written(miss)] + [tex(elements[0]), tex(elements[-1])]
    first, last = tex(elements[0]), tex(elements[-1])
    references = [", ".join(map(tex, elements))]
    if len(elements) == 2:
        references += [*references, f"{first} \\text{{ or }} {last}", f"{first} \\text{{ and }} {last}"]
    return Case(rng.choice(references), written(elements), other)


def tuples(rng: random.Random) -> Case:
    """In their order; a set is no tuple."""
    if rng.random() < 0.08:
        k, (x, y) = nonzero(rng, 99), rng.choice(("mn", "xy", "ab"))
        same = "(@k, @k) | (@k,@k) | @x = @k, @y = @k | @x = @y = @k | (@x, @y) = (@k, @k)"
        wrong = "(@k, @l) | @x = @k, @y = @l | @x = @y = @l | (@l, @l) | (@l, @k)"
        values = {"k": k, "l": rng.choice((k + 1, k - 1, -k)), "x": x, "y": y}
        return Case(f"{x}={y}={k}", forms(same, **values), forms(wrong, **values))
    elements = _elements(rng, rng.choice((2, 2, 3, 3, 4)), most=20)

    def written(elements: Sequence[Fraction]) -> list[str]:
        in_tex, tight = ", ".join(map(tex, elements)), list(map(plain, elements))
        found = framed("(@) | \\left(@\\right) | ( @ )", [in_tex])
        found += [f"({','.join(tight)})", f"（{'，'.join(tight)}）"]
        names = ["", "", "(x, y)", "(x, y, z)", "(x, y, z, w)"][min(len(elements), 4)]
        return [*found, f"{names} = ({in_tex})"] if names else found

    misses = [[*elements[1:], elements[0]], _one_changed(elements, rng), _one_changed(elements, rng)]
    if len(elements) > 2:
        misses.append(elements[:-1])
    other = [form for miss in misses for form in written(miss)]
    inside = ", ".join(map(tex, elements))
    return Case(f"({inside})", written(elements), [*other, f"({inside}, 0)", f"\\{{{inside}\\}}", tex(elements[0])])


def matrices(rng: random.Random) -> Case:
    """And vectors, in round or square brackets."""
    height, width = rng.choice(((2, 2), (2, 2), (2, 1), (3, 1), (2, 3), (3, 3)))
    rows = [[rng.randint(-9, 9) for _ in range(width)] for _ in range(height)]
    rows[0][0] = 10  # in one place only: turned around it is another matrix

    def written(rows: Sequence[Sequence[int]]) -> list[str]:
        inside = " \\\\ ".join(" & ".join(map(str, row)) for row in rows)
        ways = "\\begin{pmatrix} @ \\end{pmatrix} | \\begin{bmatrix} @ \\end{bmatrix} | \\begin{pmatrix}@\\end{pmatrix}"
        return framed(ways, [inside]) + framed(ways, [inside.replace(" ", "")])

    raised = [list(row) for row in rows]
    raised[rng.randrange(height)][rng.randrange(width)] += 1
    misses = [raised, [[-x for x in row] for row in rows], rows[::-1]]
    if width > 1:
        misses.append([row[::-1] for row in rows])
    return Case(written(rows)[0], written(rows), [form for miss in misses for form in written(miss)])
