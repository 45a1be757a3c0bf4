"""Whatever stands in a file: it is read, or refused by a DataError of one line; nothing else is ever raised."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["[1]", "length"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "a"]), inner),
    max_leaves=5,
)
COLUMNS = (
    "prompt response score tokens values rewards response_mask logprobs truncated step messages input output gts "
    "completion advantage right content idx token_ids token_loss_mask input_lengths response_length reward status "
    "loss_mask doc model_response metric predictions full_prompt metrics cont_tokens kind time name columns data "
    "samples problem number text global_step query rollout_id"
).split()
ROW = {"prompt": "p", "response": "r", "score": 1}
ROWS: list[dict[str, Any]] = [
    ROW,
    {"prompt": "p", "tokens": [1, 2], "prompt_tokens": [3], "score": 1, "values": [0.5, 0.5], "response_mask": [1, 1]},
    {"input": "p", "output": "r", "gts": "", "score": 1.0, "step": 1},
    {"step": 1, "prompt": "p", "completion": "r", "right": 1.0, "advantage": 0.0},
    {"global_step": 1, "text": "p\nassistant\nr", "reward": 1.0},
    {"content": [["p", "r"]], "rewards": [1.0], "token_ids": [[1, 2]], "token_loss_mask": [[0, 1]], "idx": 0},
    {"content": [[{"role": "user", "content": "p"}, {"role": "assistant", "content": "r"}]], "rewards": [1], "idx": 0},
    {"tokens": [1, 2], "response_length": 1, "reward": 1.0, "loss_mask": [1], "prompt": "p", "status": "completed"},
    {"doc": {"query": "p"}, "model_response": {"text": ["r"]}, "metric": {"em": 1.0}},
    {"full_prompt": "p", "predictions": ["r"], "metrics": {"em": 1.0}},
    {"number": 0, "problem": "a", "prompt": "p", "samples": [{"text": "r", "verdict": "correct"}]},
    {
        "kind": "table",
        "name": "samples",
        "step": 1,
        "time": 0,
        "columns": {"problem": ["p"], "response": ["r"], "verdict": ["wrong"]},
    },
]
_BUFFER = io.BytesIO()
pq.write_table(pa.Table.from_pylist([ROW, ROW]), _BUFFER)
CONTENTS = {
    "jsonl": f"{json.dumps(ROW)}\n{json.dumps(ROW)}".encode(),
    "json": json.dumps([ROW, ROW], indent=1).encode(),
    "jsonl.gz": gzip.compress(json.dumps(ROW).encode()),
    "parquet": _BUFFER.getvalue(),
}


def refused(path: Path) -> str:
    """Return what is said against a file, "" if it is read."""
    try:
        assert read_dump([path]).responses
    except DataError as error:
        return str(error)
    return ""


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.sampled_from(ROWS), changes=st.dictionaries(st.sampled_from(COLUMNS), VALUES, max_size=3))
def test_any_row_is_read_or_refused_in_one_line(row: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row | changes), encoding="utf-8")
    said = refused(path)
    assert "\n" not in said
    assert len(said) < 2000


def with_one_part_changed(tree: Any, change: Any, at: int) -> Any:
    """A copy with another value in place of one of its parts, at any depth; `at` says which."""
    parts = list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)) if isinstance(tree, list) else []
    if not parts or at == 0:
        return change
    name, part = parts[at % len(parts)]
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[name] = with_one_part_changed(part, change, at // len(parts))
    return copy


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.sampled_from(ROWS), change=VALUES, at=st.integers(1, 300))
def test_a_row_with_any_part_changed_is_read_or_refused(row: Any, change: Any, at: int, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(with_one_part_changed(row, change, at)), encoding="utf-8")
    assert "\n" not in refused(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(kind=st.sampled_from(list(CONTENTS)), junk=st.binary(max_size=40), data=st.data())
def test_any_bytes_are_read_or_refused(kind: str, junk: bytes, data: st.DataObject, tmp_path: Path) -> None:
    content, path = CONTENTS[kind], tmp_path / f"a.{kind}"
    at, end = (data.draw(st.integers(0, len(content))) for _ in range(2))
    path.write_bytes(content[:at] + junk + content[at:end])
    assert "\n" not in refused(path)
