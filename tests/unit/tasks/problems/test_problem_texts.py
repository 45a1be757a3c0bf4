"""Numbers, encodings, repetitions and ground truths of problems are read as they are written."""

import json
import re
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from problem_files import forget, settings, write

from vcppo.errors import DataError
from vcppo.tasks.problems import problem_sets

# ---- numbers keep their digits ----


def references(path: Path, measured: str, **more: object) -> list[str]:
    return [problem.answer for problem in problem_sets(settings(str(path), measured, **more)).train]


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        ("0.00005", "0.00005"),
        ("5e-05", "0.00005"),
        ("1e22", "10000000000000000000000"),
        ("123456789.125", "123456789.125"),
        ("0.1000", "0.1000"),
        ("3.141592653589793238462643", "3.141592653589793238462643"),
        ("1e-7", "0.0000001"),
        ("-2.5E-3", "-0.0025"),
        ("5.0", "5"),
        ("-0.0", "0"),
        ("6.02e23", "602000000000000000000000"),
        ("9007199254740993", "9007199254740993"),
        ('"5e-05"', "0.00005"),
        ('"1.5e-3"', "0.0015"),
        ('"1e3"', "1000"),
        ('"2e"', "2e"),
        ('"so #### 6.02e23"', "602000000000000000000000"),
    ],
)
def test_a_number_of_json_keeps_the_digits_it_is_written_with(
    tmp_path: Path, measured: str, written: str, wanted: str
) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(f'{{"problem": "A", "answer": {written}}}\n')
    assert references(path, measured) == [wanted]


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        (pa.array([0.1, 5e-5, 1e-7, 2.0**24], pa.float32()), ["0.1", "0.00005", "0.0000001", "16777216"]),
        (pa.array([0.1, -0.00005], pa.float16()), ["0.1", "-0.00005"]),
        (pa.array([5e-5, 1e22, 0.1 + 0.2, 5.0]), ["0.00005", "10000000000000000000000", "0.30000000000000004", "5"]),
        (pa.array([Decimal("0.00005"), Decimal("12.50000"), Decimal("3.00000")]), ["0.00005", "12.50000", "3"]),
        (pa.array([2**63 - 1, -3]), ["9223372036854775807", "-3"]),
        (pa.array([{"x": 0.1}, {"x": 5e-5}], pa.struct({"x": pa.float32()})), ["0.1", "0.00005"]),
        (pa.array([[0.1], [7.0]], pa.list_(pa.float32())), ["0.1", "7"]),
        (pa.array([0.1, 0.7], pa.float32()).dictionary_encode(), ["0.1", "0.7"]),
        (pa.array([[("x", 0.1)], [("x", 5e-5)]], pa.map_(pa.string(), pa.float32())), ["0.1", "0.00005"]),
        (pa.array([[("x", 5e-5)], [("x", 7.0)]], pa.map_(pa.string(), pa.float64())), ["0.00005", "7"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("place", ["file", "hub"])
def test_a_number_of_a_table_keeps_the_digits_of_its_column(
    tmp_path: Path, measured: str, monkeypatch: pytest.MonkeyPatch, place: str, column: pa.Array, wanted: list[str]
) -> None:
    import datasets

    table = pa.table({"problem": [f"P{i}" for i in range(len(column))], "answer": column})
    if place == "file":
        pq.write_table(table, tmp_path / "t.parquet")
        assert references(tmp_path / "t.parquet", measured) == wanted
    elif not pa.types.is_dictionary(column.type) and not pa.types.is_map(column.type):  # datasets has no such columns
        monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset(table))
        forget()
        found = problem_sets(settings("owner/other", measured)).train
        forget()
        assert [problem.answer for problem in found] == wanted


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), True])
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()])
def test_what_is_no_number_in_a_table_is_told_with_its_row(
    tmp_path: Path, measured: str, value: float, kind: pa.DataType
) -> None:
    column = pa.array([value]) if value is True else pa.array([value], kind)
    pq.write_table(pa.table({"problem": ["P"], "answer": column}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r't.parquet row 1: "answer" is (the number -?Inf|empty|bool True)'):
        references(tmp_path / "t.parquet", measured)


def test_numbers_of_a_csv_as_pandas_writes_them(tmp_path: Path, measured: str) -> None:
    frame = pd.DataFrame({"id": ["1e5", "2e5", "3e5"], "problem": list("ABC"), "answer": [5e-5, 1e22, 0.25]})
    frame.to_csv(tmp_path / "t.csv", index=False)
    assert references(tmp_path / "t.csv", measured) == ["0.00005", "10000000000000000000000", "0.25"]
    assert [p.name for p in problem_sets(settings(str(tmp_path / "t.csv"), measured)).train] == ["1e5", "2e5", "3e5"]


# ---- byte order marks ----


BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", '{"id": "a", "problem": "P", "answer": "4", "solution": "s"}\n'),
        ("t.jsonl", '\n{"id": "a", "problem": "P", "answer": "4", "solution": "s"}\n'),
        ("t.jsonl", '{"problem": "M1?", "answer": 1}\n\ufeff{"id": "a", "problem": "P", "answer": 4, "solution": "s"}'),
        ("t.csv", "id,problem,answer,solution\na,P,4,s\n"),
        ("t.csv", "solution,problem,answer,id\r\ns,P,4,a\r\n"),
        ("t.csv", '"problem","id","answer","solution"\n"P","a","4","s"\n'),
    ],
)  # fmt: skip
def test_a_byte_order_mark_hides_no_column(tmp_path: Path, measured: str, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(BOM + text.encode())
    (problem,) = problem_sets(settings(str(tmp_path / name), measured)).train
    assert (problem.name, problem.question, problem.answer) == ("a", "P", "4")
    assert problem.solution == "s\nThe final answer is \\boxed{4}."


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("name", ["t.jsonl", "t.csv"])
def test_other_encodings_are_told_in_one_line(tmp_path: Path, measured: str, name: str, encoding: str) -> None:
    (tmp_path / name).write_text('{"problem": "P", "answer": "4"}\n', encoding=encoding)
    with pytest.raises(
        DataError, match=rf"{name}: cannot be read \(it is UTF-16, .*; expected UTF-8: save it again as"
    ):
        problem_sets(settings(str(tmp_path / name), measured))


def test_a_column_that_the_first_line_leaves_out_is_there(tmp_path: Path, measured: str) -> None:
    rows = [{"problem": "A", "answer": "1"}, {"problem": "B", "answer": "2", "solution": "s"}]
    first, second = problem_sets(settings(write(tmp_path / "t.jsonl", *rows), measured)).train
    assert (first.solution, second.solution) == (None, "s\nThe final answer is \\boxed{2}.")


# ---- what counts as repeated ----


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2⁵ = ?", "25 = ?"),
        ("½ of 4?", "1⁄2 of 4?"),
        ("x₁ + 1?", "x1 + 1?"),
        ("Is ℝ a set?", "Is R a set?"),
        ("x² + 1?", "x2 + 1?"),
        ("① + 1?", "1 + 1?"),
        ("5² ㎝ are?", "52 cm are?"),
    ],
)
def test_different_questions_are_not_repeated(tmp_path: Path, measured: str, one: str, other: str) -> None:
    rows = [{"problem": text, "answer": "1"} for text in (one, other)]
    assert len(problem_sets(settings(write(tmp_path / "t.jsonl", *rows), measured)).train) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("caf\u00e9?", "cafe\u0301?"),
        ("1 + 1?", " 1  +\n1? "),
        ("1\u00a0+ 1?", "1 + 1?"),
        ("Is $x$ even?", "is x even?"),
        ("\u2126 = ?", "\u03a9 = ?"),
    ],
)
def test_questions_that_read_alike_are_repeated(tmp_path: Path, measured: str, one: str, other: str) -> None:
    rows = [{"problem": text, "answer": "1"} for text in (one, other)]
    assert len(problem_sets(settings(write(tmp_path / "t.jsonl", *rows), measured)).train) == 1


# ---- half a character ----


@pytest.mark.parametrize(
    ("row", "column"),
    [
        ({"problem": "a \ud83d b", "answer": "1"}, "problem"),
        ({"problem": "a", "answer": "\udc00"}, "answer"),
        ({"problem": "a", "answer": ["1\udc00"]}, "answer"),
        ({"problem": "a", "answer": '["1\\ud83d"]'}, "answer"),
        ({"problem": "a", "answer": "1", "solution": "\ud83d\ud83d \\boxed{1}"}, "solution"),
        ({"problem": "a", "answer": "1", "id": "\udfff"}, "id"),
        ({"problem": [{"role": "user", "content": "\ude00\ud83d"}], "answer": "1"}, "problem"),
    ],
)
def test_half_a_character_is_told_with_its_line(tmp_path: Path, measured: str, row: object, column: str) -> None:
    train = write(tmp_path / "t.jsonl", {"problem": "\U0001f600", "answer": "1"}, row)  # JSON writes that in two halves
    with pytest.raises(DataError, match=rf't.jsonl line 2: "{column}" holds half a character') as caught:
        problem_sets(settings(train, measured))
    str(caught.value).encode()


# ---- ground truths in lists, objects and JSON ----


@pytest.mark.parametrize(
    ("held", "wanted"),
    [
        (["4"], "4"),
        ([4], "4"),
        ([0.00005], "0.00005"),
        ([["4"]], "4"),
        ('["4"]', "4"),
        ("[4]", "4"),
        ("[0.00005]", "0.00005"),
        ('[["4"]]', "4"),
        ('"4"', "4"),
        ('{"target": "4"}', "4"),
        ('{"ground_truth": 4.0, "style": "rule"}', "4"),
        ({"value": "4"}, "4"),
        ({"ground_truth": ["4"], "style": "rule"}, "4"),
        ('["\\\\frac{1}{2}"]', "\\frac{1}{2}"),
        (["so \\boxed{7}"], "7"),
        (["[1, 2]"], "[1, 2]"),
        ("[1, 2]", "[1, 2]"),
        ("[1, 2)", "[1, 2)"),
        ("[[1, 2], [3, 4]]", "[[1, 2], [3, 4]]"),
        ("[[1, 2]]", "[[1, 2]]"),
        ("{1, 2}", "{1, 2}"),
        ("{}", "{}"),
        ("[]", "[]"),
        ("[x]", "[x]"),
    ],
)
def test_one_ground_truth_is_found_in_what_holds_it(tmp_path: Path, measured: str, held: object, wanted: str) -> None:
    assert references(Path(write(tmp_path / "t.jsonl", {"problem": "P", "answer": held})), measured) == [wanted]


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (["4", "5"], "holds 2 ground truths, ['4', '5']; expected one"),
        ([4, 5], "holds 2 ground truths, [4, 5]; expected one"),
        ('["4", "5"]', "holds 2 ground truths, ['4', '5']; expected one"),
        ([["4", "5"]], "holds 2 ground truths"),
        (["4"] * 50, "holds 50 ground truths, ['4', '4'"),
        ({"a": 1, "b": 2}, "is an object of a, b; expected a single ground truth in it, by one of the names gr"),
        ({"target": 1, "answer": 2}, "is an object of target, answer; expected a single ground truth"),
        ({"ground_truth": {}}, "is an object of nothing; expected a single ground truth"),
        ([True], "is bool True; expected text or a number"),
    ],
)  # fmt: skip
def test_several_ground_truths_are_refused_in_one_line(
    tmp_path: Path, measured: str, held: object, message: str
) -> None:
    train = write(tmp_path / "t.jsonl", {"problem": "P", "answer": held})
    with pytest.raises(DataError, match=re.escape(f't.jsonl line 1: "answer" {message}')) as caught:
        problem_sets(settings(train, measured))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_rewards_as_verl_keeps_them(tmp_path: Path, measured: str, suffix: str) -> None:
    """A struct in Parquet, JSON text of it where a file holds text alone."""
    path = tmp_path / f"t{suffix}"
    truths = [{"ground_truth": '["34"]', "style": "rule-lighteval/MATH_v2"}, {"ground_truth": "5", "style": "rule"}]
    rows = [{"prompt": f"P{i}", "reward_model": truth} for i, truth in enumerate(truths)]
    as_text = pd.DataFrame([row | {"reward_model": json.dumps(row["reward_model"])} for row in rows])
    if suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif suffix == ".csv":
        as_text.to_csv(path, index=False)
    else:
        write(path, *as_text.to_dict("records"))
    assert references(path, measured) == ["34", "5"]


def test_a_csv_row_with_more_cells_than_columns_is_refused(tmp_path: Path, measured: str) -> None:
    """Its question would end at the first comma, and its answer be the rest of the question."""
    (tmp_path / "t.csv").write_text("problem,answer\nWhat is 1, 2?,3\n")
    with pytest.raises(DataError, match=r"t\.csv line 2: more cells than the header has columns; .* needs quotes"):
        references(tmp_path / "t.csv", measured)
