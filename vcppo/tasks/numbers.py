r"""Numbers that are written out: integers, decimals, fractions, ratios, mixed numbers, percentages, powers of ten.

They are fractions of integers, equal if they are the same fraction. A decimal that has at least six significant digits
and six places may also stand for what it is the rounding of: 0.333333 for 1/3, but not 0.333, nor 0.000333 for 1/3000.
"""

import re
from dataclasses import replace
from fractions import Fraction

from vcppo.tasks.values import Number, UnreadableError

LEAST_DIGITS = 6  # significant ones, and after the point, with which a decimal may stand for what it rounds
LARGEST_EXPONENT = 400  # of a number that is written out

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
    "dollar": "dollars usd",
    "cent": "cents",
}
UNITS = {name: unit for unit, names in _UNITS.items() for name in (unit, *names.split())}

_NO_UNITS = {
    *("and", "or", "to", "plus", "minus", "times", "more", "less", "not", "is", "wrong", "approximately", "about"),
    *("hundred", "thousand", "million", "billion", "trillion", "dozen", "factorial", "k", "i", "e"),
}
_PREFIXED = re.compile("[mM](?:W|Wh|V|A|J|N|Hz|Pa|eV)")
_POWERS = {"squared", "cubed", "square", "cubic"}

_SIGN = r"[-+]?\s*"
_POWER_OF_TEN = r"\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*(?:\{\s*([-+]?[0-9]+)\s*\}|([0-9]))"
_DECIMAL = re.compile(rf"({_SIGN})([0-9]*)(?:\.([0-9]*))?(?:{_POWER_OF_TEN})?")
_TEN = re.compile(r"10\s*\^\s*(?:\{\s*([-+]?[0-9]+)\s*\}|([0-9]))")
_REPEATING = re.compile(rf"({_SIGN})([0-9]*)\.([0-9]*)\\(?:overline|bar|dot)\s*(?:\{{\s*([0-9]+)\s*\}}|([0-9]))")
_ARGUMENT = r"\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))"
_FRACTION = re.compile(rf"({_SIGN})(?:([0-9]+)\s*)?\\frac\s*(?:\{{\s*(-?[0-9]+)\s*\}}|([0-9])){_ARGUMENT}")
_SLASHED = re.compile(rf"({_SIGN})(?:([0-9]+)\s+)?([0-9]+)\s*/\s*([0-9]+)")
_RATIO = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*:\s*([0-9]+(?:\.[0-9]+)?)")
_POWER = r"(?:\s*\^\s*\{?-?[0-9]\}?)?"
_UNIT = re.compile(
    rf"(.*?[^\s(,;{{\[=<>/-])\s*(\\text\{{[^{{}}]*\}}{_POWER}(?:\s*(?:/|\\cdot|-)?\s*\\text\{{[^{{}}]*\}}{_POWER})*)",
    re.DOTALL,
)
_BARE_UNIT = re.compile(r"(.*[0-9}%])\s+([A-Za-z]+\.?(?:\s+[A-Za-z]+\.?)*)", re.DOTALL)


def read_number(text: str) -> Number | None:
    """Read a number that is written out; None if it is none.

    >>> read_number("-12.50").value, read_number("5 1/2").value, read_number("0.\\\\overline{3}").value
    (Fraction(-25, 2), Fraction(11, 2), Fraction(1, 3))
    """
    text, unit = with_unit(text)
    bare = text.removesuffix("^\\circ").strip()
    if bare != text:
        text, unit = bare, unit or "degree"
    number = _plain(text.removesuffix("\\%").strip())
    return None if number is None else replace(number, percent=text.endswith("\\%"), unit=unit)


def with_unit(text: str) -> tuple[str, str]:
    """(what stands before its unit, the unit or nothing)."""
    match = _UNIT.fullmatch(text)
    if match and _may_be_unit(match[2]):
        return match[1].strip(), unit_name(match[2])
    match = _BARE_UNIT.fullmatch(text)
    if (
        match
        and _may_be_unit(match[2])
        and all(word in UNITS or len(word) > 3 for word in re.findall("[A-Za-z]+", match[2]))
    ):
        return match[1].strip(), unit_name(match[2])
    return text.strip(), ""


def _may_be_unit(text: str) -> bool:
    """False where words change the number before them, or add another: 5 million, 5 or 6, 5 squared."""
    names = [word.lower() for word in re.findall("[A-Za-z]+", text.replace("\\text", " ").replace("\\cdot", " "))]
    within = "".join(re.findall(r"\\text\{([^{}]*)\}", text))
    powers_alone = bool(names) and not set(names) - _POWERS
    return not re.search("[0-9]", within) and not set(names) & _NO_UNITS and not powers_alone


def unit_name(text: str) -> str:
    """Without what does not matter in it: case, but that of a prefix, since MW is no mW."""
    name = re.sub(r"\\text\b|\\cdot|[\s{}~]", "", text).strip(".")
    return name[0] + name[1:].casefold() if _PREFIXED.fullmatch(name) else name.casefold()


def same_unit(a: str, b: str) -> bool:
    """Return whether units are the same; a missing one matches any.

    Raises:
        UnreadableError: a unit is unknown.
    """
    if not a or not b or a == b:
        return True
    if min(len(a), len(b)) > 3 and a.rstrip("s") == b.rstrip("s"):  # ms are no m
        return True
    if a in UNITS and b in UNITS:
        return UNITS[a] == UNITS[b]
    if all(name.startswith("dollar") for name in (a, b)):  # $18, 18 dollars per hour
        return True
    raise UnreadableError


def equal_numbers(a: Number, b: Number) -> bool:
    r"""Equal, or one the rounding of the other; 12\% is 0.12, and 12 beside a number without a percent sign."""
    if a.percent == b.percent:
        return _same(a, b)
    plain, percent = (b, a) if a.percent else (a, b)
    return _same(plain, percent) or _same(plain, _hundredth(percent))


def stands_for(number: Number, exact: Fraction) -> bool:
    """True where a decimal is the rounding of a value and has digits enough to stand for it."""
    if number.percent:
        number = _hundredth(number)
    places = number.places or 0
    return min(number.digits, places) >= LEAST_DIGITS and _rounded(exact, places) == number.value


def _hundredth(number: Number) -> Number:
    places = None if number.places is None else number.places + 2
    return replace(number, value=number.value / 100, places=places, percent=False)


def _same(a: Number, b: Number) -> bool:
    a, b = replace(a, percent=False), replace(b, percent=False)
    return a.value == b.value or any(
        stands_for(number, exact.value) and (exact.places is None or exact.places > (number.places or 0))
        for number, exact in ((a, b), (b, a))
    )


def _rounded(value: Fraction, places: int) -> Fraction:
    """Half away from zero."""
    scaled = abs(value) * 10**places
    nearest = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    return Fraction(nearest if value >= 0 else -nearest, 10**places)


def _plain(text: str) -> Number | None:
    """Without sign of percent and unit."""
    if match := _FRACTION.fullmatch(text):
        return _fraction(match[1], match[2], match[3] or match[4], match[5] or match[6])
    if match := _SLASHED.fullmatch(text):
        return _fraction(*match.groups())
    if match := _REPEATING.fullmatch(text):
        fixed, again = match[3], match[4] or match[5]
        ninths = Fraction(int(again), 10 ** len(fixed) * (10 ** len(again) - 1))
        return Number(_signed(match[1], Fraction(f"{match[2] or 0}.{fixed or 0}") + ninths))
    if match := _RATIO.fullmatch(text):
        return Number(Fraction(match[1]) / Fraction(match[2])) if Fraction(match[2]) else None
    if match := _TEN.fullmatch(text):
        text = f"1 \\times {text}"
    match = _DECIMAL.fullmatch(text)
    if match is None or not (match[2] or match[3]):
        return None
    exponent = int(match[4] or match[5] or 0)
    if abs(exponent) > LARGEST_EXPONENT:
        return None
    after = match[3] or ""
    value = Fraction(int(f"{match[2]}{after}"), 10 ** len(after)) * Fraction(10) ** exponent
    is_decimal = match[3] is not None or exponent < 0
    digits = len(f"{match[2]}{after}".lstrip("0"))
    return Number(_signed(match[1], value), len(after) - exponent if is_decimal else None, digits)


def _fraction(sign: str, whole: str | None, numerator: str, denominator: str) -> Number | None:
    """A fraction, or a mixed number."""
    if int(denominator) == 0 or (whole and not 0 < int(numerator) < int(denominator)):
        return None
    return Number(_signed(sign, int(whole or 0) + Fraction(int(numerator), int(denominator))))


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if "-" in sign else value
