"""Problems from files and the hub: columns found or named, mistakes told with their line, nothing measured twice."""

import logging
import re
from pathlib import Path

import arithmetic
import pandas as pd
import pytest
from problem_files import HUB, settings, write

from vcppo.errors import ConfigError, DataError
from vcppo.settings.known_sets import KNOWN, label
from vcppo.settings.loading import load_settings
from vcppo.settings.task import DigitsTaskSettings, MathsTaskSettings
from vcppo.store.cache import addresses
from vcppo.system.fingerprints import fingerprint
from vcppo.tasks.problems import evaluation_size, problem_sets, reference_answer, task_address, tidy_solution


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_three_kinds_of_file_hold_the_same(tmp_path: Path, measured: str, suffix: str) -> None:
    path = arithmetic.make_problems(tmp_path / f"sums{suffix}", 5)
    found = problem_sets(settings(str(path), measured)).train
    wanted = arithmetic.problems(5)
    assert [(p.name, p.question, p.answer, p.solution) for p in found] == [
        (row["id"], row["question"], row["answer"], row["solution"]) for row in wanted
    ]


def test_columns_by_other_names_and_within_columns(tmp_path: Path, measured: str) -> None:
    row = {
        "ask": [{"role": "system", "content": "s"}, {"role": "user", "content": "1 + 1?"}],
        "extra": {"truth": 2.0, "way": "easy"},
        "key": 7,
    }
    write(tmp_path / "m2.jsonl", row | {"ask": "3 + 3?", "key": 8})
    columns = {"question": "ask", "answer": "extra.truth", "solution": "extra.way", "name": "key"}
    named = {f"{role}_column": column for role, column in columns.items()}
    found = problem_sets(settings(write(tmp_path / "t.jsonl", row), str(tmp_path / "m2.jsonl"), **named))
    (problem,) = found.train
    assert (problem.name, problem.question, problem.answer) == ("7", "1 + 1?", "2")
    assert problem.solution == "easy\nThe final answer is \\boxed{2}."


def test_answers_in_solutions(tmp_path: Path, measured: str) -> None:
    train = write(
        tmp_path / "t.jsonl",
        {"Problem": "a", "Solution": "so \\boxed{1} or rather \\boxed{\\frac{1}{2}}"},
        {"Problem": "b", "Solution": "6 * 7 = <<6*7=42>>42\n#### 42"},
    )
    first, second = problem_sets(settings(train, measured)).train
    assert (first.name, first.answer, first.solution) == (
        "t-00001",
        "\\frac{1}{2}",
        "so \\boxed{1} or rather \\boxed{\\frac{1}{2}}",
    )
    assert (second.answer, second.solution) == ("42", "6 * 7 = 42\nThe final answer is \\boxed{42}.")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "b", "answer": ""}', 't.jsonl line 2: "answer" is empty; every prompt needs a reference answer'),
        ('{"question": "b", "answer": null}', 't.jsonl line 2: "answer" is empty; every prompt needs a reference'),
        ('{"question": "b"}', 't.jsonl line 2: "answer" is empty; every prompt needs a reference answer'),
        ('{"question": " ", "answer": "1"}', 't.jsonl line 2: "question" is empty; every prompt needs a question'),
        ('{"question": "b", "answer": "so #### "}', 't.jsonl line 2: "answer" ends in no answer'),
        ('{"question": "b", "answer": []}', 't.jsonl line 2: "answer" is empty; every prompt needs a reference answer'),
        ('{"question": ["b"], "answer": 1}', "t.jsonl line 2: \"question\" is list ['b']; expected text or a number"),
        (
            '{"question": "b", "answer": NaN}',
            't.jsonl line 2: "answer" is empty; every prompt needs a reference answer',
        ),
        ('{"question": "b", "answer": Infinity}', 't.jsonl line 2: "answer" is the number Infinity; expected one betw'),
        ('{"question": "b", "answer": 1e999999999}', 't.jsonl line 2: "answer" is the number 1e+999999999; expected'),
        ('{"question": "b", "answer": [false]}', 't.jsonl line 2: "answer" is bool False; expected text or a number'),
        ('{"question": "b", "answer": true}', 't.jsonl line 2: "answer" is bool True; expected text or a number'),
        ('{"question": "b"', "t.jsonl line 2: not valid JSON"),
        ("[" * 100_000, "t.jsonl line 2: not valid JSON"),
        ("[1]", "t.jsonl line 2: expected an object of columns, found list"),
    ],
)
def test_a_bad_line_is_told_by_its_number(tmp_path: Path, measured: str, line: str, message: str) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        problem_sets(settings(str(path), measured))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "more", "message"),
    [
        (
            {"q": "a", "a": "1"},
            {},
            "no column of it looks like the question, it has a, q; name it with task.maths.question_col",
        ),
        (
            {"question": "a", "x": 1},
            {},
            "no column of it looks like the answer, it has question, x; name it with task.maths.ans",
        ),
        (
            {"problem": "a", "answer": "1"},
            {"solution_column": "proof"},
            "task.maths.solution_column = proof: {t} (task.maths.train) has none of that name, it has answer, problem",
        ),
        (
            {"problem": "a", "solution": "no box"},
            {},
            '{t} line 1: "solution" has no \\boxed{{}} answer; every prompt needs',
        ),
        (
            {"problem": "a", "answer": "1/2"},
            {"answers": "integer"},
            "{t} line 1: the reference answer is '1/2'; task.maths.answers = integer needs integers",
        ),
    ],
)
def test_columns_that_do_not_fit(
    tmp_path: Path, measured: str, row: object, more: dict[str, object], message: str
) -> None:
    train = write(tmp_path / "t.jsonl", row)
    with pytest.raises(DataError, match=re.escape(message.format(t=train))):
        problem_sets(settings(train, measured, **more))


def test_an_answer_that_works_it_out_is_a_solution_too(tmp_path: Path, measured: str) -> None:
    """As GSM8K's file has it, whatever the file is called."""
    train = write(
        tmp_path / "t.jsonl",
        {"question": "a", "answer": "6 * 7 = <<6*7=42>>42\n#### 42"},
        {"question": "b", "answer": "#### 43"},
    )
    first, second = problem_sets(settings(train, measured)).train
    assert (first.answer, first.solution) == ("42", "6 * 7 = 42\nThe final answer is \\boxed{42}.")
    assert (second.answer, second.solution) == ("43", None)


def test_a_file_of_another_kind_is_not_asked_of_the_hub(
    tmp_path: Path, measured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"task.maths.train = data/train.json: a file here; .* end in .*\.jsonl"):
        problem_sets(settings("data/train.json", measured))


def test_an_evaluations_address_needs_no_file_to_train_on(tmp_path: Path, measured: str) -> None:
    there = MathsTaskSettings(maths=settings(write(tmp_path / "t.jsonl", {"question": "a", "answer": "1"}), measured))
    gone = MathsTaskSettings(maths=settings(str(tmp_path / "gone.jsonl"), measured))
    assert task_address(there, trains=False) == task_address(there)
    assert task_address(gone, trains=False)["content"].keys() == {"evaluate"}
    with pytest.raises(DataError, match=r"gone.jsonl: No such file"):
        task_address(gone)


def test_files_that_are_none(tmp_path: Path, measured: str) -> None:
    for name in ("t.parquet", "t.csv", "t.jsonl"):
        (tmp_path / name).write_bytes(b"\xff\xfe\x00 no\n")
        with pytest.raises(DataError, match=rf"{name}.*(not a Parquet file|cannot be read|not valid JSON)"):
            problem_sets(settings(str(tmp_path / name), measured))
    empty = write(tmp_path / "e.jsonl")
    with pytest.raises(DataError, match=r"task.maths.train = .*e.jsonl: it has no problems"):
        problem_sets(settings(empty, measured))
    with pytest.raises(DataError, match=r"task.maths.train = gone.jsonl: No such file"):
        problem_sets(settings("gone.jsonl", measured))
    with pytest.raises(ConfigError, match=r"task.maths.train = aime: expected one of aime24, .*owner/name.*\.parquet"):
        problem_sets(settings("aime", measured))


def test_repeated_problems_and_those_that_are_measured_on_are_told_and_dropped(
    tmp_path: Path, measured: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"problem": text, "answer": "1"} for text in ("A?", "a? ", "$M1$?", "m1?", "B?")]
    train = write(tmp_path / "t.jsonl", *rows)
    with caplog.at_level(logging.WARNING):
        found = problem_sets(settings(train, measured))
    assert [p.question for p in found.train] == ["A?", "B?"]
    assert [p.question for p in found.evaluate] == ["M1?", "M2?"]
    assert caplog.messages == [
        f"{train}: 2 of 5 problems are repeated, left out",
        f"{train}: 1 of 3 problems left out of training, for they are in {measured} too",
    ]
    with pytest.raises(DataError, match=r"all its 2 problems are in task.maths.evaluate = .* nothing is left"):
        problem_sets(settings(measured, measured))


def test_a_limit_takes_problems_from_all_of_a_set_and_training_still_avoids_the_others(tmp_path: Path) -> None:
    evaluate = write(tmp_path / "e.jsonl", *({"problem": f"P{i}", "answer": i} for i in range(10)))
    train = write(tmp_path / "t.jsonl", {"problem": "P9", "answer": 9}, {"problem": "Q", "answer": 0})
    found = problem_sets(settings(train, evaluate, evaluate_limit=3))
    assert [p.answer for p in found.evaluate] == ["0", "3", "6"]
    assert [p.question for p in found.train] == ["Q"]
    assert evaluation_size(settings(train, evaluate, evaluate_limit=3)) == 3
    assert [evaluation_size(settings(train, name)) for name in ("aime24", "math", "owner/other")] == [30, 5000, 500]


def test_names_tell_problems_apart(tmp_path: Path, measured: str) -> None:
    rows = [{"id": 1, "problem": "A", "answer": 1}, {"id": 1, "problem": "B", "answer": 1}]
    train = write(tmp_path / "My Set.jsonl", *rows)
    assert [p.name for p in problem_sets(settings(train, measured)).train] == ["my-set-00001", "my-set-00002"]
    write(tmp_path / "m.jsonl", {"id": 5, "problem": "M", "answer": 1})
    with pytest.raises(DataError, match=r"1 problems have the name of another; task.maths.name_column = id must tell"):
        problem_sets(settings(train, measured, name_column="id"))


def test_references_and_solutions() -> None:
    assert reference_answer("$12$") == "12"
    assert reference_answer("$a$ or $b$") == "$a$ or $b$"
    assert reference_answer(" 7 ") == "7"
    assert tidy_solution("so \\boxed{7}", "7") == "so \\boxed{7}"
    assert tidy_solution("so it is 7", "7") == "so it is 7\nThe final answer is \\boxed{7}."
    assert [label(name) for name in ("aime24", "owner/Set_2", "a/b/My Sums.jsonl", "٢.csv")] == [
        "aime24", "set_2", "my-sums", "maths",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("aime24", ("60", "p", "204", "so 204\nThe final answer is \\boxed{204}.")),
        ("aime25", ("1", "p", "70", None)),
        ("dapo-math-17k", ("dapo-math-17k-00001", "p", "34", None)),
        ("math-500", ("test/1.json", "p", "x", "s \\boxed{x}")),
        ("gsm8k", ("gsm8k-00001", "p", "2", "1+1=2\nThe final answer is \\boxed{2}.")),
    ],
)
def test_known_sets(hub: list[tuple[object, ...]], measured: str, name: str, wanted: tuple[str | None, ...]) -> None:
    (found,) = problem_sets(settings(name, measured)).train
    assert (found.name, found.question, found.answer, found.solution) == wanted


def test_sets_of_several_parts_and_splits_of_their_own(hub: list[tuple[object, ...]], measured: str) -> None:
    found = problem_sets(settings("math", "math"))
    assert len(found.train) == len(found.evaluate) == 7
    assert {p.answer for p in found.train} == {"\\pi"}
    assert {split for _, _, split in hub} == {"train", "test"}
    assert problem_sets(settings("gsm8k", "gsm8k")).evaluate[0].answer == "1,200"
    other = problem_sets(settings("owner/other", measured, train_split="validation")).train
    assert [(p.name, p.answer) for p in other] == [("other-00001", "3")]


def test_every_known_set_is_tried_above() -> None:
    assert {name for name, _, _ in HUB} == {known.hub for known in KNOWN.values()} | {"owner/other"}


@pytest.mark.parametrize("error", [ConnectionError("Couldn't reach it\non the Hub"), ValueError("Unknown split")])
def test_a_hub_out_of_reach_is_one_line_that_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, measured: str, error: Exception
) -> None:
    import datasets

    def load_dataset(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError) as caught:
        problem_sets(settings("gsm8k", measured))
    assert str(caught.value) == (
        "task.maths.train: openai/gsm8k (main), split train cannot be loaded from the dataset hub "
        f"({str(error).splitlines()[0]}); a local .jsonl, .parquet, .csv file works without it"
    )


def test_an_address_follows_a_files_content_and_not_what_cannot_change_a_verdict(tmp_path: Path, measured: str) -> None:
    train = write(tmp_path / "t.jsonl", {"problem": "A", "answer": 1})

    def keys(*more: str) -> dict[str, str]:
        sets = (f"task.maths.train={train}", f"task.maths.evaluate={measured}")
        found = load_settings(assignments=["task.name=maths", "model.path=m", *sets, *more])
        return {stage: address.key for stage, address in addresses(found).items()}

    before = keys()
    assert keys("task.maths.workers=3") == before
    assert not set(keys("task.maths.time_limit_s=3").values()) & set(before.values())
    write(tmp_path / "t.jsonl", {"problem": "A", "answer": 2})
    assert not set(keys().values()) & set(before.values())
    write(tmp_path / "t.jsonl", {"problem": "A", "answer": 1})
    assert keys() == before
    Path(measured).unlink()
    with pytest.raises(DataError, match=r"task.maths.evaluate = .*m.jsonl: No such file"):
        keys()


def test_the_embedded_tasks_addresses_know_nothing_of_maths() -> None:
    assert task_address(DigitsTaskSettings()) == {
        "name": "digits", "chain_length": 30, "spread": 0, "digits": 3, "stop_hazard": 0.09, "held_out": 200,
    }  # fmt: skip


def test_a_fingerprint_is_of_names_and_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("1")
    assert fingerprint(tmp_path / "a") == fingerprint(tmp_path / "b")
    assert len(fingerprint(tmp_path / "a")) == 12
    (tmp_path / "b" / "x").rename(tmp_path / "b" / "y")
    assert fingerprint(tmp_path / "a") != fingerprint(tmp_path / "b")
    before = fingerprint(tmp_path / "a" / "x")
    (tmp_path / "a" / "x").write_text("2")
    assert fingerprint(tmp_path / "a" / "x") != before
    with pytest.raises(OSError, match="No such file"):
        fingerprint(tmp_path / "c")


def test_parquet_with_columns_in_columns(tmp_path: Path, measured: str) -> None:
    frame = pd.DataFrame(
        {
            "prompt": [[{"role": "user", "content": "1 + 1?"}], [{"role": "user", "content": "1 + 2?"}]],
            "reward_model": [{"ground_truth": "2"}, {"ground_truth": "3"}],
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    found = problem_sets(settings(str(tmp_path / "t.parquet"), measured)).train
    assert [(p.question, p.answer) for p in found] == [("1 + 1?", "2"), ("1 + 2?", "3")]
