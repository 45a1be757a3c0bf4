r"""The value of an answer, from its normalised text.

The outermost structure is read here, so that a tuple, a set and an interval are three things and nothing is taken for
what it is not; what is left, an expression without commas and relations, is latex2sympy's to parse.
"""

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import sympy as sp

from vcppo.tasks.numbers import read_number, with_unit
from vcppo.tasks.relations import (
    CLOSING,
    FUNCTIONS,
    OPENING,
    between,
    interval,
    joined,
    name_of,
    outside_brackets,
    region,
    relation,
    split,
)
from vcppo.tasks.values import (
    Equation,
    Expression,
    Items,
    Read,
    Region,
    UnreadableError,
    Value,
    Words,
)

Parse = Callable[[str], Any]  # of an expression: a tree of sympy, None if it is none

_SHORT_WORDS = frozenset(("no", "yes", "odd"))
_PHRASES = {
    **dict.fromkeys(("nosolution", "nosolutions", "emptyset", "theemptyset"), sp.S.EmptySet),
    **dict.fromkeys(("allrealnumbers", "allreals", "realnumbers"), sp.S.Reals),
}
AND_OR = re.compile(r"(?:\\text\{\s*)?(?<![A-Za-z\\])(and|or)(?![A-Za-z])(?:\s*\})?|\\(lor|land|vee|wedge)(?![A-Za-z])")
_EITHER = {"or": "or", "lor": "or", "vee": "or"}
_PLUS_MINUS = re.compile(r"(=?)\s*\\(pm|mp)(?![A-Za-z])")
_BASE = re.compile(r"([0-9][0-9A-F]*)_(?:\{([0-9]+)\}|([0-9]+))")
_BUILDER = re.compile(r"(.+?)\s*(?:\\mid(?![A-Za-z])|\||:)\s*(.+)", re.DOTALL)


def read(text: str, parse: Parse) -> Value:
    """Return the value of a normalised text.

    Raises:
        UnreadableError: it has none.
    """
    text = text.strip()
    if not text:
        raise UnreadableError
    number = read_number(text)
    if number is not None:
        return number
    again: Read = partial(read, parse=parse)
    if is_words(text):
        phrase = words(text)
        return Region(_PHRASES[phrase]) if phrase in _PHRASES else Words(phrase)
    return (
        _alternatives(text, again) or _several(text, again) or relation(text, again) or region(text, again)
        or _bracketed(text, again) or _expression(text, parse)
    )  # fmt: skip


def is_words(text: str) -> bool:
    """True where a text is words of a language rather than mathematics."""
    if re.fullmatch(r"(?:\\text\{[^{}]*[A-Za-z][^{}]*\}[\s,]*)+", text):
        return True
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    before, unit = with_unit(text)
    if unit and re.search("[0-9]", before) and not re.search("[A-Za-z]", before):
        return False  # 9 + 8 dollars
    if AND_OR.search(text) or re.search(r"[\\^_{}=<>|]", bare):
        return False
    letter_runs = re.findall("[A-Za-z]+", bare)
    return any((len(word) > 3 and word not in FUNCTIONS) or word.lower() in _SHORT_WORDS for word in letter_runs)


def words(text: str) -> str:
    """Words without what does not matter in them.

    >>> words("\\\\text{June 20}"), words("June 20."), words("Yes!")
    ('june20', 'june20', 'yes')
    """
    return re.sub(r"[^\w+\-*/=<>%.]|_", "", re.sub(r"\\text\b", "", text)).casefold().strip(".")


# ---- lists ----


def _alternatives(text: str, read: Read) -> Value | None:
    r"""`x < 1 or x > 3` is a region; `1 or 3`, `1 and 3` and `1, 2, and 3` are bare lists; so is `\pm 3`."""
    matches = outside_brackets(AND_OR, text)
    if matches:
        parts = [part.strip(" ,") for part in between(matches, text)]
        values = [read(part) for group in parts for part in split(group, ",;") if part]
        either = {_EITHER.get(match[1] or match[2], "and") for match in matches}
        return (joined(values, *either) if len(either) == 1 else None) or _bare(values)
    if _PLUS_MINUS.search(text) and len(split(text, ",;")) == 1:
        both = [_PLUS_MINUS.sub(partial(_signed, signs), text).strip() for signs in ("+-", "-+")]
        values = [read(one.removeprefix("+")) for one in both]
        return _bare(values)
    return None


def _bare(values: Sequence[Value]) -> Items:
    """A list without brackets; such lists in it, as of a plus-minus sign, are parts of it."""
    parts = [value.items if isinstance(value, Items) and value.kind == "bare" else (value,) for value in values]
    return Items(tuple(item for part in parts for item in part), "bare")


def _signed(signs: str, match: re.Match[str]) -> str:
    sign = signs[match[2] == "mp"]
    return match[1] if match[1] and sign == "+" else match[1] + sign


def _several(text: str, read: Read) -> Value | None:
    r"""`1, 2` without brackets; `x \ne 1, 2` is one region, and so may be several inequalities."""
    parts = [part for part in split(text, ",;") if part]
    if len(parts) == 1:
        return read(parts[0]) if parts[0] != text else None
    values = [read(part) for part in parts]
    first, rest = values[0], values[1:]
    if isinstance(first, Region) and first.inequality and "\\ne" in parts[0] and not any(map(_is_relation, rest)):
        values = [first, *(read(f"{first.name} \\ne {part}") for part in parts[1:])]
    return joined(values, ",") or _bare(values)


def _is_relation(value: Value) -> bool:
    return isinstance(value, Equation | Region)


def _bracketed(text: str, read: Read) -> Value | None:
    """Something whole in brackets: an interval, a tuple, a list, a set, or one value that needs none."""
    if text.startswith("\\{") and text.endswith("\\}") and _closes(text, 1) == len(text) - 1:
        return _set(text[2:-2].strip(), read)
    if text.startswith("\\langle") and text.endswith("\\rangle"):
        return Items(tuple(map(read, split(text[7:-7], ",;"))), "tuple")
    if text[0] not in "([" or text[-1] not in ")]" or _closes(text, 0) != len(text) - 1:
        return None
    inner = text[1:-1]
    parts = split(inner, ";" if ";" in inner else ",")
    if len(parts) == 1:
        return read(inner) if text[0] == "(" and text[-1] == ")" else Items((read(inner),), "list")
    values = tuple(map(read, parts))
    if text[0] + text[-1] in ("(]", "[)"):
        if len(values) != 2:
            raise UnreadableError
        return interval(*values, left_open=text[0] == "(", right_open=text[-1] == ")")
    return Items(values, "tuple" if text[0] == "(" else "list")


def _set(inner: str, read: Read) -> Value:
    if not inner:
        return Region(sp.S.EmptySet)
    builder = _BUILDER.fullmatch(inner)
    if builder and name_of(re.split(r"\\in(?![A-Za-z])", builder[1])[0].strip()):
        value = read(builder[2])
        if isinstance(value, Region):
            return Region(value.points, trees=value.trees)
        raise UnreadableError
    return Items(tuple(map(read, split(inner, ",;"))), "set")


def _closes(text: str, start: int) -> int:
    """Return where the bracket that opens at `start` closes, whatever its kind; -1 if nowhere."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in OPENING) - (text[i] in CLOSING)
        if depth == 0:
            return i
    return -1


# ---- expressions ----


def _expression(text: str, parse: Parse) -> Value:
    """Parse an expression with its unit. Digits of another base are a symbol, compared as written."""
    text, unit = with_unit(text)
    base = _BASE.fullmatch(text)
    if base:
        return Expression(sp.Symbol(f"{base[1]}_{base[2] or base[3]}", real=True))
    if not re.search(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])", text):
        text = text.removesuffix("^\\circ").strip()
    tree = parse(text)
    if tree is None:
        raise UnreadableError
    return Expression(tree, unit)
