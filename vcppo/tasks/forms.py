r"""Form of an answer: a value, or a computation that the comparison would have to carry out.

`9 + 8` equals 17, and so do `\sqrt{289}`, `34/2` and `17!/16!`; a policy that is paid for them learns to copy the
question. So what the parser has read, which is not evaluated yet, is searched for operations left to do:

    sum          terms that go together: numbers, 2x + 3x; a multiple of a sum in a sum
    product      of numbers, of powers of one base, with 0, of complex numbers; what cancels
    quotient     that comes out (34/2, not 2/4), of fractions or decimals, by a complex number
    power, root  of numbers (2^4, 9^{1/2}) and of what is made of them; anything to the power of 0 or 1
    surd         a root that does not come out: \sqrt{12}
    terms        a sum of constants that do not go together: 1 + \sqrt{2}, 3 + 4i
    constant     a power of a constant: e^2, 2^\pi
    letters      in a sum, where the reference has none
    relation     an inequality that is not solved for a letter, 3x < 12; beside x = 2 an equation of one letter, too
    matrix       determinants and transposes
    set          intersections and differences
    log, ...     any function, factorial, integral, ... by its name

An answer may hold those of its reference: beside 2^{10} or 10!, powers or factorials are answers. Else, by form,

    number       none
    closed-form  surd, terms and constant, if the reference is not rational
    expression   all

None are the ways to write a number (1,204, `1\frac{1}{2}`, `12\%`, `6.02 \times 10^{23}`), what stands left of the
last `=`, and otherwise how letters are arranged: (x+1)^2 beside x^2 + 2x + 1.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.functions.elementary.trigonometric import InverseTrigonometricFunction, TrigonometricFunction

from vcppo.settings.known_sets import Form
from vcppo.tasks.reading import AND_OR
from vcppo.tasks.relations import RELATION, between, name_of, outside_brackets

CLOSED = frozenset(("surd", "terms", "constant"))
_IRRATIONAL = CLOSED | {"trigonometry", "log", "exp"}
_COLLECTIONS = (
    sp.Tuple,
    sp.FiniteSet,
    sp.Interval,
    sp.Union,
    sp.Complement,
    sp.Intersection,
    sp.And,
    sp.Or,
    Relational,
    sp.MatrixBase,
)
_PERCENT = sp.UnevaluatedExpr(sp.Rational(1, 100))
_LEFT = re.compile(r"[^=,;]*=(?=[^=,;]*[0-9])")  # of an equation
_OPEN, _CLOSE = r"(?:(?:\\left\s*)?[({]\s*)", r"(?:\s*(?:\\right\s*)?[)}])"
_ARGUMENT = rf"\s*(?:\{{\s*{_OPEN}*(-?[0-9]+){_CLOSE}*\s*\}}|([0-9]))"
_IN_BRACKETS = rf"{_OPEN}+(-?[0-9]+){_CLOSE}+"
_QUOTIENTS = (
    re.compile(rf"\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}"),
    re.compile(
        rf"(?:(?<![0-9.}}/:^_])([0-9]+)|(?<![\w^.)}}\]{{(]){_IN_BRACKETS})"
        rf"\s*(?:/|:|÷|\\div(?![a-z]))\s*(?:(-?[0-9]+)(?![0-9.])|{_IN_BRACKETS})"
    ),
)
_EVALUATED = {  # as they are read, like quotients of integers, so that the text alone shows them
    "binomial": re.compile(r"\\(?:[dt]?binom|choose)(?![a-z])"),
    "sign": re.compile(r"-\s*(?:(?:\\left\s*)?\\?[({\[]\s*)*-"),
    "exp": re.compile(r"(?<![A-Za-z])e\s*\^\s*\{?\s*\\(?:ln|log)(?![a-z])"),
    "matrix": re.compile(r"\\det(?![a-z])|[vV]matrix\}|matrix\}\s*\^\s*\{?\s*(?:\\(?:top|mathrm|text)|T)"),
    "set": re.compile(r"\\cap(?![a-z])|(?<!\\mathbb\{[RZNQC]\})(?<!\\mathbb\{[RZNQC]\} )\\setminus"),
}
_AT = re.compile(r"[A-Za-z]'*\s*\([^()A-Za-z]*\)")  # f(2)
_NO_LETTERS = re.compile(
    r"\\text\s*\{[^{}]*\}|\\(?!(?:alpha|beta|gamma|delta|theta|lambda|mu|phi|omega)\b)[A-Za-z]+|\\\W"
)
_LETTER = re.compile(r"\\[a-z]+|[A-Za-z]")


def unevaluated(answer: Sequence[Any], reference: Sequence[Any], form: Form, *, texts: tuple[str, str]) -> bool:
    """Return whether an answer leaves an operation to do that neither its reference nor the form allows.

    Args:
        answer, reference: their parsed trees, as written.
        texts: the same two as text.
    """
    if form == "expression":
        return False
    whole = any(isinstance(tree, sp.Equality) and not any(map(_is_name, tree.args)) for tree in reference)
    values = [value for tree in reference for value in _values(tree, whole=whole)]
    equations = "=" in texts[1]
    written = [
        _written(text if whole else _LEFT.sub("", text)) | _of_relation(text, equations=equations) for text in texts
    ]
    allowed = set().union(*map(_operations, values)) | written[1]
    if any(map(_letters, values)):
        allowed.add("letters")
    if form == "closed-form" and (allowed & _IRRATIONAL or any(map(_is_irrational, values))):
        allowed |= CLOSED
    operations = [_operations(value) for tree in answer for value in _values(tree, whole=whole)]
    return bool(set().union(*operations, written[0]) - allowed)


def _written(text: str) -> set[str]:
    """Return operations that a text shows and its tree does not."""
    operations = {name for name, sign in _EVALUATED.items() if sign.search(text)}
    for match in (match for quotient in _QUOTIENTS for match in quotient.finditer(text)):
        numerator, denominator = (int(group) for group in match.groups() if group is not None)
        if denominator and numerator % denominator == 0:
            operations.add("quotient")
    return operations


def _of_relation(text: str, *, equations: bool) -> set[str]:
    """Return `relation` where a letter of an inequality, or of an equation of one letter, does not stand by itself.

    Args:
        equations: whether equations count; beside a value, what stands right of the last `=` is compared.
    """
    for part in re.split(r",(?![^(\[]*[)\]])|;", AND_OR.sub(";", text)):
        signs = outside_brackets(RELATION, part)
        sides, words = between(signs, part), {match.group() for match in signs} - {"\\in", "\\approx"}
        if not words or (words == {"="} and not equations):
            continue
        letters = [set(_LETTER.findall(_NO_LETTERS.sub(" ", side))) - {"e", "i"} for side in sides]
        counts = Counter(letter for side in letters for letter in side)
        left = [of_side for side, of_side in zip(sides, letters, strict=True) if _is_left(side)]
        solved = any(all(counts[letter] == 1 for letter in of_side) for of_side in left)
        if counts and not solved and (words != {"="} or len(counts) == 1):
            return {"relation"}
    return set()


def _is_left(side: str) -> bool:
    """True for what an answer has a value of: x, f(2), (x, y)."""
    return bool(name_of(side) or _AT.fullmatch(side) or (side[:1] + side[-1:] == "()" and "," in side))


def _values(tree: Any, *, whole: bool) -> Iterator[sp.Basic]:
    """Yield a tree's values: parts of collections, of an equation what it ends in, unless the `whole` is the answer."""
    if isinstance(tree, sp.Equality) and not whole:
        yield from _values(tree.lhs if _is_name(tree.rhs) else tree.rhs, whole=whole)
    elif isinstance(tree, sp.And) and not whole and all(isinstance(part, sp.Equality) for part in tree.args):
        passed = [part.lhs for part in tree.args]  # 20 - 3 in 9 + 8 = 20 - 3 = 17
        for part in tree.args:
            if part.rhs not in passed:
                yield from _values(part, whole=whole)
    elif isinstance(tree, _COLLECTIONS):
        for part in tree.flat() if isinstance(tree, sp.MatrixBase) else tree.args:
            yield from _values(part, whole=whole)
    elif isinstance(tree, sp.Basic):
        yield tree


def _operations(tree: sp.Basic) -> set[str]:
    """Return operations left to do in an expression, at its top and in its parts."""
    if isinstance(tree, sp.Number | sp.NumberSymbol | sp.Symbol) or tree == _PERCENT or _is_power_of_ten(tree):
        return set()
    if isinstance(tree, sp.Add):
        operations, parts = _of_sum(tree), list(tree.args)
    elif isinstance(tree, sp.Mul) or (isinstance(tree, sp.Pow) and tree.exp == -1):
        numerator, denominator = _factors(tree)
        operations, parts = _of_product(numerator, denominator), [*numerator, *denominator]
    elif isinstance(tree, sp.Pow | sp.exp):
        base, exponent = tree.as_base_exp()
        operations, parts = _of_power(base, exponent), [base, exponent]
    elif isinstance(tree, TrigonometricFunction | InverseTrigonometricFunction):
        operations, parts = {"trigonometry"}, list(tree.args)
    else:
        plain = not tree.args or isinstance(tree, _COLLECTIONS) or (isinstance(tree, sp.Abs) and _letters(tree))
        operations, parts = set() if plain else {type(tree).__name__}, list(tree.args)
    return operations.union(*map(_operations, parts))


def _of_sum(tree: sp.Basic) -> set[str]:
    terms = [part for term in tree.args for part in (term.args if isinstance(term, sp.Add) else (term,))]
    keys, operations = Counter[Any](), set[str]()
    for numerator, denominator in map(_factors, terms):
        rest = [[part for part in side if not _is_numeric(part)] for side in (numerator, denominator)]
        keys[tuple(frozenset(Counter(side).items()) for side in rest)] += 1
        if len(rest[0]) == 1 and isinstance(rest[0][0], sp.Add) and not denominator:
            operations.add("sum")
    if max(keys.values()) > 1:
        operations.add("sum")
    return operations | ({"letters"} if _letters(tree) else {"terms"})


def _of_product(numerator: list[Any], denominator: list[Any]) -> set[str]:
    operations = set[str]()
    above = [part for part in numerator if isinstance(part, sp.Number) and part != -1]
    below = [part for part in denominator if isinstance(part, sp.Number)]
    signs, tens = numerator.count(sp.Integer(-1)), sum(map(_is_power_of_ten, [*numerator, *denominator]))
    if max(len(above), len(below), signs, tens) > 1 or 0 in above or (signs and any(part < 0 for part in above)):
        operations.add("product")
    if (below and not numerator) or any(map(_is_power_of_ten, denominator)):
        operations.add("power")  # 2^{-1}; 1/2 is a number
    integers = all(isinstance(part, sp.Integer) for part in [*above, *below])
    comes_out = integers and below and (below[0] in (0, 1) or (above and int(above[0]) % int(below[0]) == 0))
    if comes_out or (below and below != [10] and not integers) or any(map(_is_complex, denominator)):
        operations.add("quotient")
    if not denominator and _is_word(numerator):
        return operations
    bases = [Counter(map(_base, side)) for side in (numerator, denominator)]
    again = any(
        n > 1 and not (isinstance(base, sp.Add) and _letters(base)) for side in bases for base, n in side.items()
    )
    if again or bases[0] & bases[1]:
        operations.add("product")
    constants = [[part for part in side if not _letters(part)] for side in (numerator, denominator)]
    for side in constants:
        if sum(map(_is_complex, side)) > 1 or sum(isinstance(part, sp.Add) for part in side) > 1:
            operations.add("product")
    return operations


def _of_power(base: Any, exponent: Any) -> set[str]:
    if exponent in (0, 1):
        return {"power"}
    if _letters(base) or _letters(exponent):
        return set()
    if _is_complex(base) or _is_complex(exponent):
        return {"power"} if isinstance(exponent, sp.Integer) else {"exp"}
    if isinstance(exponent, sp.Integer):
        return {"constant" if isinstance(base, sp.NumberSymbol) else "power"}
    if isinstance(exponent, sp.Rational) and isinstance(base, sp.Number):
        comes_out = not isinstance(base, sp.Rational) or all(
            sp.integer_nthroot(abs(part), exponent.q)[1] for part in (base.p, base.q)
        )
        return {"root" if comes_out else "surd"}
    return {"surd" if isinstance(exponent, sp.Rational) else "constant"}


def _factors(tree: Any) -> tuple[list[Any], list[Any]]:
    """Split products and quotients into the factors of (numerator, denominator)."""
    if isinstance(tree, sp.Mul):
        sides = [_factors(part) for part in tree.args]
        return [part for numerator, _ in sides for part in numerator], [
            part for _, denominator in sides for part in denominator
        ]
    if isinstance(tree, sp.Pow) and tree.exp == -1:
        numerator, denominator = _factors(tree.base)
        return denominator, numerator
    return [tree], []


def _base(tree: Any) -> Any:
    """Of an integer power its base, of a root of a number its degree: those that are equal go together."""
    if isinstance(tree, sp.Pow) and isinstance(tree.exp, sp.Rational):
        if isinstance(tree.exp, sp.Integer):
            return tree.base
        if isinstance(tree.base, sp.Number):
            return "root", tree.exp
    return tree


def _is_word(factors: list[Any]) -> bool:
    """Letters that the parser has multiplied, as those of "none"."""
    letters = [part for part in factors if isinstance(part, sp.Symbol | sp.NumberSymbol)]
    return len(letters) > 2 and len(set(letters)) > 1 and not any(isinstance(part, sp.Pow | sp.Add) for part in factors)


def _is_numeric(tree: Any) -> bool:
    return isinstance(tree, sp.Number) or tree == _PERCENT or _is_power_of_ten(tree)


def _is_power_of_ten(tree: Any) -> bool:
    return isinstance(tree, sp.Pow) and tree.base == 10 and isinstance(tree.exp, sp.Integer) and tree.exp != -1


def _letters(tree: sp.Basic) -> set[str]:
    return {symbol.name for symbol in tree.free_symbols} - {"i"}


def _is_complex(tree: sp.Basic) -> bool:
    return tree.has(sp.I) or any(symbol.name == "i" for symbol in tree.free_symbols)


def _is_irrational(tree: sp.Basic) -> bool:
    return bool(tree.atoms(sp.NumberSymbol)) or _is_complex(tree)


def _is_name(tree: Any) -> bool:
    return isinstance(tree, sp.Symbol | AppliedUndef)
