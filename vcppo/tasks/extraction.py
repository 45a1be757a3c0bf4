"""Extract the final answer of a text: the last box, numbers as digits. Linear in the text's length, always."""

import re
import unicodedata

LONGEST = 1000  # characters of an expression that is compared
BOX = "\\boxed"
FRAME = "\\fbox"  # of text; models write it for a box now and then
_TOKENS = re.compile(r"\\(?:boxed|fbox)\s*\{|\\[{}]|[{}]")
_WRAPPED = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|boldsymbol|bm|fbox)\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"([+-]?)([0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!)[0-9]{3})+|[0-9]+)")
_SPACES = re.compile(r"\\[ ,;:!]$|^\\[ ,;:!]")
_NUMBER = re.compile(
    r"""[\^_]\s*(?:\{[^{}]*\}|-?\w)  # an exponent or index, which is no number of its own
    |(?P<number>(?:(?<![^\s($=:])[-+−])?(?:
        (?:[0-9]+\s*)?\\[dtc]?frac\s*(?:\{\s*-?[0-9]+\s*\}|[0-9])\s*(?:\{\s*[0-9]+\s*\}|[0-9])
        |(?:[0-9]+\s+)?[0-9]+/[0-9]+
        |(?:[0-9]{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!)[0-9]{3})+(?![0-9])|[0-9]+)?(?:(?<=[0-9])|(?=\.[0-9]))(?:\.[0-9]+)?
         (?:\s*(?:\\times|\\cdot|×|·)\s*10\s*\^\s*(?:\{\s*-?[0-9]+\s*\}|[0-9]))?
    )(?:\s*\\?%)?)""",
    re.VERBOSE,
)
_SPACED = re.compile("[0-9][ '\u202f\u2009\u00a0]$")  # before the last group of thousands
_BOLD = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)")
_ACTS_ON_NEXT = re.compile(  # 9 + 8, 2x, f(8), 1, 2, \sqrt 8, x -8; but not: is -8, = 8, \( 8
    r"(?:[\w.\ufffd]|[-+−–*/^_×÷·⋅√<>|!]\s*|(?<!\\)[(\[{]\s*|[\d)}\]]\s*[,:;]\s*"
    r"|\\(?!approx|quad|to|implies|[A-Za-z]*arrow|therefore|text)[A-Za-z]+\s*)$"
)
_BEFORE_A_SIGN = re.compile(r"(?:(?<![A-Za-z])[A-Za-z]|[\d)}\]])\s*$")
_ACTS_ON_LAST = re.compile(
    r"[\w\ufffd]|\s*(?:[+*/=×÷·⋅√<>!(\[{)\]}|_]|\^(?!\s*\{?\s*\\circ)|[-−–]\s*(?:[\d\\(]|[A-Za-z]\b)"
    r"|\\(?!text|mathrm|quad|[^A-Za-z{}])|(?:[A-Za-z]|pi|sqrt)\b(?!\s+[A-Za-z]))"
)


def last_box(text: str) -> str | None:
    """Return the content of the last `\\boxed{}` whose braces close, the innermost of nested ones, or None.

    Without any, the last `\\fbox{}` is taken for one.

    >>> last_box("first \\\\boxed{1}, then \\\\boxed{\\\\frac{1}{2}} and \\\\boxed{3")
    '\\\\frac{1}{2}'
    >>> last_box("\\\\fbox{7}"), last_box("\\\\boxed{7} \\\\fbox{see above}")
    ('7', '7')
    """
    inside = _last(BOX, text)
    return _last(FRAME, text) if inside is None else inside


def _last(command: str, text: str) -> str | None:
    opened: list[int | None] = []  # of every open brace, where its content begins if it is a box's
    span: tuple[int, int] | None = None
    for token in _TOKENS.finditer(text):
        word = token.group()
        if word == "{":
            opened.append(None)
        elif word.startswith("\\") and word[1] not in "{}":
            opened.append(token.end() if word.startswith(command) else None)
        elif word == "}" and opened:
            start = opened.pop()
            if start is not None and (span is None or span[0] < start):
                span = (start, token.start())
    return None if span is None else text[span[0] : span[1]].strip()


def unreadable_note(answer: str) -> str | None:
    """Return why nothing is made of an answer whatever it says, in a word or two; None if something may be.

    >>> unreadable_note("9" * 1001), unreadable_note("1\\0"), unreadable_note("٢"), unreadable_note("2")
    ('too long', 'unprintable', 'other digits', None)
    """
    if len(answer) > LONGEST:
        return "too long"
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\r\t" for c in answer):
        return "unprintable"
    return "other digits" if any(map(is_other_digit, answer)) else None


def is_other_digit(c: str) -> bool:
    """True of a digit that is none of 0 to 9, such as ２ or ²."""
    return c.isdigit() and not c.isascii()


def last_number(text: str, start: int = 0) -> str | None:
    """Return the last number of a text from `start` on, if it stands alone; None if it is a part of an expression.

    A number is digits, a decimal, a fraction of integers, a mixed number, a percentage, or one in scientific notation.

    >>> last_number("so 9 + 8 = 17."), last_number("the answer to 9 + 8."), last_number("It is $-\\\\frac{3}{4}$ cm^2")
    ('17', None, '-\\\\frac{3}{4}')
    """
    text = _BOLD.sub("  ", text)
    numbers = [match for match in _NUMBER.finditer(text, start) if match["number"]]
    if not numbers:
        return None
    number = numbers[-1]
    if _SPACED.search(text[start : number.start("number")]) and re.match(r"[0-9]{3}(?![0-9])", number["number"]):
        return None  # 10 000, whose tail is not its value
    before = text[max(0, number.start() - 30) : number.start()]
    signed = number["number"][0] in "-+−"
    if _ACTS_ON_NEXT.search(before) or (signed and _BEFORE_A_SIGN.search(before)):
        return None
    return None if _ACTS_ON_LAST.match(text, number.end()) else number["number"]


def after_thought(text: str, close: str) -> str | None:
    """Return what follows the first `close`; None if the thought never ends.

    >>> after_thought("so 7 </think> It is 7.", "</think>"), after_thought("so 7", "</think>")
    (' It is 7.', None)
    """
    _, marker, rest = text.partition(close)
    return rest if marker else None


def as_integer(text: str) -> str | None:
    """Return the integer that a text is, as plain digits without leading zeros; None if it is none.

    Dollar signs, a full stop, spaces, `\\text{}` and commas between thousands do not matter. Digits are 0 to 9.

    >>> as_integer(" 073. "), as_integer("\\\\text{1,204}"), as_integer("-0"), as_integer("2.0"), as_integer("２")
    ('73', '1204', '0', None, None)
    """
    while (bare := _bare(text)) != text:
        text = bare
    match = _INTEGER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub("[^0-9]", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def _bare(text: str) -> str:
    """Take off one layer of what does not matter around a number."""
    text = _SPACES.sub("", text.strip()).strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        return text[1:-1]
    if text.endswith("."):
        return text[:-1]
    wrapped = _WRAPPED.fullmatch(text)
    return wrapped[1] if wrapped else text
