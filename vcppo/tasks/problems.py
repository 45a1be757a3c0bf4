"""Problems with reference answers, from a set on the hub or a file, whatever their columns are called."""

from __future__ import annotations

import functools
import logging
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcppo.errors import ConfigError, DataError
from vcppo.settings.known_sets import FILES, KNOWN, is_file, label
from vcppo.settings.plugin import PluginTaskSettings
from vcppo.system.fingerprints import fingerprint
from vcppo.tasks.doubts import doubts, in_one_writing
from vcppo.tasks.extraction import as_integer, last_box
from vcppo.tasks.plugin_address import plugin_address
from vcppo.tasks.rows import Row, file_rows, hub_rows, plain_number, reach, reference_cell, short, text_cell

if TYPE_CHECKING:
    from vcppo.settings.task import MathsSettings, TaskSettings

QUESTIONS = ("problem", "question", "prompt", "query", "input")
ANSWERS = ("answer", "final_answer", "expected_answer", "ground_truth", "gold", "target", "reward_model.ground_truth")
SOLUTIONS = ("solution", "worked_solution", "generated_solution", "rationale", "response")
NAMES = ("id", "unique_id", "problem_id", "problem_idx", "name", "uid")
USUAL = {"question": QUESTIONS, "answer": ANSWERS, "solution": SOLUTIONS, "name": NAMES}
WRITTEN_ON_HUB = 500  # problems that a set of unknown size is taken to have when costs are estimated
_WORKINGS = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """A question, its reference answer, and a worked solution if the source has one."""

    name: str
    question: str
    answer: str
    solution: str | None
    place: str = field(default="", compare=False)  # in the source, for messages


@dataclass(frozen=True)
class ProblemSets:
    """Problems to train on and to evaluate on; no problem is in both, none is in one of them twice."""

    train: tuple[Problem, ...]
    evaluate: tuple[Problem, ...]


def problem_sets(settings: MathsSettings) -> ProblemSets:
    """Return both sets, read once for as long as the files do not change.

    Raises:
        DataError: a file or its rows are not as expected, or the hub cannot be reached.
        ConfigError: a source or a column does not exist.
    """
    return _problem_sets(settings, tuple(content(settings).values()))


def evaluation_problems(settings: MathsSettings) -> tuple[Problem, ...]:
    """Return the problems of evaluation, without reading those of training.

    Raises:
        DataError, ConfigError: as `problem_sets`.
    """
    every = _evaluation_set(settings, tuple(_fingerprints(settings, ("evaluate",)).values()))
    count = min(len(every), settings.evaluate_limit or len(every))
    return tuple(every[i * len(every) // count] for i in range(count))


def content(settings: MathsSettings) -> dict[str, str]:
    """Return fingerprints of the sources that are files, so that a result's address covers contents, not only paths."""
    return _fingerprints(settings, ("train", "evaluate"))


def _fingerprints(settings: MathsSettings, uses: tuple[str, ...]) -> dict[str, str]:
    fingerprints = {}
    for use in uses:
        source = getattr(settings, use)
        if is_file(source):
            try:
                fingerprints[use] = fingerprint(Path(source).expanduser())
            except OSError as error:
                raise DataError(f"task.maths.{use} = {source}: {error.strerror or error}") from None
    return fingerprints


def task_address(settings: TaskSettings, *, trains: bool = True) -> dict[str, Any]:
    """Return what of a task's settings its results depend on: its settings, and contents beside file names.

    Args:
        trains: nothing is asked but problems of evaluation where it is False: those to train on need not be there.
    """
    if isinstance(settings, PluginTaskSettings):
        return plugin_address(settings)
    everything = settings.model_dump(mode="json")
    if settings.name == "maths":
        del everything["maths"]["workers"]
        train = Path(settings.maths.train).expanduser()
        absent = not trains and is_file(settings.maths.train) and not train.exists()
        uses = ("evaluate",) if absent else ("train", "evaluate")
        return {**everything, "content": _fingerprints(settings.maths, uses)}
    if settings.name == "digits" and not settings.held_out_for_search:  # as before there was such a setting
        del everything["held_out_for_search"]
    return everything


def evaluation_size(settings: MathsSettings) -> int:
    """Return how many problems evaluation has; a guess for a set on the hub that is not known here."""
    source = settings.evaluate
    if is_file(source):
        return len(evaluation_problems(settings))
    size = KNOWN[source].problems if source in KNOWN else WRITTEN_ON_HUB
    return min(size, settings.evaluate_limit or size)


@functools.lru_cache(maxsize=4)
def _evaluation_set(settings: MathsSettings, _contents: tuple[str, ...]) -> tuple[Problem, ...]:
    """All of it, whatever `evaluate_limit` takes: training avoids every problem."""
    return tuple(_once(_read(settings, "evaluate"), settings.evaluate))


@functools.lru_cache(maxsize=4)
def _problem_sets(settings: MathsSettings, _contents: tuple[str, ...]) -> ProblemSets:
    evaluate = _evaluation_set(settings, tuple(_fingerprints(settings, ("evaluate",)).values()))
    train = _once(_read(settings, "train"), settings.train)
    measured = {_sameness(problem.question) for problem in evaluate}
    unseen = [problem for problem in train if _sameness(problem.question) not in measured]
    if len(unseen) < len(train):
        _logger.warning(
            "%s: %d of %d problems left out of training, for they are in %s too",
            settings.train,
            len(train) - len(unseen),
            len(train),
            settings.evaluate,
        )
    if not unseen:
        raise DataError(
            f"task.maths.train = {settings.train}: all its {len(train)} problems are in task.maths.evaluate = "
            f"{settings.evaluate} too, nothing is left to train on"
        )
    return ProblemSets(tuple(unseen), evaluation_problems(settings))


def _read(settings: MathsSettings, use: str) -> list[Problem]:
    """Read the problems of one source, in its order."""
    source = settings.train if use == "train" else settings.evaluate
    wanted = dict.fromkeys(USUAL, None) | {name: getattr(settings, f"{name}_column") for name in USUAL}
    if source in KNOWN:
        known = KNOWN[source]
        wanted = {name: getattr(known, name) for name in USUAL}
        split = getattr(settings, f"{use}_split") or getattr(known, f"{use}_split")
        rows = [row for config in known.configs for row in hub_rows(known.hub, config, split, use)]
    elif is_file(source):
        rows = list(file_rows(Path(source).expanduser(), source))
    elif Path(source).expanduser().is_file():
        raise ConfigError(f"task.maths.{use} = {source}: a file here; expected its name to end in {', '.join(FILES)}")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        split = getattr(settings, f"{use}_split") or {"train": "train", "evaluate": "test"}[use]
        rows = list(hub_rows(source, None, split, use))
    else:
        raise ConfigError(
            f"task.maths.{use} = {source}: expected one of {', '.join(KNOWN)}, a hub name as owner/name, or a file "
            f"that ends in {', '.join(FILES)}"
        )
    if not rows:
        raise DataError(f"task.maths.{use} = {source}: it has no problems")
    columns = _columns(_all_columns(rows), wanted, source, use, known=source in KNOWN)
    problems = [_problem(row, columns, f"{label(source)}-{i:05d}") for i, row in enumerate(rows, 1)]
    if settings.answers == "integer":
        for row, problem in zip(rows, problems, strict=True):
            if as_integer(problem.answer) is None:
                raise DataError(
                    f"{row.place}: the reference answer is {short(problem.answer)}; task.maths.answers = integer "
                    "needs integers"
                )
    names = {problem.name for problem in problems}
    if len(names) < len(problems):
        message = f"{source}: {len(problems) - len(names)} problems have the name of another"
        if settings.name_column and source not in KNOWN:
            raise DataError(f"{message}; task.maths.name_column = {settings.name_column} must tell them apart")
        problems = [_problem(row, columns, f"{label(source)}-{i:05d}", named=False) for i, row in enumerate(rows, 1)]
    for line in doubts(source, ((problem.place, problem.answer, problem.solution) for problem in problems)):
        _logger.warning("%s", line)
    return problems


def _all_columns(rows: list[Row]) -> dict[str, Any]:
    """Return every column that any row has, since lines of JSON may leave some out, with its first value."""
    columns: dict[str, Any] = {}
    for row in rows:
        for name, value in row.values.items():
            if columns.get(name) is None:
                columns[name] = value
    return columns


def _columns(
    first: Mapping[str, Any], wanted: Mapping[str, str | None], source: str, use: str, *, known: bool
) -> dict[str, str | None]:
    """Return the column of the question, the answer, the solution and the name; None for one that is absent."""
    there = ", ".join(sorted(map(str, first)))
    columns: dict[str, str | None] = {}
    for role, usual in USUAL.items():
        column = wanted[role]
        if role == "solution" and use == "evaluate" and not _has(first, column or ""):
            column = None  # problems of evaluation need none
        if column is not None and not _has(first, column):
            if known:
                raise DataError(f"the column {column}: {source} has none of that name, it has {there}")
            raise DataError(
                f"task.maths.{role}_column = {column}: {source} (task.maths.{use}) has none of that name, it has "
                f"{there}; a column that is named is looked for in task.maths.train and in task.maths.evaluate"
            )
        by_lower = {str(name).lower(): str(name) for name in first}
        names = [name for name in (by_lower.get(usual_name, usual_name) for usual_name in usual) if _has(first, name)]
        columns[role] = column or (None if known or not names else names[0])
    for role in ("question", "answer"):
        if columns[role] is None and not (role == "answer" and columns["solution"]):
            raise DataError(
                f"task.maths.{use} = {source}: no column of it looks like the {role}, it has {there}; name it with "
                f"task.maths.{role}_column"
            )
    return columns


def _problem(row: Row, columns: Mapping[str, str | None], numbered: str, *, named: bool = True) -> Problem:
    cells = {"answer": reference_cell}
    at = {role: cells.get(role, text_cell)(row, column) if column else "" for role, column in columns.items()}
    if not at["question"]:
        raise DataError(f'{row.place}: "{columns["question"]}" is empty; every prompt needs a question')
    answer, column = at["answer"], columns["answer"]
    if column is not None and not answer:
        raise DataError(f'{row.place}: "{column}" is empty; every prompt needs a reference answer')
    if column is None:
        answer, column = at["solution"], columns["solution"]
        if "####" not in answer and last_box(answer) is None:
            raise DataError(f'{row.place}: "{column}" has no \\boxed{{}} answer; every prompt needs a reference answer')
    reference = reference_answer(answer)
    if not reference:
        raise DataError(f'{row.place}: "{column}" ends in no answer; every prompt needs a reference answer')
    works_out = columns["solution"] is None and answer.rpartition("####")[0].strip()  # as GSM8K's answers do
    worked = answer if works_out else at["solution"]
    same = columns["solution"] in (None, columns["answer"]) and "####" not in answer
    return Problem(
        name=(at["name"] if named else "") or numbered,
        question=at["question"],
        answer=reference,
        solution=None if same or not worked else tidy_solution(worked, reference),
        place=row.place,
    )


def reference_answer(text: str) -> str:
    """Return what follows GSM8K's `####`, else the last box's content, else the text, without dollar signs around it.

    >>> reference_answer("6 * 7 = 42 #### 42"), reference_answer("so \\\\boxed{x^2}"), reference_answer("$\\\\pi$")
    ('42', 'x^2', '\\\\pi')
    """
    _, marker, rest = text.rpartition("####")
    answer = rest if marker else last_box(text)
    answer = (text if answer is None else answer).strip()
    if len(answer) > 1 and answer[0] == answer[-1] == "$" and "$" not in answer[1:-1]:
        answer = answer[1:-1].strip()
    return plain_number(answer)


def tidy_solution(text: str, reference: str) -> str:
    """Return a solution that ends in a box, as the policy's must: GSM8K's marks become one, or it gets a last line.

    >>> tidy_solution("6 * 7 = <<6*7=42>>42\\n#### 42", "42")
    '6 * 7 = 42\\nThe final answer is \\\\boxed{42}.'
    """
    if "####" in text:
        text = _WORKINGS.sub("", text.rpartition("####")[0]).strip()
    if last_box(text) is not None:
        return text
    return f"{text}\nThe final answer is \\boxed{{{reference}}}.".lstrip()


def _once(problems: list[Problem], source: str) -> list[Problem]:
    """Drop problems whose question came before; those that contradict it are told beside."""
    seen: dict[str, Problem] = {}
    contradictions: list[tuple[Problem, Problem]] = []
    for problem in problems:
        before = seen.setdefault(_sameness(problem.question), problem)
        if before.answer != problem.answer and in_one_writing(before.answer) != in_one_writing(problem.answer):
            contradictions.append((before, problem))
    if len(seen) < len(problems):
        message = f"{source}: {len(problems) - len(seen)} of {len(problems)} problems are repeated, left out"
        if contradictions:
            before, after = contradictions[0]
            message += (
                f"; {len(contradictions)} of them with another answer, the first, {after.place}: "
                f"{short(after.answer)} where {before.place} has {short(before.answer)}"
            )
        _logger.warning("%s", message)
    return list(seen.values())


def _sameness(question: str) -> str:
    """Equal for questions that differ in case, white space and dollar signs only; 2⁵ is not 25."""
    return " ".join(unicodedata.normalize("NFC", question).replace("$", "").casefold().split())


def _has(values: Mapping[str, Any], column: str) -> bool:
    return column in values or reach(values, column) is not None
