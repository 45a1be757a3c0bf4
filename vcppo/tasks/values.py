"""Types of an answer once it is read: a number, an expression, words, a list, a region or an equation."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import sympy as sp


class UnreadableError(Exception):
    """No sense can be made of an answer."""


@dataclass(frozen=True)
class Number:
    """A number that is written out, with the unit behind it. It never goes through a float."""

    value: Fraction
    places: int | None = None  # after the point; None: not a decimal
    digits: int = 0  # significant ones of a decimal
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Expression:
    """Anything else with a value: a tree of sympy that is not evaluated, as latex2sympy gives it."""

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
    """A set of real numbers."""

    points: Any  # sympy's
    name: str = ""  # the variable that lies in it, if given
    inequality: bool = False  # it was written as one, and not as an interval
    trees: tuple[Any, ...] = ()  # its ends, as they were written


@dataclass(frozen=True)
class Equation:
    """Two sides."""

    left: Any  # a tree; None where it is words or several names
    value: "Value"
    name: str = ""  # the left side, if it is a variable or a function alone, or words


Value = Number | Expression | Words | Items | Region | Equation
Read = Callable[[str], Value]


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


def trees_of(value: Value) -> Iterator[Any]:
    """Yield all that was parsed in a value, as written; numbers that are written out and words are not parsed."""
    match value:
        case Expression():
            yield value.tree
        case Items():
            for item in value.items:
                yield from trees_of(item)
        case Region():
            yield from value.trees
        case Equation(value=Number() | Expression()) if value.left is not None:
            yield sp.Eq(value.left, tree_of(value.value), evaluate=False)
        case Equation():
            yield from trees_of(value.value)
