r"""Compare the values of two readings: numbers exactly, expressions at points, sets in any order, tuples in theirs.

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

from collections.abc import Iterable
from typing import Any

import sympy as sp

from vcppo.tasks.expressions import are_proportional, equal_trees, rounds_to
from vcppo.tasks.numbers import equal_numbers, same_unit
from vcppo.tasks.relations import as_region
from vcppo.tasks.values import Equation, Expression, Items, Number, Region, UnreadableError, Value, Words, tree_of


def equal(reference: Value, answer: Value) -> bool:
    """Return whether an answer equals its reference.

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
            and all(map(equal_trees, first, second))
        )  # fmt: skip
    if equal_trees(first, second):
        return True
    decimals = [(value, tree) for value, tree in ((reference, second), (answer, first)) if isinstance(value, Number)]
    return any(rounds_to(number, tree) for number, tree in decimals if number.places and not tree.free_symbols)


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
    """True where several values have each a name of its own, which orders them."""
    names = [item.name for item in value.items if isinstance(item, Equation) and item.name]
    return len(names) > 1 and len(set(names)) == len(value.items)


def _match(first: tuple[Value, ...], second: tuple[Value, ...]) -> bool:
    """True where each of the one is one of the other; equality is transitive, so the first that fits will do."""
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
    return all(list(verdicts))  # each is computed, since it may be unreadable


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
    """True where the sides of two equations differ by the same, but for a constant factor."""
    if first.left is None or second.left is None or isinstance(first.left, sp.MatrixBase):
        return False
    a, b = (equation.left - tree_of(equation.value) for equation in (first, second))
    if a.free_symbols | b.free_symbols:
        return are_proportional(a, b)
    return equal(first.value, second.value)


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
    return bool(a == b) or equal_trees(a, b)
