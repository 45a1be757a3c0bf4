"""Reference answers that no response can give, prose, contradictions: a line for each kind when a set is read."""

import logging
import re
from pathlib import Path

import pytest
from problem_files import settings, write

from vcppo.errors import DataError
from vcppo.tasks.doubts import doubts
from vcppo.tasks.problems import problem_sets

BRACES = "have braces that do not match, so no response can give them"
FINE = (
    "10",
    "-3",
    "1,234",
    "\\frac{1}{2}",
    "5+5",
    "\\text{June 20}",
    "Monday",
    "A.",
    "\\emptyset",
    "x \\in [1, 2]",
    "nano",
)


def test_each_kind_is_one_line_with_its_number_and_its_first(
    tmp_path: Path, measured: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers = ["10", "The answer is 10.", "N/A", "x\\left\\{", "so it is 7", "\\frac{1", "?", "²", *FINE]
    train = write(tmp_path / "t.jsonl", *({"problem": f"P{i}?", "answer": a} for i, a in enumerate(answers)))
    with caplog.at_level(logging.WARNING):
        found = problem_sets(settings(train, measured))
    assert len(found.train) == len(answers), "told, and used nevertheless"
    assert caplog.messages == [
        f"{train}: 2 of 19 reference answers read like prose; the first, {train} line 2: 'The answer is 10.'",
        f"{train}: 2 of 19 reference answers are a word for none; the first, {train} line 3: 'N/A'",
        f"{train}: 1 of 19 reference answers {BRACES}; the first, {train} line 6: '\\\\frac{{1'",
        f"{train}: 1 of 19 reference answers are unreadable (other digits), so every response is; the first, "
        f"{train} line 8: '²'",
    ]


def test_a_solution_that_comes_to_something_else_is_told(
    tmp_path: Path, measured: str, caplog: pytest.LogCaptureFixture
) -> None:
    solutions = ["\\boxed{10}", "first \\boxed{10}, no, \\boxed{11}", "no box", "", "\\boxed{ $10$. }", "\\boxed{10"]
    rows = [{"problem": f"P{i}?", "answer": "10", "solution": text} for i, text in enumerate(solutions)]
    half = {"problem": "Half?", "answer": "\\frac{1}{2}", "solution": "\\boxed{\\dfrac{1}{2}}"}
    train = write(tmp_path / "t.jsonl", *rows, half)
    with caplog.at_level(logging.WARNING):
        problem_sets(settings(train, measured))
    assert caplog.messages == [
        f"{train}: 1 of 7 reference answers are not what the box of their solution holds; the first, {train} line 2: "
        "'10' beside '11'"
    ]


def test_one_question_with_two_answers_is_a_contradiction(
    tmp_path: Path, measured: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [("A?", "1"), ("B?", "1,200"), ("a?", "2"), ("b?", "1200."), ("A ?", "1"), ("a?", "3")]
    train = write(tmp_path / "t.jsonl", *({"problem": q, "answer": a} for q, a in rows))
    with caplog.at_level(logging.WARNING):
        found = problem_sets(settings(train, measured))
    assert [p.answer for p in found.train] == ["1", "1,200", "1"]
    assert caplog.messages == [
        f"{train}: 3 of 6 problems are repeated, left out; 2 of them with another answer, the first, {train} line 3: "
        f"'2' where {train} line 1 has '1'"
    ]


def test_thousands_of_them_are_one_line() -> None:
    (line,) = doubts("s", ((f"s line {i}", "N/A", None) for i in range(1, 10001)))
    assert line == "s: 10000 of 10000 reference answers are a word for none; the first, s line 1: 'N/A'"


@pytest.mark.parametrize("role", ["question", "answer"])
def test_a_column_that_is_named_is_looked_for_in_both_sets(tmp_path: Path, measured: str, role: str) -> None:
    train = write(tmp_path / "t.jsonl", {"q": "A?", "a": 1, "problem": "B?", "answer": 2})
    wanted = {"question": "q", "answer": "a"}[role]
    said = (
        f"task.maths.{role}_column = {wanted}: {measured} (task.maths.evaluate) has none of that name, it has answer, "
        "problem; a column that is named is looked for in task.maths.train and in task.maths.evaluate"
    )
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        problem_sets(settings(train, measured, **{f"{role}_column": wanted}))
