"""`python -m vcppo.tasks.grader`: a process that compares answers with references, one after another.

It reads one job per line from standard input and replies to each with one line on standard output; what libraries print
is discarded. The jobs are done by a child. When that dies, of an answer or by the parent's hand, another is forked that
has everything loaded already; each begins with a line {"ready": its process id}.

Parsers and sympy catch exceptions of every kind, those of memory that ran out and of recursion too deep among them, and
go on as if the answer made no sense. So jobs run under a trace that sees exceptions wherever they are caught. It
makes a job some three times slower, which is milliseconds.
"""

import argparse
import json
import logging
import os
import re
import resource
import sys
from contextlib import suppress
from itertools import product
from types import FrameType
from typing import Any, NoReturn

from latex2sympy2_extended import NormalizationConfig, latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig
from sympy import Expr, MatrixBase

from vcppo.settings.known_sets import Form
from vcppo.system.processes import die_with
from vcppo.tasks.comparison import equal
from vcppo.tasks.extraction import last_number
from vcppo.tasks.forms import unevaluated
from vcppo.tasks.normalisation import normalised, readings
from vcppo.tasks.reading import is_words, read, words
from vcppo.tasks.values import UnreadableError, Value, trees_of

CASE_MATTERS = ConversionConfig(lowercase_symbols=False)
AS_IT_IS = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="none", equations=False
)
CONFUSED = (UnreadableError, ArithmeticError, NotImplementedError, TypeError, ValueError, AttributeError)  # sympy's too

WORN_OUT = 0.25  # of the memory limit: a child that has grown by this much is replaced
REPLACE_ME = 3  # exit code
# the parser learns its grammar as it reads, and sympy loads what it needs: done before the fork, no child does it again
WARM_UP = (
    "-\\frac{3}{4}",
    "2\\sqrt{3} + 5x^{2}y",
    "(x+1)(x-2)",
    "[1, 2) \\cup (3, \\infty)",
    "\\{1, 2\\}",
    "x = 3, y \\le 4.5",
    "\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}",
    "\\sin\\left(\\frac{\\pi}{6}\\right)",
    "\\text{Monday}",
    "12\\%",
)
FORMULA = re.compile(r"\$([^$]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
FACTOR = re.compile(r"(?<![A-Za-z_{0-9.])([0-9.]+)\s*(?=\()")  # 3(4) would be read as 3 + 4
DEGREES = re.compile(r"([0-9.]+)\s*\^\\circ(?![A-Za-z])")
WORD = re.compile(r"(?:\\text\{)?([A-Za-z]{3,})\}?")
MISREAD = re.compile(  # what the parser takes for something else, or TeX refuses
    r"\^\s*(?:\{[^{}]*\}|\\?\w)\s*\^"  # 9^9^9 may be read in two ways
    r"|(?<![0-9._])[0-9.]+\s+[0-9.]"  # 2 3 as 5
    r"|(?=[0-9.]{17})[0-9]*\.[0-9]+"  # as a float
    r"|'|\\text|\\ldots"
)


class Exhaustion:
    """Record memory errors and recursion errors inside a `with`, caught or not."""

    def __init__(self) -> None:
        self.note = ""

    def __enter__(self) -> "Exhaustion":
        sys.settrace(self._look)
        return self

    def __exit__(self, *_: object) -> None:
        if sys.gettrace() is None and not self.note:  # the trace itself found no room to run in
            self.note = "nesting"
        sys.settrace(None)

    def _look(self, frame: FrameType, event: str, argument: Any) -> Any:
        frame.f_trace_lines = False
        if event == "exception":
            if issubclass(argument[0], MemoryError):
                self.note = "memory"
            elif issubclass(argument[0], RecursionError):
                self.note = self.note or "nesting"
        return self._look


def grade(answer: str, reference: str, *, boxed: bool, form: Form = "expression") -> tuple[str, str]:
    """Return (verdict, note); a note states why an answer is unreadable.

    Args:
        boxed: `answer` is the content of a box, rather than a text to extract an answer from.
        form: that it must have; see forms.py.
    """
    with Exhaustion() as seen:
        try:
            verdict, note = _compare(answer, reference, boxed=boxed, form=form)
        except MemoryError:
            verdict, note = "unreadable", "memory"
        except RecursionError:
            verdict, note = "unreadable", "nesting"
        except Exception:  # noqa: BLE001  sympy raises whatever it likes at what makes no sense, 1/0 for one
            verdict, note = "unreadable", "not maths"
    if seen.note and verdict != "correct":
        return "unreadable", seen.note
    return verdict, note


def _compare(answer: str, reference: str, *, boxed: bool, form: Form) -> tuple[str, str]:
    if not boxed:
        answer = _final_answer(answer)
        if not answer:
            return "unreadable", "no answer"
    written, wanted = normalised(answer), normalised(reference)
    if written and (_untexted(written) == _untexted(wanted) or _same_words(written, wanted)):
        return "correct", ""
    letters = [WORD.fullmatch(text) for text in (written, wanted)]
    if letters[0] and letters[1]:  # red and erd are words, or one product
        alike = sorted(letters[0][1]) == sorted(letters[1][1])
        return ("unreadable", "not maths") if alike else ("wrong", "")
    reference_values, answer_values = _values(wanted), _values(written)
    if not answer_values:
        return "unreadable", "not maths"
    if not reference_values:
        return "unreadable", "reference"
    answer_trees, reference_trees = (
        [tree for value in values for tree in trees_of(value)] for values in (answer_values, reference_values)
    )
    if unevaluated(answer_trees, reference_trees, form, texts=(written, wanted)):
        return "unreadable", "not evaluated"
    return _verdict(reference_values, answer_values)


def _final_answer(text: str) -> str:
    """Return the last formula of a text, else its last number if that stands alone, else nothing."""
    formulas = FORMULA.findall(text)
    return "".join(formulas[-1]) if formulas else last_number(text) or ""


def _untexted(text: str) -> str:
    r"""As it would be without `\text`: 5 mg for 5\text{ mg}."""
    return re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"\\text\{([^{}]*)\}", r"\1", text))


def _same_words(written: str, wanted: str) -> bool:
    if not (is_words(wanted) or is_words(written)):
        return False
    # what `words` drops is no punctuation there: 12! ways, (3, 4) units
    computes = any(re.search(r"[0-9]\s*!|[0-9)]\s*\(|\(\s*[0-9]", text) for text in (written, wanted))
    return written == wanted if computes else words(written) == words(wanted)


def _values(text: str) -> list[Value]:
    """Return the values that a normalised text may have, the likeliest first."""
    values = []
    for reading in readings(text):
        with suppress(*CONFUSED):
            values.append(read(reading, parse_expression))
    return values


def _verdict(reference_values: list[Value], answer_values: list[Value]) -> tuple[str, str]:
    """An answer may be read in any way, its reference in the likeliest alone: 1,234 is no pair, and 234, 1 not it.

    An answer that is equal to another reading of its reference, or not to be compared in one, is not wrong.
    """
    doubt = False
    for reference, answer in product(reference_values, answer_values):
        try:
            same = equal(reference, answer)
        except CONFUSED:
            doubt = True
            continue
        if same and reference is reference_values[0]:
            return "correct", ""
        doubt = doubt or same
    return ("unreadable", "not maths") if doubt else ("wrong", "")


def parse_expression(text: str) -> Any:
    """The tree of an expression, not evaluated; None if it is no expression."""
    if MISREAD.search(text):
        return None
    text = DEGREES.sub(r"(\\frac{\1\\pi}{180})", FACTOR.sub(r"\1\\cdot ", text))
    try:
        tree = latex2sympy(text, is_real=True, conversion_config=CASE_MATTERS, normalization_config=AS_IT_IS)
    except Exception:  # noqa: BLE001  it raises whatever it likes at what makes no sense
        return None
    return tree if isinstance(tree, Expr | MatrixBase) else None


def main() -> None:
    """Let a child serve jobs until standard input ends, and another after it if it dies."""
    parser = argparse.ArgumentParser(prog="python -m vcppo.tasks.grader", description="compares answers")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process whose end is this one's")
    parser.add_argument("--memory-mb", type=int, required=True, help="that a job may take")
    arguments = parser.parse_args()
    die_with(arguments.parent)
    replies = os.dup(1)
    for stream in (1, 2):  # a failed import has been reported by now
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    logging.disable()
    for expression in WARM_UP:
        for reference in WARM_UP[:2]:
            _compare(expression, reference, boxed=True, form="closed-form")  # untraced: this is no job
    _compare("It is $2$, that is 2.", "2", boxed=False, form="expression")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    parent, status = os.getpid(), -1
    while status:  # 0 when standard input has ended
        child = os.fork()
        if not child:
            _serve(replies, parent, arguments.memory_mb * 2**20)
        _, status = os.waitpid(child, 0)


def _serve(replies: int, parent: int, limit: int) -> NoReturn:
    die_with(parent)
    at_first = _address_space()
    with suppress(ValueError, OSError):  # a system that knows no such limit still has the parent's of time
        resource.setrlimit(resource.RLIMIT_AS, (at_first + limit, at_first + limit))
    _send(replies, {"ready": os.getpid()})
    for line in sys.stdin:
        job = json.loads(line)
        verdict, note = grade(job["answer"], job["reference"], boxed=job["boxed"], form=job["form"])
        worn = note == "memory" or _address_space() > at_first + WORN_OUT * limit
        _send(replies, {"number": job["number"], "verdict": verdict, "note": note, "worn": worn})
        if worn:
            os._exit(REPLACE_ME)
    os._exit(0)


def _address_space() -> int:
    """Return bytes; 0 where the system does not report them."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _send(replies: int, message: dict[str, Any]) -> None:
    os.write(replies, json.dumps(message).encode() + b"\n")  # short enough to be written whole or not at all


if __name__ == "__main__":
    main()
