"""Write values in the ways that models do."""

import random
import re
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext
from fractions import Fraction
from typing import NamedTuple


class Case(NamedTuple):
    """A reference, what has its value, and what has another. The reference may be among the first."""

    reference: str
    same: Sequence[str]
    other: Sequence[str]


def forms(templates: str, **values: object) -> list[str]:
    """Templates between bars, each `@name` in them replaced.

    >>> forms("@a/@b | \\\\frac{@a}{@b}", a=1, b=2)
    ['1/2', '\\\\frac{1}{2}']
    """
    filled = re.sub(r"@(\w)", lambda name: str(values[name[1]]), templates)
    return [form.strip() for form in filled.strip().split(" | ")]


def framed(frames: str, texts: Sequence[str]) -> list[str]:
    """Every text in every frame: templates between bars with an @ for the text."""
    return [frame.replace("@", text) for frame in frames.split(" | ") for text in texts]


def fixed(value: Fraction, places: int) -> str:
    """Decimal digits, rounded half up."""
    with localcontext(prec=60):
        exact = Decimal(value.numerator) / Decimal(value.denominator)
        return f"{exact.quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP):f}"


def decimal_places(value: Fraction) -> int | None:
    """That it takes to write it exactly, None where 9 are not enough."""
    return next((k for k in range(10) if (value * 10**k).denominator == 1), None)


def exact_decimals(value: Fraction) -> list[str]:
    """Its decimal digits, if it has an end."""
    places = decimal_places(value)
    return [] if places is None else [fixed(value, places)]


def tex(value: Fraction | int, command: str = "\\frac") -> str:
    """12 or \\frac{3}{4}, the sign before it."""
    value = Fraction(value)
    if value.denominator == 1:
        return str(value)
    return f"{'-' if value < 0 else ''}{command}{{{abs(value.numerator)}}}{{{value.denominator}}}"


def plain(value: Fraction | int) -> str:
    """12 or 3/4."""
    return str(Fraction(value))


def nonzero(rng: random.Random, most: int, least: int = 1) -> int:
    """Of either sign."""
    return rng.choice((-1, 1)) * rng.randint(least, most)


def broken(rng: random.Random, most: int, above: int = 0) -> Fraction:
    """A positive number that is no integer, numerator and denominator up to some size."""
    while True:
        value = Fraction(rng.randint(1, 4 * most), rng.randint(2, most))
        if value.denominator > 1 and value > above:
            return value
