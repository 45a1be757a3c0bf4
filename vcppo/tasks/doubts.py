"""Doubtful reference answers of a set of problems: one line for each kind, with their number and the first of them.

Nothing is parsed, so that a set of any size is looked through as it is read. What no box can hold, prose and words for
nothing are told; whether an expression can be read, the verifier says when it is asked (`verify/reference_rate`).
"""

import re
from collections.abc import Iterable, Iterator

from vcppo.tasks.extraction import BOX, as_integer, last_box, unreadable_note
from vcppo.tasks.normalisation import normalised
from vcppo.tasks.rows import short

_PROSE = re.compile(r"(?<![\\A-Za-z])(?:answers?|therefore|thus|hence|equals?|is|are)(?![A-Za-z])", re.IGNORECASE)
_OTHER_BOX = "are not what the box of their solution holds"
_NOTHING = re.compile(r"n\s*/\s*a|none|null|nan|unknown|tbd|\?+|[-–—]+|\.{3}|…", re.IGNORECASE)


def doubts(source: str, references: Iterable[tuple[str, str, str | None]]) -> Iterator[str]:
    """Yield a line for each kind of doubtful reference answer that a set has.

    Args:
        references: place in the source, reference answer and worked solution of each problem.

    >>> list(doubts("s.csv", [("s.csv line 2", "10", None), ("s.csv line 3", "The answer is 10.", None)]))
    ["s.csv: 1 of 2 reference answers read like prose; the first, s.csv line 3: 'The answer is 10.'"]
    """
    first: dict[str, str] = {}
    counts: dict[str, int] = {}
    total = 0
    for place, answer, solution in references:
        total += 1
        kind = _doubt(answer, solution)
        if kind is not None:
            counts[kind] = counts.get(kind, 0) + 1
            beside = f" beside {short(_boxed(solution))}" if kind == _OTHER_BOX else ""
            first.setdefault(kind, f"{place}: {short(answer)}{beside}")
    for kind, count in counts.items():
        yield f"{source}: {count} of {total} reference answers {kind}; the first, {first[kind]}"


def _doubt(answer: str, solution: str | None) -> str | None:
    if last_box(f"\\boxed{{{answer}}}") != answer:
        return "have braces that do not match, so no response can give them"
    if (note := unreadable_note(answer)) is not None:
        return f"are unreadable ({note}), so every response is"
    if _NOTHING.fullmatch(answer):
        return "are a word for none"
    if _PROSE.search(answer):
        return "read like prose"
    boxed = _boxed(solution)
    if boxed is not None and boxed != answer and in_one_writing(boxed) != in_one_writing(answer):
        return _OTHER_BOX
    return None


def _boxed(solution: str | None) -> str | None:
    """What the last box of a solution holds; None without one, or if it never closes. Quick on long ones."""
    _, box, rest = (solution or "").rpartition(BOX)
    return last_box(box + rest) if box else None


def in_one_writing(answer: str) -> str:
    """Return an answer without what does not matter in its writing; 1/2 and 0.5 stay two.

    >>> in_one_writing("$1{,}204.$"), in_one_writing("\\\\dfrac{1}{2}"), in_one_writing("x + 1")
    ('1204', '\\\\frac{1}{2}', 'x+1')
    """
    return as_integer(answer) or normalised(answer).replace(" ", "")
