"""One way of writing for the many ways there are: from text to text, whatever it means. No sympy here.

`plain_characters` replaces single characters (full width, superscripts, √, −, °); `normalised` also takes off what has
no meaning around and in an expression: dollar signs, boxes, markdown, fonts, sizes, thin spaces, a full stop.
`readings` separates the commas between thousands from those of lists, where that can be decided.
"""

import re
from itertools import groupby

_FULL_WIDTH = {0xFEE0 + code: chr(code) for code in range(0x21, 0x7F)}
_GREEK_NAMES = (
    "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu",
    "xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda",
    "Xi", "Pi", "Sigma", "Phi", "Psi", "Omega", "phi", "theta",
)  # fmt: skip
_GREEK = dict(zip("αβγδεζηθικλμνξπρστυφχψωΓΔΘΛΞΠΣΦΨΩϕϑ", _GREEK_NAMES, strict=True))
_SYMBOLS = {
    "−–—‐‑‒﹣": "-", "×✕": "\\times ", "·⋅∙•": "\\cdot ", "÷": "\\div ", "∕⁄": "/", "∶": ":",
    "≤⩽≦": "\\le ", "≥⩾≧": "\\ge ", "≠": "\\ne ", "≈≃": "\\approx ", "∞": "\\infty ", "±": "\\pm ", "∓": "\\mp ",
    "∪": "\\cup ", "∩": "\\cap ", "∅⌀": "\\emptyset ", "∈": "\\in ", "∖": "\\setminus ", "∨": "\\lor ",
    "∧": "\\land ", "∣": "|", "∠": "\\angle ", "⟨〈": "\\langle ", "⟩〉": "\\rangle ",
    "ℝ": "\\mathbb{R}", "ℤ": "\\mathbb{Z}", "ℕ": "\\mathbb{N}", "ℚ": "\\mathbb{Q}", "ℂ": "\\mathbb{C}",
    "°º˚": "^\\circ ", "′’ʹ": "'", "…": "\\ldots ", "。｡": ".", "、": ",", "【": "[", "】": "]", "“”„«»": "",
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000": " ",
    "\u200b\u200c\u200d\u2060\u2061\u2062\u2063\ufeff\ufe0f": "",
    "½": "\\frac{1}{2}", "⅓": "\\frac{1}{3}", "⅔": "\\frac{2}{3}", "¼": "\\frac{1}{4}", "¾": "\\frac{3}{4}",
    "⅕": "\\frac{1}{5}", "⅖": "\\frac{2}{5}", "⅗": "\\frac{3}{5}", "⅘": "\\frac{4}{5}", "⅙": "\\frac{1}{6}",
    "⅚": "\\frac{5}{6}", "⅛": "\\frac{1}{8}", "⅜": "\\frac{3}{8}", "⅝": "\\frac{5}{8}", "⅞": "\\frac{7}{8}",
}  # fmt: skip
_CHARACTERS = str.maketrans(
    _FULL_WIDTH
    | {ord(letter): f"\\{name} " for letter, name in _GREEK.items()}
    | {ord(character): written for characters, written in _SYMBOLS.items() for character in characters}
)
_RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎ₙ", "0123456789+-()n", strict=True))
_ROOT = re.compile(r"([√∛∜])\s*(?:\(([^()]*)\)|([0-9]+(?:\.[0-9]+)?|\\?[A-Za-z]+)|(?=\{))")
_THIN = re.compile("(?<=[0-9])[\u00a0\u2009\u202f](?=[0-9]{3}(?![0-9]))")  # spaces between thousands
_ROOTS = {"√": "\\sqrt", "∛": "\\sqrt[3]", "∜": "\\sqrt[4]"}

_COMMAND = re.compile(r"\\(?:[A-Za-z]+|.)", re.DOTALL)
_FONTS = frozenset((
    "mathbf", "boldsymbol", "bm", "pmb", "mathit", "mathsf", "mathtt", "mathnormal", "mathcal", "mathfrak",
    "mathscr", "boldmath", "symbf", "bold", "emph", "underline", "fbox", "boxed", "framebox", "displaystyle",
    "ensuremath", "color",
))  # fmt: skip
_TEXTS = frozenset((
    "text", "textbf", "textit", "textrm", "texttt", "textsf", "textnormal", "textup", "textsc", "mbox", "hbox",
    "mathrm", "rm",
))  # fmt: skip
_NOTHING = re.compile(
    r"\\(?:left|right|bigl|bigr|Bigl|Bigr|biggl|biggr|Biggl|Biggr|big|Big|bigg|Bigg|middle|displaystyle|textstyle"
    r"|scriptstyle|limits|nolimits|bf|rm|it|sf|tt|cal|boldmath|hfill|hspace\*?\{[^{}]*\}|label\{[^{}]*\}|!)"
    r"(?![A-Za-z])\.?(?<!\.)|\\(?:left|right)\."
)
_REPLACED = [
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*([0-9])\s*([0-9])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\(?:dbinom|tbinom|choose)(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\(?:leq|leqslant|leqq)(?![A-Za-z])"), r"\\le "),
    (re.compile(r"\\(?:geq|geqslant|geqq)(?![A-Za-z])"), r"\\ge "),
    (re.compile(r"\\(?:neq|not\s*=)(?![A-Za-z])"), r"\\ne "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"<="), r"\\le "),
    (re.compile(r">="), r"\\ge "),
    (re.compile(r"!="), r"\\ne "),
    (re.compile(r"\\(?:colon)(?![A-Za-z])"), ":"),
    (re.compile(r"\\(?:lbrace)(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\(?:rbrace)(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\(?:lbrack)(?![A-Za-z])"), "["),
    (re.compile(r"\\(?:rbrack)(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:lvert|rvert|vert)(?![A-Za-z])"), "|"),
    (re.compile(r"\\(?:varnothing|O)(?![A-Za-z])"), r"\\emptyset "),
    (re.compile(r"\\(?:bigcup)(?![A-Za-z])"), r"\\cup "),
    (re.compile(r"\\(?:bigcap)(?![A-Za-z])"), r"\\cap "),
    (re.compile(r"\\(?:backslash|smallsetminus)(?![A-Za-z])"), r"\\setminus "),
    (re.compile(r"\\(?:dots|cdots|dotsc|dotsb|ldots)(?![A-Za-z])|\.\.\."), r"\\ldots "),
    (re.compile(r"\\(?:simeq|thickapprox|doteq)(?![A-Za-z])"), r"\\approx "),
    (re.compile(r"\\(?:Real|reals|R)(?![A-Za-z])"), r"\\mathbb{R}"),
    (re.compile(r"(?<=[0-9])\s*(?:\{\s*,\s*\}|,\s*\\!|\\!\s*,|\\,)\s*(?=[0-9]{3}(?![0-9]))"), ""),  # of thousands
    (re.compile(r"\^\s*(?:\{\s*\\(?:circ|degree)\s*\}|\\(?:circ|degree)(?![A-Za-z]))|\\(?:degree|textdegree)(?![A-Za-z])"),
     r"^\\circ "),
    (re.compile(r"(?<![A-Za-z\\])sqrt\s*\(([^()]*)\)"), r"\\sqrt{\1}"),
    (
        re.compile(
            r"(?<![A-Za-z\\])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|exp|pi|theta|alpha|beta"
            r"|infty|cdot|times|sqrt|frac|binom|le|ge|ne)(?![A-Za-z])"
        ),
        r"\\\1 ",
    ),
    (re.compile(r"(?<![A-Za-z\\])(?:infinity|oo)(?![A-Za-z])"), r"\\infty "),
    (re.compile(r"(?<![A-Za-z0-9._\\])([0-9]+\.?[0-9]*|\.[0-9]+)[eE]\+?(-?)0*([0-9]+)(?![A-Za-z0-9._])"),
     r"\1 \\times 10^{\2\3}"),
    (re.compile(r"\\lg(?![A-Za-z])"), r"\\log_{10} "),
    (re.compile(r"\^\s*\{?\s*\\prime\s*\}?"), "'"),
    (re.compile(r"(?<![A-Za-z\\])\\?(?:percent(?:age)?|pct)(?![A-Za-z])"), r"\\%"),
    (re.compile(r"(?<!\\)%"), r"\\%"),
    (re.compile(r"(?<!\\)\\(?:quad|qquad|enspace|thinspace|medspace|space|;|:|,|\s)|~|\\(?=\s*$)"), " "),
]  # fmt: skip
_AROUND = [
    re.compile(r"\$\$(.*)\$\$", re.DOTALL),
    re.compile(r"\$(.*)\$", re.DOTALL),
    re.compile(r"\\\((.*)\\\)", re.DOTALL),
    re.compile(r"\\\[(.*)\\\]", re.DOTALL),
    re.compile(r"\*\*(.*)\*\*", re.DOTALL),
    re.compile(r"__(.*)__", re.DOTALL),
    re.compile(r"`(.*)`", re.DOTALL),
    re.compile(r"\*([^*]*)\*", re.DOTALL),
]
_TRAILING = re.compile(r"(?:\s|(?<!\\)[,;:]|\.(?!\.)|\\\\)+$")
_LEADING = re.compile(r"^(?:\s|=|\\approx(?![A-Za-z])|\\sim(?![A-Za-z])|\\therefore(?![A-Za-z])|\\\\(?=\s))+")
_MONEY = re.compile(r"\\\$|[€£¥₹]")
_DOLLARS = re.compile(r"(-?) ?\\\$ ?(-?[0-9][0-9.,{}]*)")  # 5 dollars are not 5 cents
_RUN = re.compile(r"[0-9]+(?:\.[0-9]+)?(?:,[0-9]+(?:\.[0-9]+)?)+")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_BLANKS = re.compile(r"(?<![0-9A-Za-z,]) +| +(?![0-9A-Za-z])")  # those that separate nothing
_LAYERS = 8


def plain_characters(text: str) -> str:
    """Replace characters that mean the same as others: widths, superscripts, Greek letters, symbols, kinds of blanks.

    Digits of other scripts stay.

    >>> plain_characters("（1，2）"), plain_characters("x²−√2"), plain_characters("120°")
    ('(1,2)', 'x^{2}-\\\\sqrt{2}', '120^\\\\circ ')
    """
    if text.isascii():
        return text
    text = _ROOT.sub(_root, _THIN.sub("{,}", text))
    for table, mark in ((_RAISED, "^"), (_LOWERED, "_")):
        groups = groupby(text, key=table.__contains__)
        text = "".join(
            f"{mark}{{{''.join(table[c] for c in run)}}}" if shifted else "".join(run) for shifted, run in groups
        )
    return text.translate(_CHARACTERS)


def normalised(text: str) -> str:
    """Strip an answer of what has no meaning in it.

    >>> normalised("$\\\\boldsymbol{10}$."), normalised("**10**"), normalised("\\\\left(1,\\\\,2\\\\right)")
    ('10', '10', '(1, 2)')
    """
    text = _bare(" ".join(plain_characters(text).split()))
    if dollars := _DOLLARS.fullmatch(text):
        text = rf"{dollars[1]}{dollars[2]} \text{{dollars}}"
    text = _unwrapped(_MONEY.sub("", text).replace("$", ""))
    for pattern, written in _REPLACED:
        text = pattern.sub(written, text)
    return _BLANKS.sub("", _bare(" ".join(_NOTHING.sub("", text).split())))


def readings(text: str) -> list[str]:
    """Return the readings of a normalised text's commas, the likeliest first.

    A comma that a space follows separates, and so does one that cannot stand between thousands. Any other may do
    either: between brackets a single one rather separates, elsewhere it rather stands between thousands.

    >>> readings("1,234"), readings("(1,234)"), readings("27,54,108")
    (['1234', '1, 234'], ['(1, 234)', '(1234)'], ['27, 54, 108'])
    """

    def likely(match: re.Match[str]) -> str:
        run, before = match.group(), text[: match.start()]
        bracketed = sum(map(before.count, "([{")) > sum(map(before.count, ")]}"))
        return apart(match) if bracketed and run.count(",") == 1 else together(match)

    def together(match: re.Match[str]) -> str:
        return match.group().replace(",", "") if _THOUSANDS.fullmatch(match.group()) else apart(match)

    def apart(match: re.Match[str]) -> str:
        return match.group().replace(",", ", ")

    return list(dict.fromkeys(_RUN.sub(way, text) for way in (likely, together, apart)))


def _root(match: re.Match[str]) -> str:
    inner = match[2] if match[2] is not None else match[3]
    return _ROOTS[match[1]] + ("" if inner is None else f"{{{inner}}}")


def _bare(text: str) -> str:
    """Strip the few outer layers that mean nothing."""
    for _ in range(_LAYERS):
        text = _peeled(text)
    return _trimmed(text)


def _peeled(text: str) -> str:
    """Take off one layer around all of it."""
    text = _trimmed(text)
    for pattern in _AROUND:
        match = pattern.fullmatch(text)
        if match is not None and not _holds_delimiter(match[1], text):
            return match[1]
    if text.startswith("{") and _closing(text, 0) == len(text) - 1:
        return text[1:-1]
    return text


def _holds_delimiter(inner: str, whole: str) -> bool:
    """`$1$ and $2$` is not one expression between dollar signs."""
    mark = "$" if whole[0] == "$" else whole[:2] if whole[0] in "*_\\" else whole[0]
    return mark in inner.replace("\\$", "")


def _trimmed(text: str) -> str:
    text = _LEADING.sub("", _TRAILING.sub("", text))
    return text + " " if text.endswith("\\") else text.strip()


def _closing(text: str, start: int) -> int:
    """Return where the brace that opens at `start` closes; -1 if nowhere."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 2
            continue
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
        i += 1
    return -1


def _unwrapped(text: str) -> str:
    """Take off fonts; write all kinds of text as `\\text`, operators' names as commands."""
    parts: list[str] = []
    at = 0
    while (match := _COMMAND.search(text, at)) is not None:
        parts.append(text[at : match.start()])
        name, at = match.group()[1:], match.end()
        opening = re.compile(r"\s*\{").match(text, at)
        end = _closing(text, opening.end() - 1) if opening else -1
        if opening is None or end < 0 or not (name in _FONTS or name in _TEXTS or name.startswith("operatorname")):
            parts.append(match.group())
            continue
        inner, at = text[opening.end() : end], end + 1
        if name in _FONTS:
            parts.append("" if name == "color" else f" {_unwrapped(inner)} " if inner.isalnum() else _unwrapped(inner))
        elif name.startswith("operatorname"):
            parts.append(f"\\{inner.strip()} ")
        elif name == "mathrm" and inner.strip() in ("e", "i", "d"):
            parts.append(f" {inner.strip()} ")
        else:
            words = _untext(inner)
            parts.append(f"\\text{{{words}}}" if re.search("[A-Za-z]", words) else words)
    return "".join((*parts, text[at:]))


def _untext(inner: str) -> str:
    """Return the content of a text, without fonts and dollar signs inside it."""
    return re.sub(r"\\[A-Za-z]+\s*\{([^{}]*)\}", r"\1", inner).replace("~", " ").replace("\\ ", " ").strip()
