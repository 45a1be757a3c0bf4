"""Text of others, and numbers, as people can read them."""

import math
import re
import unicodedata

from vcppo.diagnosis.schema import Estimate

NOT_MEASURED = "not measured"
_MINUS = "−"
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # controls, bidirectional marks, surrogates, separators
_MAY_BE_INVISIBLE = re.compile(r"[^\n\t -~]")


def visible(text: str) -> str:
    """Write characters that cannot be seen, or that reorder what is around them, as [U+202E]; keep \\n and \\t.

    >>> visible("a\\u202eb\\x00")
    'a[U+202E]b[U+0000]'
    """
    return _MAY_BE_INVISIBLE.sub(_shown_character, text)


def _shown_character(result: re.Match[str]) -> str:
    character = result.group()
    return f"[U+{ord(character):04X}]" if unicodedata.category(character) in _INVISIBLE else character


def number(value: float | None, decimals: int | None = None, *, signed: bool = False) -> str:
    """A number in print, with a real minus sign; three significant digits unless `decimals` says otherwise.

    >>> number(-0.9137), number(1024), number(0.5, 3), number(None), number(0.31, signed=True)
    ('−0.914', '1,024', '0.500', 'not measured', '+0.31')
    """
    if value is None or not math.isfinite(value):
        return NOT_MEASURED
    if decimals is not None or float(value).is_integer():
        digits = decimals or 0
    else:
        digits = max(0, min(6, 2 - math.floor(math.log10(abs(value)))))
    shown = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if decimals is None and digits:
        shown = shown.rstrip("0").rstrip(".")
    if not any(digit in "123456789" for digit in shown):
        shown = shown.lstrip("+-")
    return shown.replace("-", _MINUS)


def decimals_of(estimate: Estimate) -> int | None:
    """Decimals that an estimate deserves: one digit of its interval's half width, two if that begins with 1.

    >>> decimals_of(Estimate(value=-0.9137, low=-0.9312, high=-0.8931)), decimals_of(Estimate(value=1.0)) is None
    (3, True)
    """
    if estimate.low is None or estimate.high is None:
        return None
    half = (estimate.high - estimate.low) / 2
    if not math.isfinite(half):
        return None
    return 2 if half <= 0 else max(0, min(4, math.ceil(-math.log10(half / 2))))


def interval(estimate: Estimate) -> str:
    """The interval alone, "" where there is none.

    >>> interval(Estimate(value=-0.91, low=-0.93, high=-0.88))
    '[−0.93, −0.88]'
    """
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return ""
    decimals = decimals_of(estimate)
    return f"[{number(estimate.low, decimals)}, {number(estimate.high, decimals)}]"


def with_interval(estimate: Estimate) -> str:
    """An estimate as text.

    >>> with_interval(Estimate(value=12.0, low=9.0, high=15.0)), with_interval(Estimate(value=None, why="one prompt"))
    ('12 [9, 15]', 'not measured')
    """
    return f"{number(estimate.value, decimals_of(estimate))} {interval(estimate)}".strip()
