r"""Whether two readings have one value: numbers exactly, expressions at points, sets in any order, tuples in theirs.

What counts as equal:

    numbers      as fractions of integers, whatever their size: no tolerance
    decimals     beside an exact value: one with six significant digits or more that is its rounding to those places
                 (0.333333 for 1/3); of two decimals one may be the rounding of the other likewise
    percent      12\% is 0.12, and 12 where the other side has no percent sign
    constants    exactly if rational, else to 200 digits; 0 if sympy can tell that it is
    expressions  of the same letters: at every one of some rational points, to 60 digits
    equations    x = 5 is met by 5; one whose left side is more than a name by an equation whose sides differ by a
                 constant multiple of what its own differ by, and by no value
    lists        sets and bare lists in any order, tuples and lists in theirs; a bare list beside a tuple in its order
    regions      intervals, unions, inequalities of one variable, by their boundaries
    units        if both sides have one, the same
"""

import itertools
from fractions import Fraction
from typing import Any

import mpmath
import sympy as sp

from vcppo.tasks.numbers import UNITS, Number, words
from vcppo.tasks.reading import (
    Equation,
    Expression,
    Items,
    Region,
    UnreadableError,
    Value,
    Words,
    as_region,
    tree_of,
)

_DIGITS, _AGREE = 220, mpmath.mpf(10) ** -200  # of constants
_AT_POINTS, _AGREE_AT_POINTS = 80, mpmath.mpf(10) ** -60
_POINTS = [Fraction(7, 5), Fraction(-3, 7), Fraction(11, 13), Fraction(-17, 6), Fraction(29, 8), Fraction(5, 31)]
_ENOUGH = 4  # points at which both sides have a value


def equal(reference: Value, answer: Value) -> bool:
    """Whether an answer is what its reference is.

    Raises:
        UnreadableError: they cannot be compared.
    """
    if isinstance(reference, Equation) or isinstance(answer, Equation):
        return _equal_equations(reference, answer)
    if isinstance(reference, Region) or isinstance(answer, Region):
        return _equal_regions(reference, answer)
    if isinstance(reference, Words) or isinstance(answer, Words):
        return _equal_words(reference, answer)
    if isinstance(reference, Items) or isinstance(answer, Items):
        return _equal_items(reference, answer)
    if not _same_unit(reference.unit, answer.unit):
        return False
    if isinstance(reference, Number) and isinstance(answer, Number):
        return _equal_numbers(reference, answer)
    return _equal_values(reference, answer)


# ---- numbers ----


def _equal_numbers(a: Number, b: Number) -> bool:
    if a.percent != b.percent:
        plain, percent = (b, a) if a.percent else (a, b)
        return any(_equal_fractions(plain, percent, scale) for scale in (Fraction(1, 100), Fraction(1)))
    return _equal_fractions(a, b)


def _equal_fractions(a: Number, b: Number, scale: Fraction = Fraction(1)) -> bool:
    """`scale` is what b's value is multiplied with, 1/100 of a percentage."""
    shift = 0 if scale == 1 else 2
    first, second = a.value, b.value * scale
    if first == second:
        return True
    places = None if b.places is None else b.places + shift
    return (a.rounds and _rounded(second, a.places) == first and _is_finer(places, a.places)) or (
        b.rounds and _rounded(first, places) == second and _is_finer(a.places, places)
    )


def _is_finer(places: int | None, than: int | None) -> bool:
    """Of two decimals the one with fewer places may be a rounding of the other."""
    return places is None or than is None or places > than


def _rounded(value: Fraction, places: int | None) -> Fraction:
    """Half away from zero."""
    unit = Fraction(10) ** (places or 0)
    scaled = abs(value) * unit
    nearest = Fraction((2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator))
    return (nearest if value >= 0 else -nearest) / unit


# ---- expressions ----


def _equal_values(reference: Number | Expression, answer: Number | Expression) -> bool:
    first, second = tree_of(reference), tree_of(answer)
    if isinstance(first, sp.MatrixBase) or isinstance(second, sp.MatrixBase):
        return (
            isinstance(first, sp.MatrixBase) and isinstance(second, sp.MatrixBase) and first.shape == second.shape
            and all(_equal_trees(a, b) for a, b in zip(first, second, strict=True))
        )  # fmt: skip
    if _equal_trees(first, second):
        return True
    for number, tree in ((reference, second), (answer, first)):
        if isinstance(number, Number) and number.rounds and not tree.free_symbols:
            return _rounds_to(number, tree)
    return False


def _equal_trees(a: Any, b: Any) -> bool:
    """Whether two expressions are equal; as written, else by their values."""
    if a == b:
        return True
    a, b = _with_exact_decimals(a), _with_exact_decimals(b)
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if symbols:
        if {s.name for s in a.free_symbols} != {s.name for s in b.free_symbols}:
            return bool(sp.simplify(a - b) == 0)
        return _agree_at_points(a, b, symbols)
    a, b = a.doit(), b.doit()
    if a.is_Rational and b.is_Rational:
        return bool(a == b)
    first, second = _value_of(a), _value_of(b)
    if first == 0 or second == 0:
        return bool(first == second) or bool(sp.simplify(a - b) == 0)
    return bool(abs(first - second) <= _AGREE * max(abs(first), abs(second)))


def _with_exact_decimals(tree: Any) -> Any:
    return tree.replace(lambda part: isinstance(part, sp.Float), lambda part: sp.Rational(str(part)))


def _value_of(tree: Any, digits: int = _DIGITS) -> Any:
    """mpmath's number.

    Raises:
        UnreadableError: it has none.
    """
    with mpmath.workdps(digits):
        found = sp.N(tree.doit(), digits, maxn=10 * digits)
        if not found.is_number or found.has(sp.nan, sp.zoo, sp.oo, -sp.oo):
            raise UnreadableError
        return mpmath.mpmathify(found)


def _agree_at_points(a: Any, b: Any, symbols: list[Any]) -> bool:
    compared = 0
    for start in range(2 * len(_POINTS)):
        points = itertools.islice(itertools.cycle(_POINTS), start, start + len(symbols))
        scale = 1 + Fraction(start, 9)
        at = {s: sp.Rational(p.numerator * scale.numerator, p.denominator * scale.denominator)
              for s, p in zip(symbols, points, strict=True)}  # fmt: skip
        try:
            first, second = (_value_of(tree.doit().subs(at), _AT_POINTS) for tree in (a, b))
        except UnreadableError:
            continue
        if abs(first - second) > _AGREE_AT_POINTS * max(abs(first), abs(second), mpmath.mpf(10) ** -40):
            return False
        compared += 1
        if compared == len(_POINTS):
            return True
    if compared < _ENOUGH:
        raise UnreadableError
    return True


def _rounds_to(number: Number, tree: Any) -> bool:
    """Whether a constant, rounded to the places of a decimal, is that decimal."""
    value = _value_of(tree)
    if isinstance(value, mpmath.mpc) and value.imag:
        return False
    real = mpmath.re(value)
    if abs(real) > mpmath.mpf(10) ** 40:
        return False
    exact = Fraction(str(sp.Rational(str(mpmath.nstr(real, 50, strip_zeros=False)))))
    scale = Fraction(1, 100) if number.percent else Fraction(1)
    places = (number.places or 0) + (2 if number.percent else 0)
    return _rounded(exact, places) == number.value * scale


def _same_unit(a: str, b: str) -> bool:
    """Raises UnreadableError where both are said and nobody knows whether they are the same."""
    if not a or not b or a == b:
        return True
    first, second = (UNITS.get(unit.rstrip(".")) for unit in (a, b))
    if first is None or second is None:
        if a.rstrip("s") == b.rstrip("s"):
            return True
        raise UnreadableError
    return first == second


# ---- words ----


def _equal_words(reference: Value, answer: Value) -> bool:
    said = [value.text if isinstance(value, Words) else _letter(value) for value in (reference, answer)]
    if isinstance(reference, Words) and said[1] is not None:
        return said[0] == said[1]
    if isinstance(reference, Words):  # mathematics is none of these words
        return False
    if said[0] is not None:
        return said[0] == said[1]
    raise UnreadableError


def _letter(value: Value) -> str | None:
    """`A`, or A times B for AB."""
    if isinstance(value, Expression) and isinstance(value.tree, sp.Symbol):
        return words(value.tree.name)
    return None


# ---- lists ----


def _equal_items(reference: Value, answer: Value) -> bool:
    if not isinstance(reference, Items) or not isinstance(answer, Items):
        single, several = (answer, reference) if isinstance(reference, Items) else (reference, answer)
        assert isinstance(several, Items)
        return len(several.items) == 1 and equal(several.items[0], single)
    if len(reference.items) != len(answer.items):
        return False
    kinds = {reference.kind, answer.kind}
    if len(kinds - {"bare"}) > 1:
        return False
    if kinds <= {"set", "bare"} and _match(reference.items, answer.items):
        return True
    return kinds != {"set"} and all(map(_equal_or_not, reference.items, answer.items)) and kinds != {"bare"}


def _match(first: tuple[Value, ...], second: tuple[Value, ...]) -> bool:
    """Whether each of the one is one of the other; equality is transitive, so the first that fits will do."""
    left = list(second)
    for value in first:
        place = next((i for i, other in enumerate(left) if _equal_or_not(value, other)), None)
        if place is None:
            return False
        del left[place]
    return True


def _equal_or_not(first: Value, second: Value) -> bool:
    try:
        return equal(first, second)
    except UnreadableError:
        return False


# ---- equations ----


def _equal_equations(reference: Value, answer: Value) -> bool:
    if isinstance(reference, Equation) and isinstance(answer, Equation):
        if reference.name and answer.name and reference.name == answer.name:
            return equal(reference.value, answer.value)
        return _proportional(reference, answer)
    if isinstance(reference, Equation):
        if not reference.name:
            return False
        return equal(reference.value, answer)
    assert isinstance(answer, Equation)
    if isinstance(reference, Items | Words | Region) and not answer.name:
        return False
    return equal(reference, answer.value)


def _proportional(first: Equation, second: Equation) -> bool:
    """Whether the sides of two equations differ by the same, but for a constant factor."""
    differences = []
    for equation in (first, second):
        if equation.left is None or isinstance(equation.left, sp.MatrixBase):
            return False
        differences.append(_with_exact_decimals(equation.left - tree_of(equation.value)))
    a, b = differences
    symbols = sorted(a.free_symbols, key=str)
    if {s.name for s in symbols} != {s.name for s in b.free_symbols}:
        return False
    if not symbols:
        return equal(first.value, second.value)
    at = {s: sp.Rational(p.numerator, p.denominator) for s, p in zip(symbols, itertools.cycle(_POINTS), strict=False)}
    here, there = (_value_of(tree.doit().subs(at), _AT_POINTS) for tree in (a, b))
    if here == 0 or there == 0:
        raise UnreadableError
    ratio = sp.nsimplify(sp.Rational(1) * a.subs(at) / b.subs(at))
    return _agree_at_points(a, ratio * b, symbols)


# ---- regions ----


def _equal_regions(reference: Value, answer: Value) -> bool:
    names = [value.name for value in (reference, answer) if isinstance(value, Region) and value.name]
    if len(set(names)) > 1:
        return False
    first, second = as_region(reference), as_region(answer)
    if first is None or second is None:
        if isinstance(reference, Region) and isinstance(answer, Words):
            raise UnreadableError
        return False
    return first == second or bool(_ends(first) == _ends(second)) or _equal_pieces(first, second)


def _ends(points: Any) -> Any:
    return points.doit() if hasattr(points, "doit") else points


def _equal_pieces(first: Any, second: Any) -> bool:
    pieces = [_pieces(points) for points in (first, second)]
    if len(pieces[0]) != len(pieces[1]):
        return False
    return all(
        type(a) is type(b)
        and getattr(a, "left_open", None) == getattr(b, "left_open", None)
        and getattr(a, "right_open", None) == getattr(b, "right_open", None)
        and len(a.args) == len(b.args)
        and all(_same_end(x, y) for x, y in zip(_bounds(a), _bounds(b), strict=True))
        for a, b in zip(*pieces, strict=True)
    )


def _pieces(points: Any) -> list[Any]:
    parts = list(points.args) if isinstance(points, sp.Union) else [points]
    if not all(isinstance(part, sp.Interval | sp.FiniteSet) for part in parts):
        raise UnreadableError
    return sorted(parts, key=lambda part: (float(part.inf) if part.inf.is_number else 0.0, str(type(part))))


def _bounds(piece: Any) -> tuple[Any, ...]:
    if isinstance(piece, sp.Interval):
        return (piece.start, piece.end)
    return tuple(sorted(piece.args, key=lambda x: float(x) if x.is_number else 0.0))


def _same_end(a: Any, b: Any) -> bool:
    return bool(a == b) or (a.is_finite is not False and b.is_finite is not False and _equal_trees(a, b))
