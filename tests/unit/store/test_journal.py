import json
import os
from pathlib import Path

import pytest

from vcppo.errors import DataError
from vcppo.store.journal import Journal, JournalTail, read_journal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stage" / "journal.jsonl"


def test_records_are_read_as_they_were_written(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(3, {"policy/loss": 0.5})
    journal.table("samples", 3, {"problem": ["1 2 3"], "tokens": [7]})
    first, second = read_journal(path)
    assert {key: first[key] for key in ("kind", "step", "values")} == {
        "kind": "metrics",
        "step": 3,
        "values": {"policy/loss": 0.5},
    }
    assert second["columns"] == {"problem": ["1 2 3"], "tokens": [7]}
    assert (second["kind"], second["name"]) == ("table", "samples")
    assert journal.count == 2


def test_what_is_not_finite_becomes_null_and_the_file_stays_json(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(0, {"a": float("nan"), "b": float("inf"), "c": 1})
    journal.table("t", 0, {"x": [float("nan"), 1.5], "y": ["nan", True]})
    metrics, table = (json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines())
    assert metrics["values"] == {"a": None, "b": None, "c": 1.0}
    assert table["columns"] == {"x": [None, 1.5], "y": ["nan", True]}


def test_text_with_line_ends_stays_one_record(path: Path) -> None:
    journal = Journal(path)
    journal.table("samples", 0, {"response": ["a\nb\r\nc\u2028d"]})
    assert len(read_journal(path)) == 1
    assert Journal(path).count == 1


def test_columns_of_different_length_are_refused_before_they_are_written(path: Path) -> None:
    with pytest.raises(DataError, match=r"table t at step 4: columns of 1 and 2 cells"):
        Journal(path).table("t", 4, {"x": [1], "y": [1, 2]})
    assert read_journal(path) == []


def test_opening_again_goes_on_where_the_last_whole_record_ended(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(0, {"a": 0.0})
    with open(path, "a") as file:
        file.write('{"kind":"metrics","st')  # the process was killed here
    again = Journal(path)
    assert again.count == 1
    again.metrics(1, {"a": 1.0})
    assert [record["step"] for record in read_journal(path)] == [0, 1]


def test_a_torn_last_line_is_left_out_by_a_reader(path: Path) -> None:
    Journal(path).metrics(0, {"a": 0.0})
    with open(path, "a") as file:
        file.write('{"kind"')
    assert len(read_journal(path)) == 1


def test_a_resumed_stage_cuts_back_to_what_its_checkpoint_knew(path: Path) -> None:
    journal = Journal(path)
    for step in range(5):
        journal.metrics(step, {"a": float(step)})
    journal.truncate(2)
    journal.metrics(2, {"a": 20.0})
    assert [(record["step"], record["values"]["a"]) for record in read_journal(path)] == [(0, 0.0), (1, 1.0), (2, 20.0)]
    assert journal.count == 3


def test_a_checkpoint_that_knows_more_than_the_journal_is_an_error(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(0, {"a": 0.0})
    with pytest.raises(DataError, match=r"journal.jsonl: 1 records, the checkpoint beside it knows of 3"):
        journal.truncate(3)


def test_reading_from_a_record_on(path: Path) -> None:
    journal = Journal(path)
    for step in range(4):
        journal.metrics(step, {})
    assert [record["step"] for record in read_journal(path, 2)] == [2, 3]
    assert read_journal(path, 9) == []


def test_a_stage_that_has_not_begun_has_no_records(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "none.jsonl") == []


def test_a_broken_line_is_told_with_its_number(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(0, {})
    with open(path, "a") as file:
        file.write("what is this\n")
    journal.metrics(1, {})
    with pytest.raises(DataError, match=r"journal.jsonl line 2: not a journal record"):
        read_journal(path)
    with pytest.raises(DataError, match="line 2"):
        read_journal(path, 1)


def test_a_tail_notices_a_journal_cut_back_even_if_it_has_grown_past_what_was_read(path: Path) -> None:
    journal, tail = Journal(path), JournalTail(path)
    for step in range(3):
        journal.metrics(step, {"a": 0.5})
    assert [record["step"] for record in tail.read()] == [0, 1, 2]
    assert (tail.read(), tail.restarts) == ([], 0)
    journal.truncate(1)
    for step in range(1, 6):
        journal.metrics(step, {"a": 0.25})
    assert [record["step"] for record in tail.read()] == [0, 1, 2, 3, 4, 5]
    assert tail.restarts == 1
    journal.truncate(0)
    assert (tail.read(), tail.restarts) == ([], 2)


def test_a_tail_leaves_a_torn_line_and_says_of_a_broken_one_that_it_is_unreadable(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"kind":"metrics","step":0,"time":1,"values":{}}\n{"kind"')
    tail = JournalTail(path)
    assert [record["step"] for record in tail.read()] == [0]
    with open(path, "a") as file:
        file.write(": \n")
    assert (tail.read(), tail.unreadable) == ([], True)


def test_after_a_power_cut_the_records_that_were_synced_are_there_and_zeros_are_none(path: Path) -> None:
    journal = Journal(path)
    journal.metrics(0, {"a": 0.0})
    assert journal.sync() == 1
    with open(path, "ab") as file:  # the size of what was not synced reached the disk, its content did not
        file.write(b'\0\0\0\0\0\0\n{"kind":"metrics"}\n\0\0')
    again = Journal(path)
    assert again.count == 1
    assert [record["step"] for record in read_journal(path)] == [0]


def test_a_checkpoint_counts_records_that_are_on_the_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    journal = Journal(path)
    journal.metrics(0, {"a": 0.0})
    synced.clear()
    journal.metrics(1, {"a": 0.0})
    assert synced == []  # not for each record
    assert journal.sync() == 2
    assert synced == [str(path), str(path.parent)]
