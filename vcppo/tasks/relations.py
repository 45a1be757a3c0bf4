r"""Equations and inequalities, and the sets of real numbers that inequalities and intervals are.

1 < x \le 3,  x \in (1, 3],  (1, 3],  (1; 3]       one region
x < 1 or x > 3,  x < 1, x > 3                      a union
x > 1, x \ne 2                                     an intersection, since it is not empty
x = 5,  5 = x,  f(x) = 5                           a name and a value
m = n = 1                                          two names, each with its value
(x, y) = (1, 2)                                    a tuple with names
9 + 8 = 17                                         two sides
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import sympy as sp

from vcppo.tasks.values import (
    Equation,
    Expression,
    Items,
    Number,
    Read,
    Region,
    UnreadableError,
    Value,
    tree_of,
    trees_of,
)

OPENING, CLOSING = "([{", ")]}"
_FUNCTIONS = (
    "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt frac binom pi infty circ gcd lcm "
    "max min det"
)
FUNCTIONS = frozenset(_FUNCTIONS.split())
SETS = {
    "\\emptyset": sp.S.EmptySet, "\\mathbb{R}": sp.S.Reals, "\\mathbb{Z}": sp.S.Integers, "\\mathbb{N}": sp.S.Naturals,
    "\\mathbb{Q}": sp.S.Rationals,
}  # fmt: skip
RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![A-Za-z])|[=<>]")
_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
_KINDS = {
    "<": sp.StrictLessThan, ">": sp.StrictGreaterThan, "\\le": sp.LessThan, "\\ge": sp.GreaterThan,
    "\\ne": sp.Unequality, "=": sp.Equality,
}  # fmt: skip
_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|\\text\{[^{}]*\}|\\(?:angle|overline|vec|hat)\s*\{?\s*[A-Za-z]+\s*\}?|\|[A-Z]{2}\|)"
    r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*(?:\^\{?(?:-1|')+\}?)?(?:\s*\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)*\s*\))?"
)
_CONSTANTS = frozenset(("e", "i", "\\pi", "\\infty"))


# ---- lists ----


def split(text: str, separators: str) -> list[str]:
    """Parts at separators outside brackets."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in OPENING) - (c in CLOSING)
        if depth == 0 and c in separators:
            parts.append(text[start:i].strip())
            start = i + 1
    return [*parts, text[start:].strip()]


def outside_brackets(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """Matches of a pattern that stand in no brackets."""
    depths, depth = [], 0
    for c in text:
        depths.append(depth)
        depth += (c in OPENING) - (c in CLOSING)
    return [match for match in pattern.finditer(text) if depths[match.start()] == 0]


def between(matches: Sequence[re.Match[str]], text: str) -> list[str]:
    """Return the texts before, between and behind matches, stripped: one more than there are matches."""
    starts = [0, *(match.end() for match in matches)]
    ends = [*(match.start() for match in matches), len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True)]


# ---- regions ----


def interval(left: Value, right: Value, *, left_open: bool, right_open: bool) -> Region:
    """Between two values, which may be infinite.

    Raises:
        UnreadableError: an end is no real number, or the left one is beyond the right.
    """
    ends = [tree_of(value) for value in (left, right)]
    for end in ends:
        if not getattr(end, "is_extended_real", False) and not getattr(end, "free_symbols", None):
            raise UnreadableError
    if _is_empty(*ends, closed=not (left_open or right_open)):
        raise UnreadableError
    trees = (*trees_of(left), *trees_of(right))
    return Region(sp.Interval(*ends, left_open=left_open, right_open=right_open), trees=trees)


def _is_empty(left: Any, right: Any, *, closed: bool) -> bool:
    """True where nothing lies between two numbers: nobody writes the empty set so, and any point (5, 2) would be it."""
    return bool(left.is_number and right.is_number and (left > right or (left == right and not closed)))


def as_region(value: Value) -> Region | None:
    """Return what a value may mean as a set of real numbers: an interval, as tuples and lists of two, or a set."""
    if isinstance(value, Region):
        return value
    if not isinstance(value, Items) or not all(isinstance(item, Number | Expression) for item in value.items):
        return None
    if value.kind == "set":
        return Region(sp.FiniteSet(*map(tree_of, value.items)), trees=tuple(trees_of(value)))
    if value.kind in ("tuple", "list") and len(value.items) == 2:
        if _is_empty(*map(tree_of, value.items), closed=value.kind == "list"):
            return None
        return interval(*value.items, left_open=value.kind == "tuple", right_open=value.kind == "tuple")
    return None


def region(text: str, read: Read) -> Region | None:
    """Unions, intersections and differences of intervals and sets; sets of numbers by their names."""
    if text in SETS:
        return Region(SETS[text])
    for sign, join in (("\\cup", sp.Union), ("\\cap", sp.Intersection), ("\\setminus", sp.Complement)):
        parts = split(text.replace(sign, "\0"), "\0")
        if len(parts) > 1:
            regions = [as_region(read(part)) for part in parts if part]
            readable = [part for part in regions if part is not None]
            if len(readable) < len(parts):
                raise UnreadableError
            points = [part.points for part in readable]
            joined = join(points[0], sp.Union(*points[1:])) if sign == "\\setminus" else join(*points)
            return Region(joined, trees=tuple(tree for part in readable for tree in part.trees))
    return None


def joined(values: Sequence[Value], word: str) -> Region | None:
    """Inequalities of one variable as one region, None if they are not such.

    Args:
        word: what stands between them, `or`, `and` or a comma. An empty intersection is never meant, so
            `x < 1 and x > 3` is a union; with a comma an intersection that is one of its parts, as of x > 1, x > 3,
            is no region.
    """
    regions = [value for value in values if isinstance(value, Region) and value.inequality]
    if len(regions) < max(2, len(values)) or len({part.name for part in regions}) > 1:
        return None
    points = [part.points for part in regions]
    both = sp.Intersection(*points)
    if word == "or" or both.is_empty:
        both = sp.Union(*points)
    elif word == "," and both in points:
        return None
    return Region(both, regions[0].name, inequality=True, trees=tuple(tree for part in regions for tree in part.trees))


# ---- relations ----


def relation(text: str, read: Read) -> Value | None:
    """An equation, an inequality, a membership, or a chain of them; None if a text is none."""
    signs = outside_brackets(RELATION, text)
    if not signs:
        return None
    sides, words = between(signs, text), [match.group() for match in signs]
    if not all(sides) or "\\approx" in words:
        raise UnreadableError
    if words == ["\\in"]:
        value = read(sides[1])
        name, inside = name_of(sides[0]), as_region(value)
        if name is None or inside is None:
            raise UnreadableError
        if isinstance(value, Items) and value.kind == "set":  # x \in \{1, 2\}
            return value
        return Region(inside.points, name, inequality=True, trees=inside.trees)
    if set(words) == {"="}:
        return _equation(sides, read)
    return _inequality(sides, words, read)


def name_of(side: str) -> str | None:
    """A variable, a function of variables, or words; None if it is more than a name."""
    if side in _CONSTANTS or not _NAME.fullmatch(side) or side.lstrip("\\") in FUNCTIONS:
        return None
    bare = re.sub(r"\\text\b|[\s{}]", "", side)
    letters = re.match(r"[A-Za-z]+", bare)
    if letters and len(letters.group()) > 1 and "\\text" not in side and "\\" not in side:
        return bare if re.fullmatch(r"[A-Z]{2,3}|[A-Za-z]{4,}", letters.group()) else None  # xy is a product
    return bare


def _equation(sides: list[str], read: Read) -> Value:
    """Chains: `m = n = 1` gives both names, `9 + 8 = 17` and `x = 9 + 8 = 17` end in their value."""
    names = [name_of(side) for side in sides]
    value = read(sides[-1])
    if names[-1] is not None and names[0] is None and len(sides) == 2:  # 5 = x, but not a + b = c
        other = read(sides[0])
        if not any(tree.free_symbols for tree in trees_of(other)):
            return Equation(tree_of(value), other, names[-1])
    several = _names(sides[0])
    if several and isinstance(value, Items) and len(value.items) == len(several):
        items = zip(several, value.items, strict=True)
        return Items(tuple(Equation(None, item, name) for name, item in items), "tuple")
    if len(sides) > 2 and all(name is not None for name in names[:-1]):
        return Items(tuple(Equation(None, value, name) for name in names[:-1] if name is not None), "bare")
    if names[0] is not None:
        return Equation(None if "\\text" in sides[0] else _tree_or_none(sides[0], read), value, names[0])
    return Equation(tree_of(read(sides[0])), value)


def _names(side: str) -> list[str]:
    """Return the names of `(x, y)`, none if it is no tuple of names."""
    if side[0] + side[-1] != "()":
        return []
    names = [name_of(part) for part in split(side[1:-1], ",")]
    return [name for name in names if name is not None] if len(names) > 1 and None not in names else []


def _tree_or_none(side: str, read: Read) -> Any:
    value = read(side)
    return tree_of(value) if isinstance(value, Expression) else None


def _inequality(sides: list[str], signs: list[str], read: Read) -> Region:
    """A region of the one variable that an inequality has."""
    points: Any = sp.S.Reals
    variable: Any = None
    trees = [tree_of(read(side)) for side in sides]
    for (left, right), sign in zip(pairwise(trees), signs, strict=True):
        alone = [tree for tree in (left, right) if isinstance(tree, sp.Symbol)]
        symbols = left.free_symbols | right.free_symbols
        if len(symbols) != 1 and not alone:
            raise UnreadableError
        variable = variable or (alone[0] if alone else next(iter(symbols)))
        if right == variable and left != variable:
            left, right, sign = right, left, _TURNED.get(sign, sign)
        points = sp.Intersection(points, _solved(left, sign, right, variable))
    parsed = tuple(tree for tree in trees if not isinstance(tree, sp.Symbol))
    return Region(points, str(variable), inequality=True, trees=parsed)


def _solved(left: Any, sign: str, right: Any, variable: Any) -> Any:
    """The values of a variable for which a relation holds."""
    if left != variable or variable in right.free_symbols:
        if sign not in _KINDS:
            raise UnreadableError
        return _KINDS[sign](left, right).as_set()
    match sign:
        case "<":
            return sp.Interval.open(-sp.oo, right)
        case ">":
            return sp.Interval.open(right, sp.oo)
        case "\\le":
            return sp.Interval(-sp.oo, right)
        case "\\ge":
            return sp.Interval(right, sp.oo)
        case "\\ne":
            return sp.Complement(sp.S.Reals, sp.FiniteSet(right))
        case "=":
            return sp.FiniteSet(right)
    raise UnreadableError
