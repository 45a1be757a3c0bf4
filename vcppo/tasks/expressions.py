"""Compare the values of two expressions, whatever they are written as. No tolerance is absolute."""

import itertools
from fractions import Fraction
from typing import Any

import mpmath
import sympy as sp
from sympy.core.evalf import PrecisionExhausted
from sympy.core.function import AppliedUndef

from vcppo.tasks.numbers import stands_for
from vcppo.tasks.values import Number, UnreadableError

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


def equal_trees(a: Any, b: Any) -> bool:
    """True where two expressions are equal; as written, else by their values."""
    if a == b:
        return True
    a, b = _exact(a), _exact(b)
    if a.free_symbols | b.free_symbols:
        return _agree_at_points(a, b)
    return _equal_constants(a.doit(), b.doit())


def _exact(tree: Any) -> Any:
    """With fractions for decimals, letters for functions, the imaginary unit for `i` unless something counts by it."""
    bound = {symbol for part in tree.atoms(sp.Sum, sp.Product) for limit in part.limits for symbol in limit[:1]}
    replacements: dict[Any, Any] = {part: sp.Rational(str(part)) for part in tree.atoms(sp.Float)}
    replacements |= {part: sp.I for part in tree.atoms(sp.Symbol) - bound if part.name == "i"}
    letters = {part: sp.Symbol(str(part), real=True) for part in tree.atoms(AppliedUndef)}
    return tree.xreplace(letters).xreplace(replacements)


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
    """Evaluate to mpmath's number.

    Raises:
        UnreadableError: it has none.
    """
    with mpmath.workdps(digits):
        number = sp.N(tree, digits, maxn=10 * digits)
        if not number.is_number or number.has(*_UNDEFINED, *_INFINITE):
            raise UnreadableError
        return mpmath.mpmathify(number)


def _agree_at_points(a: Any, b: Any) -> bool:
    """True where two expressions agree wherever both are real, or both have imaginary units, at enough points."""
    symbols, points = sorted(a.free_symbols | b.free_symbols, key=str), 0
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
                continue  # complex numbers were not meant
        if not agrees:
            return False
        points += 1
        if points == len(_POINTS):
            return True
    if points < _ENOUGH:
        raise UnreadableError
    return True


def _point(symbols: list[Any], start: int) -> dict[Any, Any]:
    values = itertools.islice(itertools.cycle(_POINTS), start, None)
    scaled = [value * (1 + Fraction(start, 9)) for value in itertools.islice(values, len(symbols))]
    return {symbol: sp.Rational(x.numerator, x.denominator) for symbol, x in zip(symbols, scaled, strict=True)}


def are_proportional(a: Any, b: Any) -> bool:
    """True where an expression is a multiple of another by a constant that is not 0.

    Raises:
        UnreadableError: undecided, since both are 0 wherever it was tried.
    """
    a, b = _exact(a).doit(), _exact(b).doit()
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    for start in range(_TRIES):
        here, there = (tree.subs(_point(symbols, start)) for tree in (a, b))
        if here.is_finite and there.is_finite and _value(here, _DIGITS) != 0 and _value(there, _DIGITS) != 0:
            return _agree_at_points(a * there, b * here)
    raise UnreadableError


def rounds_to(number: Number, tree: Any) -> bool:
    """True where a constant, rounded to the places of a decimal, is that decimal."""
    value = _value(_exact(tree).doit(), _DIGITS)
    if isinstance(value, mpmath.mpc) or abs(value) > mpmath.mpf(10) ** 40:
        return False
    return stands_for(number, Fraction(mpmath.nstr(value, 50, strip_zeros=False, min_fixed=-mpmath.inf, max_fixed=50)))
