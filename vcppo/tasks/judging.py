"""Judgements as a task gives them, held to their form: what is no Judgement goes no further, and is told in a line."""

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real

from vcppo.errors import DataError, VcppoError
from vcppo.tasks.base import Task
from vcppo.types import Judgement, Prompt, Verdict

SHOWN = 60  # characters of what came instead
SLOW_S = 60.0  # after which a line says who is waited for
_logger = logging.getLogger(__name__)


def judge(task: Task, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
    """Return the task's judgements, one for each response; a verdict that is a plain word has become a Verdict.

    There is no limit of time; a judge that takes longer than SLOW_S is named in the log.

    Raises:
        DataError: there are more or fewer than responses, one is no Judgement, or the `judge` of a class from outside
            raises, by whatever but Ctrl-C.
    """
    with _named_if_slow(task, len(texts)):
        given = _answered(task, texts, prompts)
    if len(given) != len(texts):
        raise DataError(f"{_where(task)} gave {len(given)} judgements of {len(texts)} responses, expected one for each")
    judgements = []
    for number, (one, prompt) in enumerate(zip(given, prompts, strict=True), 1):
        try:
            judgements.append(_judgement(one))
        except DataError as error:
            raise DataError(
                f"{_where(task)} gave {error}, for response {number} of {len(texts)}, to prompt {_shown(prompt.name)}"
            ) from None
    return judgements


def _answered(task: Task, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[object]:
    try:
        given: object = task.judge(texts, prompts)
        if isinstance(given, Iterable):
            return list(given)
    except VcppoError:
        raise
    except (Exception, SystemExit) as error:  # classes of others raise whatever they like
        if _is_own(task):  # a fault of ours, for its traceback
            raise
        message = " ".join(str(error).split())
        raised = f"{type(error).__name__}: {message[: 3 * SHOWN]}".removesuffix(": ")
        raise DataError(
            f"{_where(task)} raised {raised}; expected a judgement of whatever a policy may write"
        ) from error
    raise DataError(f"{_where(task)} gave {_shown(given)}, expected a list of {len(texts)} Judgements")


def _judgement(one: object) -> Judgement:
    """One judgement in its form; DataError says what came and what was expected."""
    if not isinstance(one, tuple) or not 1 <= len(one) <= len(Judgement._fields):
        raise DataError(f"{_shown(one)}, expected Judgement(verdict, note, credit)")
    verdict, note, credit = Judgement(*one)
    try:
        verdict = Verdict(verdict)
    except ValueError:
        raise DataError(f"verdict = {_shown(verdict)}, expected {', '.join(Verdict)}") from None
    if not isinstance(note, str):
        raise DataError(f"note = {_shown(note)}, expected a text, empty where there is nothing to say")
    if credit is None:
        return Judgement(verdict, note)
    if not isinstance(credit, Real) or not 0.0 <= credit <= 1.0:
        raise DataError(f"credit = {_shown(credit)}, expected None or a number in [0, 1]")
    return Judgement(verdict, note, float(credit))


@contextmanager
def _named_if_slow(task: Task, responses: int) -> Iterator[None]:
    words = "%s is at %d responses for %g s now; it has no limit of time but its own"
    timer = threading.Timer(SLOW_S, _logger.warning, (words, _where(task), responses, SLOW_S))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _where(task: Task) -> str:
    """The task as settings name it, and the method."""
    kind = type(task)
    return f"task.name = {task.name if _is_own(task) else f'{kind.__module__}:{kind.__qualname__}'}: judge"


def _is_own(task: Task) -> bool:
    return type(task).__module__.partition(".")[0] == "vcppo"


def _shown(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
