"""Bad input gives one clear line; what can be read of it is read; nothing in a dump is run."""

import gzip
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dump_lines import line, lines, refusal

from vcppo.diagnosis.dumps import rows
from vcppo.diagnosis.dumps.files import EXPORT
from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.errors import DataError


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ": an empty file; expected responses"),
        ("\n \n", ": no rows; expected responses"),
        ("[]", ": no rows; expected responses"),
        (lines([1]), " line 1: expected an object of columns, found int"),
        (lines(line(), [1]), " line 2: expected an object of columns, found list"),
        ('{"prompt": "p" "response"}', " line 1: not valid JSON"),
        (lines(line()) + '{"prompt": "p" "response": "rrrrrrrrrr"}', " line 2: not valid JSON"),
        (lines(3), " line 1: expected an object of columns, found int"),
        (lines(line(), "text"), " line 2: expected an object of columns, found str"),
        ("{nothing}\n", " line 1: not valid JSON (Expecting property name enclosed in double quotes"),
        (lines(line()) + "{broken}\n" + lines(line()), " line 2: not valid JSON"),
        (lines(line()) + "\nbroken", " line 3: not valid JSON"),
        ('{"prompt": "p", "resp', ": cut off within its first row"),
        ("[" * 200_000, " line 1: not valid JSON"),
        ('{"a":' * 200_000 + "\n", " line 1: not valid JSON"),
        (b"\x00\x01\x02\xff" * 50, ": no text; expected JSON Lines, JSON or Parquet"),
        (bytes(range(1, 256)), " line 1: not valid JSON"),
        (lines(line()).encode() + b'{"prompt": "\xff\xfe"}\n', " line 2: not valid JSON"),
        (lines(line()).encode("utf-16"), ": UTF-16 or UTF-32; expected UTF-8"),
        (
            lines({"prompt": "p", "response": "r"}),
            " line 1: no column of it looks like the score, it has prompt, respo",
        ),
        (lines(line(score="nan")), ' line 1: "score" is nan; expected a finite number'),
        (lines(line(score=float("nan"))), ' line 1: "score" is nan; expected a finite number'),
        ('{"prompt": "p", "response": "r", "score": 1e999}\n', ' line 1: "score" is inf; expected a finite number'),
        (lines(line(score=10**400)), ' line 1: "score" is inf; expected a finite number'),
        (lines(line(score="good")), " line 1: \"score\" is 'good'; expected a number, true or false"),
        (lines(line(score={"a": 1})), ' line 1: "score" is an object of a; expected a number, true or false; name a '),
        (lines(line(values=[0.5], tokens=[3, 4])), " line 1: numbers of tokens differ, "),
        (lines(line(values=[0.5, "x"])), " line 1: \"values\" has 'x' at token 2; expected a number"),
        (lines(line(logprobs=[None])), ' line 1: "logprobs" is nan at token 1; expected a finite number'),
        (lines(line(tokens=[1, -2])), ' line 1: "tokens" has -2 at token 2; expected a token id'),
        (lines(line(tokens=[1.5])), ' line 1: "tokens" has 1.5 at token 1; expected a token id'),
        (lines(line(tokens=[True])), ' line 1: "tokens" has True at token 1; expected a token id'),
        (lines(line(tokens=[1], response_mask=[2])), ' line 1: "response_mask" has 2 at token 1; expected 0 or 1'),
        (lines(line(response=5)), ' line 1: "response" is int 5; expected text'),
        (lines(line(prompt="")), " line 1: no prompt; expected text, messages or token ids"),
        (lines(line(tokens=[])), ": no response that can be measured (responses left out, they have no token: 1)"),
        (lines(line(), {"input": "p", "output": "r"}), " line 2: no column of it looks like the score"),
        (lines({"columns": ["prompt", "score"], "data": [["p"]]}), " line 1, row 1 of its table: expected a list of 2"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(content: str | bytes, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path / "a.jsonl", content)


def test_lengths_that_differ_are_named(tmp_path: Path) -> None:
    content = lines(line(tokens=[1, 2, 3]), line(tokens=[1, 2, 3], values=[0.5, 0.5], logprobs=[-1, -1, -1]))
    said = refusal(tmp_path / "a.jsonl", content)
    assert said.startswith(' line 2: numbers of tokens differ, 3 in "tokens", 2 in "values", 3 in "logprobs"; expected')


def test_columns_that_came_and_columns_that_are_wanted_are_named(tmp_path: Path) -> None:
    said = refusal(tmp_path / "a.jsonl", lines({"prompt": "p", "text": "r", "mark": 1}))
    assert said.startswith(
        " line 1: no column of it looks like the score, it has prompt, text, mark; expected one of sc"
    )
    assert said.endswith("or name it: score=COLUMN")


# ---- files that run code ----


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["a.pkl", "a.pt", "a.npy", "a.jsonl", "a.parquet", "no_suffix"])
def test_a_pickle_is_refused_whatever_its_name_and_runs_nothing(name: str, tmp_path: Path) -> None:
    said = refusal(tmp_path / name, pickle.dumps(Trap(tmp_path / "sprung")))
    assert "it may run code when it is read" in said
    assert "JSON Lines" in said
    assert not (tmp_path / "sprung").exists()


def test_a_file_of_torch_is_refused_with_the_command_that_exports_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "0.jsonl", "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(Trap(tmp_path / "sprung")))
    said = refusal(tmp_path / "0.jsonl", (tmp_path / "0.jsonl").read_bytes())
    assert EXPORT in said
    (tmp_path / "0.pt").write_bytes((tmp_path / "0.jsonl").read_bytes())
    (tmp_path / "0.jsonl").unlink()
    with pytest.raises(DataError, match=r"0\.pt: a file of torch: it may run code"):
        read_dump([tmp_path])  # a folder of them
    assert not (tmp_path / "sprung").exists()


def test_objects_of_numpy_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Trap(tmp_path / "sprung")], dtype=object), allow_pickle=True)
    assert "a file of NumPy" in refusal(tmp_path / "a.npy", (tmp_path / "a.npy").read_bytes())
    assert not (tmp_path / "sprung").exists()


def test_a_column_of_pickles_in_parquet_runs_nothing(tmp_path: Path) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    table = pa.table({"prompt": ["p"], "response": [trap], "score": [1.0]})
    table = table.replace_schema_metadata({"huggingface": "x", "pandas": "{}", "PANDAS_ATTRS": trap})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match='row 1: "response" is bytes'):
        read_dump([tmp_path / "a.parquet"])
    assert not (tmp_path / "sprung").exists()


# ---- files that are cut off ----


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize("zipped", [False, True])
def test_what_stands_before_a_cut_is_read_with_a_note(name: str, zipped: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    responses = ["".join(chr(65 + c) for c in rng.integers(0, 26, 400)) for _ in range(200)]
    described = [line(response=response) for response in responses]
    content = (lines(*described) if name == "a.jsonl" else json.dumps(described, indent=1)).encode()
    cut = gzip.compress(content)[:-9000] if zipped else content[:-1000]
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(cut)
    dump = read_dump([path])
    selected = len(dump.responses)
    assert 100 < selected < 199
    assert [response.text for response in dump.responses] == responses[:selected]
    assert f"{path}: cut off after row {selected}; what followed is lost" in dump.notes


def test_gzip_that_is_cut_in_its_first_row_is_refused(tmp_path: Path) -> None:
    content = gzip.compress(lines(line(response="r" * 1000)).encode())
    assert "cut off within its first row" in refusal(tmp_path / "a.jsonl.gz", content[:30])
    damaged = content[:10] + b"\xff" + content[11:]  # where the first block says how it is compressed
    assert "cannot be read" in refusal(tmp_path / "b.jsonl.gz", damaged)


@pytest.mark.parametrize("ending", ["", "\n", "]", ","])
def test_a_list_that_is_not_closed_is_cut(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[" + json.dumps(line()) + ending)
    dump = read_dump([path])
    assert len(dump.responses) == 1
    assert bool(dump.notes) == (ending != "]")


def test_text_after_a_list_is_refused(tmp_path: Path) -> None:
    assert "more after the end of the list" in refusal(tmp_path / "a.json", json.dumps([line()]) + "\n{}")


def test_a_list_with_something_broken_in_it_is_refused_at_its_line(tmp_path: Path) -> None:
    content = "[\n" + json.dumps(line()) + ",\n" + json.dumps(line()) + ",\n{broken},\n" + json.dumps(line()) + "\n]"
    assert " line 4: not valid JSON" in refusal(tmp_path / "a.json", content)


@pytest.mark.parametrize("cut", [3, 8, 100, 1000])
def test_parquet_that_is_cut_is_refused(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([line(response=str(i)) for i in range(100)]), path)
    assert ": not a whole Parquet file (" in refusal(path, path.read_bytes()[:-cut])


def test_parquet_with_damaged_pages_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist([line(response=str(i)) for i in range(100)]), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[40:200] = bytes(160)
    assert re.search(r": not a whole Parquet file|: cannot be read|row \d+: broken", refusal(path, bytes(content)))


# ---- what is read all the same ----


@pytest.mark.parametrize(
    "content",
    [
        "\N{ZERO WIDTH NO-BREAK SPACE}" + lines(line(), line()),
        json.dumps([line(), line()]),
        json.dumps([line(), line()], indent=2),
        "\N{ZERO WIDTH NO-BREAK SPACE}" + json.dumps([line(), line()], indent=2),
        json.dumps(line(), indent=2) + "\n" + json.dumps(line(), indent=2),
        lines(line()) + "\r\n\n" + json.dumps(line()),
        json.dumps({"columns": ["prompt", "response", "score"], "data": [["p", "r", 1], ["p", "r", 1]]}),
        json.dumps({"columns": ["prompt", "response", "score"], "data": [["p", "r", 1], ["p", "r", 1]]}, indent=1),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_json_in_every_layout(content: str, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(gzip.compress(content.encode()) if zipped else content.encode())
    dump = read_dump([path])
    assert [(r.prompt, r.text, r.score) for r in dump.responses] == [("p", "r", 1.0)] * 2


@pytest.mark.parametrize("piece", [7, 64])
def test_a_list_is_the_same_in_pieces_of_any_size(piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_PIECE", piece)
    described = [line(response=f'ä\\"[{{ {i}\n' * (i % 5), score=i) for i in range(40)]
    (tmp_path / "a.json").write_text(json.dumps(described, indent=1, ensure_ascii=False), encoding="utf-8")
    dump = read_dump([tmp_path / "a.json"])
    assert [(r.text, r.score) for r in dump.responses] == [(row["response"], row["score"]) for row in described]


def test_half_characters_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "\\ud83d\\ude00", "response": "a\\ud800b", "score": 1}\n')
    (response,) = read_dump([tmp_path / "a.jsonl"]).responses
    assert (response.prompt, response.text) == ("\N{GRINNING FACE}", "a\N{REPLACEMENT CHARACTER}b")


def test_hostile_text_stays_as_it_is(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>\u202e\x07\u2028" + "x" * 200_000
    (tmp_path / "a.jsonl").write_text(lines(line(response=hostile)))
    assert read_dump([tmp_path / "a.jsonl"]).responses[0].text == hostile


def test_an_empty_response_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line(response="")))
    assert read_dump([tmp_path / "a.jsonl"]).responses[0].text == ""


def test_values_that_are_not_finite_are_left_to_be_measured(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line(values=[0.5, None, float("nan"), float("inf")])))
    (response,) = read_dump([tmp_path / "a.jsonl"]).responses
    assert response.values is not None
    np.testing.assert_array_equal(response.values, [0.5, np.nan, np.nan, np.inf])


@pytest.mark.parametrize(
    ("described", "score"),
    [
        (True, 1),
        (False, 0),
        ("true", 1),
        ("False", 0),
        ("correct", 1),
        ("wrong", 0),
        ("0.25", 0.25),
        (3, 3),
        ([2.5], 2.5),
    ],
)
def test_scores_in_every_dress(described: Any, score: float, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line(score=described)))
    assert read_dump([tmp_path / "a.jsonl"]).responses[0].score == score


@pytest.mark.parametrize(
    ("described", "cut"), [(True, True), ("length", True), ("stop", False), ("completed", False), (0, False), (1, True)]
)
def test_truncation_in_every_dress(described: Any, cut: bool, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line(finish_reason=described)))
    assert read_dump([tmp_path / "a.jsonl"]).responses[0].truncated is cut


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"score": 1e39}, '"score" is 1e+39'),
        ({"score": 1, "rewards": [0, -1e300]}, '"rewards" is -1e+300 at token 2'),
        ({"rewards": [3e38, 3e38]}, '"sum of rewards" is 6e+38'),
    ],
)
def test_what_is_infinite_in_float32_is_one_line(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "response": "r"} | row) + "\n")
    with pytest.raises(DataError, match=re.escape(f"{path} line 1: {said}; expected a number of size 3.4e+38 at most")):
        read_dump([path])
