"""What a class from outside gives for judgements: taken where it is one in other words, else refused in one line."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny

from vcppo.errors import DataError, TrainingError
from vcppo.rl.sampler import Sampler
from vcppo.tasks import judging, make_task
from vcppo.tasks.judging import judge
from vcppo.types import Judgement, Prompt, Verdict

PROMPTS = [Prompt("abc", "abc?", "1"), Prompt("abi", "abi?", "2")]
WRONG, WHERE = Judgement(Verdict.WRONG), f"task.name = {__name__}:Judge: judge"


class Judge:
    """A task of which the verifier alone is asked."""

    name = "judge"

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def judge(self, texts: object, prompts: object) -> Any:
        return self.answer()


def given(answer: Callable[[], Any]) -> list[Judgement]:
    task: Any = Judge(answer)
    return judge(task, ["1", "7"], PROMPTS)


def raising(error: BaseException) -> Callable[[], Any]:
    def answer() -> None:
        raise error

    return answer


def lazily(error: BaseException) -> Iterator[Judgement]:
    yield WRONG
    raise error


@pytest.mark.parametrize(
    ("one", "judgement"),
    [
        (Judgement("correct"), Judgement(Verdict.CORRECT)),  # type: ignore[arg-type]
        (("unreadable", "empty"), Judgement(Verdict.UNREADABLE, "empty")),
        ((Verdict.WRONG, "", np.float32(0.5)), Judgement(Verdict.WRONG, credit=0.5)),
        (Judgement(Verdict.WRONG, credit=1), Judgement(Verdict.WRONG, credit=1.0)),
    ],
)
def test_a_judgement_in_other_words_is_one(one: Any, judgement: Judgement) -> None:
    first, second = given(lambda: (one for one in (WRONG, one)))
    assert (first, second) == (WRONG, judgement)
    assert isinstance(second.verdict, Verdict)
    assert type(second.credit) is type(judgement.credit)


@pytest.mark.parametrize(
    ("one", "what"),
    [
        (None, "None, expected Judgement(verdict, note, credit)"),
        ("correct", "'correct', expected Judgement(verdict, note, credit)"),
        (True, "True, expected Judgement(verdict, note, credit)"),
        (("wrong", "", None, 1), "('wrong', '', None, 1), expected Judgement(verdict, note, credit)"),
        (("Correct!",), "verdict = 'Correct!', expected correct, wrong, unreadable"),
        (([],), "verdict = [], expected correct, wrong, unreadable"),
        (("wrong", None), "note = None, expected a text, empty where there is nothing to say"),
        (("wrong", "", 2.0), "credit = 2.0, expected None or a number in [0, 1]"),
        (("wrong", "", float("nan")), "credit = nan, expected None or a number in [0, 1]"),
        (("wrong", "", "0.5"), "credit = '0.5', expected None or a number in [0, 1]"),
        (("wrong", "", torch.tensor(0.5)), "credit = tensor(0.5000), expected None or a number in [0, 1]"),
    ],
)
def test_what_is_none_is_told_with_its_response(one: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        given(lambda: [WRONG, one])
    assert str(caught.value) == f"{WHERE} gave {what}, for response 2 of 2, to prompt 'abi'"


@pytest.mark.parametrize("number", [0, 1, 3])
def test_there_is_one_for_each_response(number: int) -> None:
    with pytest.raises(DataError) as caught:
        given(lambda: [WRONG] * number)
    assert str(caught.value) == f"{WHERE} gave {number} judgements of 2 responses, expected one for each"


def test_there_are_some() -> None:
    with pytest.raises(DataError) as caught:
        given(lambda: None)
    assert str(caught.value) == f"{WHERE} gave None, expected a list of 2 Judgements"


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (KeyError("oops"), "KeyError: 'oops'"),
        (ValueError("two\nlines"), "ValueError: two lines"),
        (SystemExit(3), "SystemExit: 3"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_what_it_raises_is_one_line_with_its_cause(error: BaseException, what: str) -> None:
    for answer in (raising(error), lambda: lazily(error)):
        with pytest.raises(DataError) as caught:
            given(answer)
        assert str(caught.value) == f"{WHERE} raised {what}; expected a judgement of whatever a policy may write"
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TrainingError("said already")])
def test_ctrl_c_and_errors_that_say_what_they_are_go_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        given(raising(error))


def test_a_judge_that_does_not_come_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    said, texts = threading.Event(), list[str]()
    monkeypatch.setattr(judging, "SLOW_S", 0.01)
    monkeypatch.setattr(judging._logger, "warning", lambda words, *values: texts.append(words % values) or said.set())

    def waiting() -> list[Judgement]:
        assert said.wait(60)
        return [WRONG, WRONG]

    assert given(waiting) == [WRONG, WRONG]
    assert texts == [f"{WHERE} is at 2 responses for 0.01 s now; it has no limit of time but its own"]


def test_a_fault_of_ours_keeps_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(tiny().task)
    monkeypatch.setattr(task, "judge", lambda texts, prompts: [WRONG][len(texts)])
    with pytest.raises(IndexError):
        judge(task, ["1", "7"], PROMPTS)


def test_every_response_that_is_judged_again_is_held_to_it() -> None:
    """As `test_credit.py` has it of those that are rolled out."""
    task: Any = Judge(lambda: [WRONG])
    anything: Any = task
    task.batch_decode = lambda responses, skip_special_tokens: ["" for _ in responses]
    with pytest.raises(DataError, match="gave 1 judgements of 2 responses"):
        Sampler(task, anything, anything, anything).judge([(1,), (2,)], PROMPTS)
