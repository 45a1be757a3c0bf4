r"""Whether two readings have one value: numbers exactly, expressions at points, sets in any order, tuples in theirs.

What counts as equal:

    numbers      as fractions of integers, whatever their size; decimals may be roundings; see numbers.py
    constants    to 1,000 digits, if sympy does not see that they are equal
    expressions  of the same letters: at some rational points; exactly where they are rational there, else to 60 digits
    equations    x = 5 is met by 5; one whose left side is more than a name by an equation whose sides differ by a
                 constant multiple of what its own differ by, and by no value
    lists        sets in any order, tuples and lists in theirs; a bare list is a set or a list in any order, or a tuple
                 in its order; one of names with values is in that order unless both name them
    regions      intervals, unions and inequalities of one variable, by their boundaries
    words        letters and digits, whatever their case
    units        if both sides have one, the same

No tolerance is absolute. What cannot be compared raises UnreadableError and is not unequal.
"""

import itertools
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import mpmath
import sympy as sp
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

from vcppo.tasks.numbers import equal_numbers, same_unit, stands_for
from vcppo.tasks.relations import as_region
from vcppo.tasks.values import Equation, Expression, Items, Number, Region, UnreadableError, Value, Words, tree_of

_DIGITS, _APART = 60, mpmath.mpf(10) ** -40  # constants that differ by more need no closer look
_CLOSE_LOOK = 1000  # digits
_AT_POINTS, _AGREE = 80, mpmath.mpf(10) ** -60
_POINTS = [
    Fraction(7, 5), Fraction(-3, 7), Fraction(11, 13), Fraction(29, 8), Fraction(5, 31), Fraction(-17, 6),
    Fraction(53, 9),
]  # fmt: skip
_TRIES, _ENOUGH = 12, 5  # choices of points, and those at which both sides have to have a value
_UNDEFINED = (sp.nan, sp.zoo)
_INFINITE = (sp.oo, -sp.oo)


def equal(reference: Value, answer: Value) -> bool:
    """Whether an answer is what its reference is.

    Raises:
        UnreadableError: they cannot be compared.
    """
    if isinstance(reference, Equation) or isinstance(answer, Equation):
        return _equal_equations(reference, answer)
    if isinstance(reference, Words) or isinstance(answer, Words):
        return _equal_words(reference, answer)
    if isinstance(reference, Region) or isinstance(answer, Region):
        return _equal_regions(reference, answer)
    if isinstance(reference, Items) or isinstance(answer, Items):
        return _equal_items(reference, answer)
    if not same_unit(reference.unit, answer.unit):
        return False
    if isinstance(reference, Number) and isinstance(answer, Number):
        return equal_numbers(reference, answer)
    return _equal_values(reference, answer)


# ---- expressions ----


def _equal_values(reference: Number | Expression, answer: Number | Expression) -> bool:
    first, second = tree_of(reference), tree_of(answer)
    if isinstance(first, sp.MatrixBase) or isinstance(second, sp.MatrixBase):
        return (
            isinstance(first, sp.MatrixBase) and isinstance(second, sp.MatrixBase) and first.shape == second.shape
            and all(map(_equal_trees, first, second))
        )  # fmt: skip
    if _equal_trees(first, second):
        return True
    decimals = [(value, tree) for value, tree in ((reference, second), (answer, first)) if isinstance(value, Number)]
    return any(_rounds_to(number, tree) for number, tree in decimals if number.places and not tree.free_symbols)


def _equal_trees(a: Any, b: Any) -> bool:
    """Whether two expressions are equal; as written, else by their values."""
    if a == b:
        return True
    a, b = _exact(a), _exact(b)
    if a.free_symbols | b.free_symbols:
        return _agree_at_points(a, b)
    return _equal_constants(a.doit(), b.doit())


def _exact(tree: Any) -> Any:
    """With fractions for decimals, letters for functions, the imaginary unit for `i` unless something counts by it."""
    bound = {symbol for part in tree.atoms(sp.Sum, sp.Product) for limit in part.limits for symbol in limit[:1]}
    known: dict[Any, Any] = {part: sp.Rational(str(part)) for part in tree.atoms(sp.Float)}
    known |= {part: sp.I for part in tree.atoms(sp.Symbol) - bound if part.name == "i"}
    letters = {part: sp.Symbol(str(part), real=True) for part in tree.atoms(AppliedUndef)}
    return tree.xreplace(letters).xreplace(known)


def _equal_constants(a: Any, b: Any) -> bool:
    if a.has(*_UNDEFINED) or b.has(*_UNDEFINED):
        raise UnreadableError
    if a in _INFINITE or b in _INFINITE:
        return bool(a == b)
    difference = a - b
    if difference.is_Rational:
        return bool(difference == 0)
    first, second, apart = (_value(tree, _DIGITS) for tree in (a, b, difference))
    if abs(apart) > _APART * max(abs(first), abs(second)) and not _is_zero(difference):
        return False
    parts = difference.as_real_imag() if difference.has(sp.I) else (difference,)
    return all(map(_is_zero, parts))


def _is_zero(tree: Any) -> bool:
    try:
        return bool(tree.evalf(5, maxn=_CLOSE_LOOK, strict=True) == 0)
    except PrecisionExhausted:  # no digit of it is other than 0
        return True


def _value(tree: Any, digits: int) -> Any:
    """mpmath's number.

    Raises:
        UnreadableError: it has none.
    """
    with mpmath.workdps(digits):
        found = sp.N(tree, digits, maxn=10 * digits)
        if not found.is_number or found.has(*_UNDEFINED, *_INFINITE):
            raise UnreadableError
        return mpmath.mpmathify(found)


def _agree_at_points(a: Any, b: Any) -> bool:
    """Whether two expressions agree wherever both are real, or both have imaginary units, at enough points."""
    symbols, compared = sorted(a.free_symbols | b.free_symbols, key=str), 0
    a, b, is_real = a.doit(), b.doit(), not (a.has(sp.I) or b.has(sp.I))
    for start in range(_TRIES):
        first, second = (tree.subs(_point(symbols, start)) for tree in (a, b))
        if first.is_Rational and second.is_Rational:
            agrees = bool(first == second)
        else:
            try:
                values = [_value(tree, _AT_POINTS) for tree in (first, second)]
            except UnreadableError:  # not defined there
                continue
            agrees = bool(abs(values[0] - values[1]) <= _AGREE * max(map(abs, values)))
            if not agrees and is_real and all(isinstance(value, mpmath.mpc) for value in values):
                continue  # nobody wrote of complex numbers
        if not agrees:
            return False
        compared += 1
        if compared == len(_POINTS):
            return True
    if compared < _ENOUGH:
        raise UnreadableError
    return True


def _point(symbols: list[Any], start: int) -> dict[Any, Any]:
    values = itertools.islice(itertools.cycle(_POINTS), start, None)
    scaled = [value * (1 + Fraction(start, 9)) for value in itertools.islice(values, len(symbols))]
    return {symbol: sp.Rational(x.numerator, x.denominator) for symbol, x in zip(symbols, scaled, strict=True)}


def _rounds_to(number: Number, tree: Any) -> bool:
    """Whether a constant, rounded to the places of a decimal, is that decimal."""
    value = _value(_exact(tree).doit(), _DIGITS)
    if isinstance(value, mpmath.mpc) or abs(value) > mpmath.mpf(10) ** 40:
        return False
    return stands_for(number, Fraction(mpmath.nstr(value, 50, strip_zeros=False, min_fixed=-mpmath.inf, max_fixed=50)))


# ---- words ----


def _equal_words(reference: Value, answer: Value) -> bool:
    """An answer that is other words than mathematics is not understood; mathematics is no word."""
    first, second = _letters(reference), _letters(answer)
    if first is not None and second is not None:
        return first == second
    if isinstance(answer, Words | Region):
        raise UnreadableError
    return False


def _letters(value: Value) -> str | None:
    """Words, or the letter of `(A)`."""
    if isinstance(value, Words):
        return value.text
    if isinstance(value, Expression) and isinstance(value.tree, sp.Symbol):
        return str(value.tree).casefold()
    return None


# ---- lists ----


def _equal_items(reference: Value, answer: Value) -> bool:
    first, second = (value if isinstance(value, Items) else Items((value,), "bare") for value in (reference, answer))
    for several, single in ((first, second), (second, first)):
        if len(single.items) == 1 and several.kind == "bare" and _names(several):  # m = n = 1 and 1
            return _all(equal(item, single.items[0]) for item in several.items)
    if len(first.items) != len(second.items):
        return False
    kinds = {first.kind, second.kind} - {"bare"}
    if len(kinds) > 1:
        return False
    names = [_names(value) for value in (first, second)]
    if all(names) or not (any(names) or kinds & {"tuple"} or first.kind == second.kind == "list"):
        return _match(first.items, second.items)
    return kinds != {"set"} and _all(equal(a, b) for a, b in zip(first.items, second.items, strict=True))


def _names(value: Items) -> bool:
    """Whether several values have each a name of its own, which orders them."""
    names = [item.name for item in value.items if isinstance(item, Equation) and item.name]
    return len(names) > 1 and len(set(names)) == len(value.items)


def _match(first: tuple[Value, ...], second: tuple[Value, ...]) -> bool:
    """Whether each of the one is one of the other; equality is transitive, so the first that fits will do."""
    left, doubt = list(second), False
    for value in first:
        for other in left:
            try:
                if equal(value, other):
                    left.remove(other)
                    break
            except UnreadableError:
                doubt = True
        else:
            if doubt:
                raise UnreadableError
            return False
    return True


def _all(verdicts: Iterable[bool]) -> bool:
    return all(list(verdicts))  # each is asked, since it may be unreadable


# ---- equations ----


def _equal_equations(reference: Value, answer: Value) -> bool:
    if not isinstance(reference, Equation):
        assert isinstance(answer, Equation)
        if isinstance(reference, Items) and not isinstance(answer.value, Items):
            return _equal_items(reference, answer)
        if isinstance(reference, Region | Words) and not answer.name:
            return False
        return equal(reference, answer.value)
    if not isinstance(answer, Equation):
        return bool(reference.name) and equal(reference.value, answer)
    if reference.name and reference.name == answer.name:
        return equal(reference.value, answer.value)
    return _proportional(reference, answer)


def _proportional(first: Equation, second: Equation) -> bool:
    """Whether the sides of two equations differ by the same, but for a constant factor."""
    if first.left is None or second.left is None or isinstance(first.left, sp.MatrixBase):
        return False
    a, b = (_exact(equation.left - tree_of(equation.value)).doit() for equation in (first, second))
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    if not symbols:
        return equal(first.value, second.value)
    for start in range(_TRIES):
        here, there = (tree.subs(_point(symbols, start)) for tree in (a, b))
        if here.is_finite and there.is_finite and _value(here, _DIGITS) != 0 and _value(there, _DIGITS) != 0:
            return _agree_at_points(a * there, b * here)
    raise UnreadableError


# ---- regions ----


def _equal_regions(reference: Value, answer: Value) -> bool:
    names = {value.name for value in (reference, answer) if isinstance(value, Region) and value.name}
    first, second = as_region(reference), as_region(answer)
    if len(names) > 1 or first is None or second is None:
        return False
    if first.points == second.points:
        return True
    parts, others = _parts(first.points), _parts(second.points)
    return len(parts) == len(others) and all(map(_same_part, parts, others))


def _parts(points: Any) -> list[Any]:
    """Intervals and numbers, ascending.

    Raises:
        UnreadableError: it is not made of such.
    """
    points = points.doit()
    parts: list[Any] = []
    if points is sp.S.EmptySet:
        return parts
    for part in points.args if isinstance(points, sp.Union) else [points]:
        if isinstance(part, sp.FiniteSet):
            parts += [sp.Interval(x, x) if x.is_number else sp.FiniteSet(x) for x in part.args]
        elif isinstance(part, sp.Interval):
            parts.append(part)
        else:
            raise UnreadableError
    return sorted(parts, key=lambda part: (float(part.inf) if part.inf.is_number else 0.0, str(part)))


def _same_part(a: Any, b: Any) -> bool:
    if isinstance(a, sp.Interval) and isinstance(b, sp.Interval):
        open_ends = (a.left_open, a.right_open) == (b.left_open, b.right_open)
        return open_ends and _same_end(a.start, b.start) and _same_end(a.end, b.end)
    if isinstance(a, sp.FiniteSet) and isinstance(b, sp.FiniteSet):
        return all(map(_same_end, a.args, b.args))
    return bool(a == b)


def _same_end(a: Any, b: Any) -> bool:
    return bool(a == b) or _equal_trees(a, b)
