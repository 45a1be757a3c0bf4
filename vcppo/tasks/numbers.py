r"""Numbers that are written out, their units, and words: what needs no parser and never goes through a float."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

LARGEST_EXPONENT = 400  # of a number that is written out
_LEAST_DIGITS = 6  # significant ones, with which a decimal may stand for what it rounds

_SIGN = r"[-+]?\s*"
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(
    rf"({_SIGN})({_DIGITS}?)(?:\.([0-9]*))?(?:[eE]([-+]?[0-9]+)|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{{\s*(-?[0-9]+)\s*\}}|([0-9])))?"
)
_REPEATING = re.compile(rf"({_SIGN})([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*(?:\{{\s*([0-9]+)\s*\}}|([0-9]))")
_ARGUMENT = r"\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
_FRACTION = re.compile(rf"({_SIGN})(?:([0-9]+)\s*)?\\frac\s*(?:\{{\s*(-?[0-9]+)\s*\}}|([0-9])){_ARGUMENT}")
_SLASHED = re.compile(rf"({_SIGN})(?:([0-9]+)\s+)?([0-9]+)\s*/\s*([0-9]+)")
_POWER = r"(?:\s*\^\s*\{?-?[0-9]\}?)?"
AND_OR = re.compile(r"(?:\\text\{\s*)?(?<![A-Za-z\\])(and|or)(?![A-Za-z])(?:\s*\})?|\\(lor|land|vee|wedge)(?![A-Za-z])")
UNIT = re.compile(
    rf"(.*[^\s(,;{{\[=<>])\s*(\\text\{{[^{{}}]*\}}{_POWER}(?:\s*(?:/|\\cdot)?\s*\\text\{{[^{{}}]*\}}{_POWER})*)",
    re.DOTALL,
)
_BARE_UNIT = re.compile(r"(.*[0-9}%])\s+((?:[A-Za-z]+\.?\s+)*[A-Za-z]+\.?)")
FUNCTIONS = frozenset((
    "sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "lg", "exp", "sqrt",
    "frac", "binom", "pi", "infty", "circ", "gcd", "lcm", "max", "min", "det",
))  # fmt: skip
_SHORT_WORDS = frozenset(("no", "yes", "odd"))
_UNITS = {
    "degree": "degrees deg",
    "cm": "centimeter centimeters centimetre centimetres",
    "mm": "millimeter millimeters millimetre millimetres",
    "m": "meter meters metre metres",
    "km": "kilometer kilometers kilometre kilometres",
    "ft": "foot feet",
    "in": "inch inches",
    "mi": "mile miles",
    "s": "sec second seconds",
    "min": "minute minutes",
    "h": "hr hrs hour hours",
    "g": "gram grams",
    "kg": "kilogram kilograms",
    "dollar": "dollars",
    "cent": "cents",
}
UNITS = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}


@dataclass(frozen=True)
class Number:
    """A number that is written out, with the unit behind it."""

    value: Fraction
    places: int | None = None  # after the point; None: not a decimal
    digits: int = 0  # significant ones of a decimal
    percent: bool = False
    unit: str = ""

    @property
    def rounds(self) -> bool:
        """Whether it has digits enough to stand for what it is the rounding of."""
        return self.places is not None and self.digits >= _LEAST_DIGITS


def read_number(text: str) -> Number | None:
    """A number that is written out: an integer, a decimal, one in scientific notation, a fraction, a mixed number.

    >>> read_number("1,204").value, read_number("5 1/2").value, read_number("0.\\\\overline{3}").value
    (Fraction(1204, 1), Fraction(11, 2), Fraction(1, 3))
    """
    text, unit = text.strip(), ""
    if match := UNIT.fullmatch(text) or _BARE_UNIT.fullmatch(text):
        said = re.findall("[A-Za-z]+", match[2])
        if match.re is UNIT or all(word in UNITS or len(word) > 3 for word in said):
            text, unit = match[1].strip(), words(match[2])
    if text.endswith("^\\circ"):
        text, unit = text.removesuffix("^\\circ").strip(), unit or "degree"
    percent = text.endswith("\\%")
    number = _plain(text.removesuffix("\\%").strip())
    return None if number is None else replace(number, percent=percent, unit=unit)


def _plain(text: str) -> Number | None:
    if match := _FRACTION.fullmatch(text) or _SLASHED.fullmatch(text):
        sign, whole, over, under = match[1], match[2], match[3] or match[4], match[match.lastindex or 0]
        if match.re is _SLASHED:
            over, under = match[3], match[4]
        if int(under) == 0 or (whole and not 0 < int(over) < int(under)):
            return None
        value = int(whole or 0) + Fraction(int(over), int(under))
        return Number(-value if "-" in sign else value)
    if match := _REPEATING.fullmatch(text):
        fixed, again = match[3], match[4] or match[5]
        ninths = Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
        value = Fraction(f"{match[2] or 0}.{fixed or 0}") + ninths
        return Number(-value if "-" in match[1] else value)
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    exponent = int(match[4] or match[5] or match[6] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    whole, after = re.sub("[^0-9]", "", match[2]), match[3] or ""
    value = Fraction(int(f"{whole}{after}"), 10 ** len(after)) * Fraction(10) ** exponent
    decimal = match[3] is not None or match[4] is not None
    digits = len(f"{whole}{after}".lstrip("0"))
    return Number(-value if "-" in match[1] else value, len(after) - exponent if decimal else None, digits)


def is_words(text: str) -> bool:
    """Whether a text is words of a language rather than mathematics."""
    if re.fullmatch(r"(?:\\text\{[^{}]*[A-Za-z][^{}]*\}[\s,]*)+", text):
        return not re.fullmatch(r"\\text\{\s*\(?[A-Za-z]\)?\s*\}", text)
    bare = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    if AND_OR.search(text) or re.search(r"[\\^_{}=<>|]", bare):
        return False
    said = re.findall("[A-Za-z]+", bare)
    return any((len(word) > 3 and word not in FUNCTIONS) or word.lower() in _SHORT_WORDS for word in said)


def words(text: str) -> str:
    """Words without what does not matter in them.

    >>> words("\\\\text{June 20}"), words("June 20."), words("Yes!")
    ('june20', 'june20', 'yes')
    """
    return re.sub(r"[^\w+\-*/=<>%.]|_", "", re.sub(r"\\text\b", "", text)).casefold().strip(".")


def is_of_thousands(text: str, at: int) -> bool:
    left, right = (
        re.search(r"(?<![0-9.])[0-9]{1,3}(?:,[0-9]{3})*$", text[:at]),
        re.match(r"[0-9]{3}(?![0-9])", text[at + 1 :]),
    )
    return left is not None and right is not None
