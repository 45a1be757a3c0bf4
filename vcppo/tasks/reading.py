r"""What an answer says, from its normalised text: a number, an expression, a list, a region, an equation, words.

The outermost structure is read here, so that a tuple, a set and an interval are three things and nothing is taken for
what it is not; what is left, an expression without commas and relations, is math-verify's to parse. A number that is
written out stays a fraction of integers and never goes through a float.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import sympy as sp

from vcppo.tasks.numbers import AND_OR, FUNCTIONS, UNIT, Number, is_of_thousands, is_words, read_number, words

Parse = Callable[[str], Any]  # of an expression: a tree of sympy, None if it is none


@dataclass(frozen=True)
class Expression:
    """Anything else with a value."""

    tree: Any
    unit: str = ""


@dataclass(frozen=True)
class Words:
    """Letters, digits and signs, without case and blanks."""

    text: str


@dataclass(frozen=True)
class Items:
    """Several values: (1, 2) is a tuple, [1, 2] a list, \\{1, 2\\} a set, `1, 2` and `1 or 2` bare."""

    items: tuple["Value", ...]
    kind: Literal["tuple", "list", "set", "bare"]


@dataclass(frozen=True)
class Region:
    """A set of real numbers; `name` is the variable that lies in it, if that was said."""

    points: Any  # sympy's
    name: str = ""
    inequality: bool = False  # it was written as one, and not as an interval


@dataclass(frozen=True)
class Equation:
    """Two sides; `name` is the left one if it is a variable or a function alone, or words."""

    left: Any
    value: "Value"
    name: str = ""


Value = Number | Expression | Words | Items | Region | Equation

_NAME = re.compile(
    r"(?:\\?[A-Za-z]+|\\text\{[^{}]*\}|\\(?:angle|overline|vec|hat)\s*\{?\s*[A-Za-z]+\s*\}?|\|[A-Z]{2}\|)"
    r"(?:_(?:\{[^{}]*\}|[A-Za-z0-9]))?'*(?:\^\{?(?:-1|')+\}?)?(?:\s*\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)*\s*\))?"
)
_CONSTANTS = frozenset(("e", "i", "\\pi", "\\infty"))
_RELATION = re.compile(r"\\(?:le|ge|ne|in|approx)(?![A-Za-z])|[=<>]")
_OPENING, _CLOSING = "([{", ")]}"
_BASE = re.compile(r"([0-9][0-9A-F]*)_(?:\{\s*([0-9]+)\s*\}|([0-9]+))")
_LETTER = re.compile(r"(?<![\\A-Za-z])[A-Za-z](?![A-Za-z])|\\(?:alpha|beta|theta|phi|lambda|mu|omega)(?![A-Za-z])")
_PLUS_MINUS = re.compile(r"\\(pm|mp)(?![A-Za-z])")
_REALS = {"\\mathbb{R}": sp.S.Reals, "\\emptyset": sp.S.EmptySet}
_MATHS_WORDS = re.compile(r"\\[A-Za-z]+|(?<![A-Za-z])[A-Za-z]{1,3}(?![A-Za-z])")


class UnreadableError(Exception):
    """No sense can be made of an answer."""


def read(text: str, parse: Parse) -> Value:
    """The value of a normalised text.

    Raises:
        UnreadableError: it has none.
    """
    text = text.strip()
    if not text:
        raise UnreadableError
    number = read_number(text)
    if number is not None:
        return number
    if is_words(text):
        return Words(words(text))
    return (
        _alternatives(text, parse) or _relation(text, parse) or _several(text, parse) or _region(text, parse)
        or _bracketed(text, parse) or _expression(text, parse)
    )  # fmt: skip


# ---- lists ----


def split(text: str, separators: str) -> list[str]:
    """Parts at separators outside brackets; a comma between thousands is none."""
    parts, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in _OPENING) - (c in _CLOSING)
        if depth == 0 and c in separators and not (c == "," and is_of_thousands(text, i)):
            parts.append(text[start:i])
            start = i + 1
    return [part.strip() for part in (*parts, text[start:])]


def _alternatives(text: str, parse: Parse) -> Value | None:
    """`x < 1 or x > 3` is a region; `1 or 3`, `1 and 3` and `1, 2, and 3` are bare lists; so is \\pm."""
    found, depth = [], 0
    for match in AND_OR.finditer(text):
        depth = sum(text.count(c, 0, match.start()) for c in _OPENING) - sum(
            text.count(c, 0, match.start()) for c in _CLOSING
        )
        if depth == 0:
            found.append(match)
    if found:
        ends = [0, *(match.end() for match in found)]
        starts = [*(match.start() for match in found), len(text)]
        parts = [text[start:end].strip(" ,") for start, end in zip(ends, starts, strict=True)]
        inside = [read(part, parse) for group in parts for part in split(group, ",;") if part]
        either = {match[1] or {"lor": "or", "vee": "or"}.get(match[2], "and") for match in found}
        if all(isinstance(value, Region) and value.inequality for value in inside) and len(either) == 1:
            return _joined([v for v in inside if isinstance(v, Region)], union=either == {"or"})
        return Items(tuple(inside), "bare")
    if _PLUS_MINUS.search(text) and len(split(text, ",;")) == 1:
        both = [_with_sign(text, plus, minus) for plus, minus in ("+-", "-+")]
        left, relation, _ = text.partition("=")
        values = [read(one.replace("=+", "=").replace("= +", "=").lstrip("+ "), parse) for one in both]
        if relation and all(isinstance(value, Equation) and value.name for value in values):
            values = [value.value for value in values if isinstance(value, Equation)]
            return Equation(None, Items(tuple(values), "bare"), _name(left.strip()) or "")
        return Items(tuple(values), "bare")
    return None


def _with_sign(text: str, plus_minus: str, minus_plus: str) -> str:
    return _PLUS_MINUS.sub(lambda match: plus_minus if match[1] == "pm" else minus_plus, text)


def _joined(regions: list[Region], *, union: bool) -> Region:
    names = {region.name for region in regions}
    if len(names) > 1:
        raise UnreadableError
    points = regions[0].points
    for region in regions[1:]:
        points = sp.Union(points, region.points) if union else sp.Intersection(points, region.points)
    return Region(points, names.pop(), inequality=True)


def _several(text: str, parse: Parse) -> Value | None:
    """`1, 2` without brackets."""
    parts = split(text, ",;")
    if len(parts) == 1:
        return None
    values = [read(part, parse) for part in parts if part]
    regions = [value for value in values if isinstance(value, Region) and value.inequality]
    if len(regions) == len(values) > 1 and len({region.name for region in regions}) == 1:
        holes = [region for region in regions if _is_hole(region)]
        if holes:  # x > 1, x \ne 2
            return _joined(regions, union=False)
    return Items(tuple(values), "bare")


def _is_hole(region: Region) -> bool:
    return isinstance(sp.Complement(sp.S.Reals, region.points), sp.FiniteSet)


def _bracketed(text: str, parse: Parse) -> Value | None:
    """Something whole in brackets: an interval, a tuple, a list, a set, or one value that needs none."""
    if text.startswith("\\{") and text.endswith("\\}") and _closes(text, 1) == len(text) - 1:
        return _set(text[2:-2].strip(), parse)
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return Items(tuple(read(part, parse) for part in split(text[7:-7], ",;")), "tuple")
    if text[0] not in "([" or text[-1] not in ")]" or _closes(text, 0) != len(text) - 1:
        return None
    inner = text[1:-1]
    parts = split(inner, ";") if ";" in inner else _commas(inner)
    if len(parts) == 1:
        return read(inner, parse) if text[0] == "(" and text[-1] == ")" else Items((read(inner, parse),), "list")
    values = tuple(read(part, parse) for part in parts)
    if text[0] + text[-1] in ("(]", "[)"):
        if len(values) != 2:
            raise UnreadableError
        ends = [tree_of(value) for value in values]
        return Region(interval(*ends, left_open=text[0] == "(", right_open=text[-1] == ")"))
    return Items(values, "tuple" if text[0] == "(" else "list")


def _commas(text: str) -> list[str]:
    """In brackets every comma separates, but for those of 1,234,567."""
    if re.search(r"(?<![0-9])[0-9]{1,3}(?:,[0-9]{3}){2,}(?![0-9])", text):
        return split(text, ",")
    return split(text.replace(",", ", "), ",")


def _set(inner: str, parse: Parse) -> Value:
    if not inner:
        return Region(sp.S.EmptySet)
    builder = re.fullmatch(r"(.+?)\s*(?:\\mid|\||:)\s*(.+)", inner, re.DOTALL)
    if builder and _RELATION.search(builder[2]):
        value = read(builder[2], parse)
        if isinstance(value, Region):
            return Region(value.points)
        raise UnreadableError
    return Items(tuple(read(part, parse) for part in _commas(inner)), "set")


def _closes(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes, whatever its kind; -1 if nowhere."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in _OPENING) - (text[i] in _CLOSING)
        if depth == 0:
            return i
    return -1


# ---- regions ----


def interval(left: Any, right: Any, *, left_open: bool, right_open: bool) -> Any:
    """Sympy's, of ends that may be infinite.

    Raises:
        UnreadableError: an end is no real number.
    """
    for end in (left, right):
        if not getattr(end, "is_extended_real", False) and not getattr(end, "free_symbols", None):
            raise UnreadableError
    return sp.Interval(left, right, left_open=left_open, right_open=right_open)


def as_region(value: Value) -> Any:
    """The points of what may be meant as a set of real numbers; None if it cannot be.

    A tuple or a list of two is an interval too, a set of numbers a set.
    """
    if isinstance(value, Region):
        return value.points
    if isinstance(value, Items):
        trees = [tree_of(item) for item in value.items if isinstance(item, Number | Expression)]
        if len(trees) < len(value.items):
            return None
        if value.kind == "set":
            return sp.FiniteSet(*trees)
        if value.kind in ("tuple", "list") and len(trees) == 2:
            is_open = value.kind == "tuple"
            return interval(*trees, left_open=is_open, right_open=is_open)
    return None


def _region(text: str, parse: Parse) -> Value | None:
    """Unions, intersections and differences of intervals and sets; the real numbers."""
    if text in _REALS:
        return Region(_REALS[text])
    for sign, join in (("\\cup", sp.Union), ("\\cap", sp.Intersection), ("\\setminus", sp.Complement)):
        parts = split(text.replace(sign, "\0"), "\0")
        if len(parts) > 1:
            regions = [as_region(read(part, parse)) for part in parts]
            if any(region is None for region in regions):
                raise UnreadableError
            return Region(join(*regions) if sign != "\\setminus" else join(regions[0], sp.Union(*regions[1:])))
    return None


# ---- relations ----


def _relation(text: str, parse: Parse) -> Value | None:
    pieces = list(_relations(text))
    if not pieces:
        return None
    signs = [sign for _, sign in pieces[1:]]
    sides = [side for side, _ in pieces]
    if any(not side for side in sides) or "\\approx" in signs:
        raise UnreadableError
    if signs == ["\\in"]:
        name, inside = _name(sides[0]), as_region(read(sides[1], parse))
        if name is None or inside is None:
            raise UnreadableError
        return Region(inside, name, inequality=True)
    if set(signs) == {"="}:
        return _equation(sides, parse)
    return _inequality(sides, signs, parse)


def _relations(text: str) -> Iterator[tuple[str, str]]:
    """(side, sign before it) of a chain, outside brackets; nothing where there is no relation or a list of them."""
    signs = []
    for match in _RELATION.finditer(text):
        before = text[: match.start()]
        if sum(map(before.count, _OPENING)) == sum(map(before.count, _CLOSING)):
            signs.append(match)
    if not signs or len(split(text, ",;")) > 1:
        return
    starts = [0, *(match.end() for match in signs)]
    ends = [*(match.start() for match in signs), len(text)]
    for start, end, sign in zip(starts, ends, ("", *(match.group() for match in signs)), strict=True):
        yield text[start:end].strip(), sign


def _name(side: str) -> str | None:
    """A variable, a function of variables, or words; None if it is more than a name."""
    if side in _CONSTANTS or not _NAME.fullmatch(side) or side.lstrip("\\") in FUNCTIONS:
        return None
    bare = re.sub(r"[\s{}]", "", side)
    letters = re.match(r"[A-Za-z]+", bare)
    if letters and len(letters.group()) > 1 and not re.fullmatch(r"[A-Z]{2,3}|[A-Za-z]{4,}", letters.group()):
        return None  # xy is a product
    return words(bare) if "\\text" in side else bare


def _equation(sides: list[str], parse: Parse) -> Value:
    """Chains: `m = n = 1` gives both names, `9 + 8 = 17` and `x = 9 + 8 = 17` end in their value."""
    names = [_name(side) for side in sides]
    if names[-1] is not None and names[0] is None and not _LETTER.search(sides[0]):  # 5 = x
        sides, names = sides[::-1], names[::-1]
    value = read(sides[-1], parse)
    if len(sides) > 2 and all(name is not None for name in names[:-1]):
        return Items(tuple(Equation(None, value, name) for name in names[:-1] if name is not None), "bare")
    if names[0] is not None:
        left = None if "text" in sides[0] else _tree(sides[0], parse)
        return Equation(left, value, names[0])
    return Equation(tree_of(read(sides[0], parse)), value)


def _inequality(sides: list[str], signs: list[str], parse: Parse) -> Value:
    """A region of the one variable that an inequality has."""
    points: Any = sp.S.Reals
    variable: Any = None
    for (left, right), sign in zip(pairwise(sides), signs, strict=True):
        trees = [_tree(side, parse) for side in (left, right)]
        symbols = set().union(*(getattr(tree, "free_symbols", set()) for tree in trees))
        alone = [tree for tree in trees if isinstance(tree, sp.Symbol)]
        if len(symbols) != 1 and not alone:
            raise UnreadableError
        variable = alone[0] if alone and variable is None else next(iter(symbols)) if variable is None else variable
        if trees[0] != variable and trees[1] == variable:
            trees.reverse()
            sign = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}.get(sign, sign)
        points = sp.Intersection(points, _solved(trees, sign, variable))
    return Region(points, str(variable), inequality=True)


def _solved(trees: list[Any], sign: str, variable: Any) -> Any:
    left, right = trees
    if left == variable and variable not in right.free_symbols:
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
            case _:
                raise UnreadableError
    kinds = {"<": sp.StrictLessThan, ">": sp.StrictGreaterThan, "\\le": sp.LessThan, "\\ge": sp.GreaterThan}
    kinds |= {"\\ne": sp.Unequality, "=": sp.Equality}
    return kinds[sign](left, right).as_set()


# ---- expressions ----


def tree_of(value: Value) -> Any:
    """Of a number or an expression.

    Raises:
        UnreadableError: it is neither.
    """
    if isinstance(value, Number):
        return sp.Rational(value.value.numerator, value.value.denominator * (100 if value.percent else 1))
    if isinstance(value, Expression):
        return value.tree
    if isinstance(value, Items) and value.kind == "list" and len(value.items) == 1:
        return tree_of(value.items[0])
    raise UnreadableError


def _tree(text: str, parse: Parse) -> Any:
    return tree_of(read(text, parse))


def _expression(text: str, parse: Parse) -> Value:
    unit = ""
    if match := UNIT.fullmatch(text):
        text, unit = match[1].strip(), words(match[2])
    if text.endswith("^\\circ"):
        text = text.removesuffix("^\\circ")
    base = _BASE.fullmatch(text)
    if base:
        return Words(f"{base[1]}_{base[2] or base[3]}".casefold())
    tree = parse(text)
    if tree is None:
        raise UnreadableError
    return Expression(tree, unit)
