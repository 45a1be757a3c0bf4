"""Several files make one dump, and large ones are read in pieces."""

import gzip
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dump_lines import line, lines, refusal

from vcppo.diagnosis.dumps import rows
from vcppo.diagnosis.dumps.files import natural
from vcppo.diagnosis.dumps.form import Notes
from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.errors import DataError

# ---- several files ----


def test_files_of_a_folder_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for step in (10, 2, 1, 100):
        (tmp_path / f"{step}.jsonl").write_text(lines(line(response=str(step))))
    (tmp_path / "config.yaml").write_text("a: 1")
    dump = read_dump([tmp_path])
    assert [response.text for response in dump.responses] == ["1", "2", "10", "100"]
    assert f"{tmp_path}: left out as of other kinds: config.yaml" in dump.notes


def test_names_with_and_without_numbers_are_ordered() -> None:
    names = ["b2", "b10", "2", "10", "a", "b", "2b", "x" + "9" * 5000]
    assert [path.name for path in sorted(map(Path, names), key=natural)][:7] == ["2", "2b", "10", "a", "b", "b2", "b10"]


def test_named_files_keep_their_order_and_count_once(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(lines(line(response=name)))
    b, a = tmp_path / "b.jsonl", tmp_path / "a.jsonl"
    dump = read_dump([b, a, b])
    assert [response.text for response in dump.responses] == ["b", "a"]
    assert "1 of the files were named twice and are read once" in dump.notes


def test_files_of_two_forms_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(line()))
    (tmp_path / "b.jsonl").write_text(lines({"input": "p", "output": "r", "score": 1, "gts": "", "step": 1}))
    with pytest.raises(DataError, match=r"b\.jsonl line 1: of the form verl, and .*a\.jsonl is generic"):
        read_dump([tmp_path])
    with pytest.raises(DataError, match=r"a\.jsonl line 1: not of the form verl, it has prompt, response, score"):
        read_dump([tmp_path], form="verl")
    assert len(read_dump([tmp_path], form="generic").responses) == 2


@pytest.mark.parametrize("name", ["nothing", "nothing.jsonl"])
def test_a_file_that_is_not_there_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name}: no such file"):
        read_dump([tmp_path / name])


def test_a_folder_without_dumps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it has no file; expected files that end in \.jsonl"):
        read_dump([tmp_path])
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"it has a\.txt; expected files that end in \.jsonl"):
        read_dump([tmp_path])
    with pytest.raises(DataError, match="no file of responses was named"):
        read_dump([])


def test_other_kinds_of_tables_are_refused(tmp_path: Path) -> None:
    assert "save its rows as JSON Lines or Parquet" in refusal(tmp_path / "a.csv", "prompt,response,score\n")


# ---- large files ----


def many(path: Path, prompts: int, each: int, size: int = 10) -> Path:
    rows = (line(prompt=f"p{i}", response=f"{i}-{k}" + "x" * size) for i in range(prompts) for k in range(each))
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines(row) for row in rows)
    return path


def test_a_limit_draws_prompts_and_keeps_their_responses_in_order(tmp_path: Path) -> None:
    path = many(tmp_path / "a.jsonl", prompts=50, each=4)
    dump = read_dump([path], limit=40, seed=1)
    assert len(dump.responses) == 40
    prompts = [response.prompt for response in dump.responses]
    assert len(set(prompts)) == 10
    assert [response.line for response in dump.responses] == sorted(response.line for response in dump.responses)
    assert "40 of 200 responses are read, those to 10 prompts drawn at random (seed 1)" in dump.notes
    assert read_dump([path], limit=40, seed=1) == dump
    assert {response.prompt for response in read_dump([path], limit=40, seed=2).responses} != set(prompts)
    assert read_dump([path], limit=200).responses == read_dump([path]).responses


def test_every_prompt_is_drawn_equally_often(tmp_path: Path) -> None:
    path = many(tmp_path / "a.jsonl", prompts=8, each=2)
    drawn = [response.prompt for seed in range(200) for response in read_dump([path], limit=4, seed=seed).responses]
    counts = [drawn.count(f"p{i}") / 2 for i in range(8)]
    assert sum(counts) == 400
    assert all(26 <= count <= 74 for count in counts)  # 50 of 200 wanted, 4 standard deviations


@pytest.mark.parametrize("kind", ["jsonl", "json", "jsonl.gz", "parquet"])
def test_memory_is_that_of_what_is_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size, path = 20_000, tmp_path / f"a.{kind}"  # 20 MB of responses
    described = [line(prompt=f"p{i}", response="x" * size) for i in range(1000)]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(described), path, row_group_size=100)
    else:
        text = json.dumps(described) if kind == "json" else lines(*described)
        path.write_bytes(gzip.compress(text.encode(), 1) if kind == "jsonl.gz" else text.encode())
    del described
    monkeypatch.setattr(rows, "_PIECE", 1 << 16)
    tracemalloc.start()
    dump = read_dump([path], limit=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dump.responses) == 10
    assert peak < 4e6


def test_parquet_of_one_group_of_rows_is_held_in_pieces(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    described = [line(response=rng.bytes(10_000).hex()) for _ in range(2000)]  # 40 MB
    pq.write_table(pa.Table.from_pylist(described), tmp_path / "a.parquet", use_dictionary=False, write_batch_size=16)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() for _ in rows.file_rows(tmp_path / "a.parquet", Notes())]
    assert max(held) - before < 8e6


def test_a_row_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST", 1000)
    monkeypatch.setattr(rows, "_PIECE", 100)
    assert "longer than 0 MB" in refusal(tmp_path / "a.jsonl", lines(line(response="x" * 2000)))
    assert "longer than 0 MB" in refusal(tmp_path / "a.json", json.dumps([line(response="x" * 2000)]))
