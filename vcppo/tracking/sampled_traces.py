"""Sampled responses of a run's journal as MLflow's traces: prompt, response, verdict, reward, length."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vcppo.settings.reward import RewardSettings
from vcppo.settings.run import RunSettings
from vcppo.tracking.mlflow_entities import Record

MOST_TRACES = 20  # of a run: a table of samples gives its share of them, and one at least
COLUMNS = {"problem", "response", "verdict", "tokens", "answer"}  # that a trace is made of
SEARCHED = ("verdict", "reward", "iteration")  # attributes that are tags of the trace too; each costs a millisecond


@dataclass(frozen=True)
class SampledTrace:
    """A response as a trace. Its id follows from the run, iteration and row: one that is sent again is the same."""

    id: str  # 32 hex digits
    time_ns: int
    prompt: str
    response: str
    attributes: dict[str, Any]


def traces_of(records: Iterable[Record], run_id: str, settings: RunSettings) -> list[SampledTrace]:
    """Return the traces of the tables `samples` among a run's journal records.

    The reward is the verdict's score, in units of reward, before any shaping.
    """
    tables = settings.steps // settings.record.samples_every + 1
    return [
        trace
        for record in records
        if record["kind"] == "table" and record["name"] == "samples"
        for trace in _of_table(record, run_id, settings.reward, max(MOST_TRACES // tables, 1))
    ]


def _of_table(record: Record, run_id: str, reward: RewardSettings, most: int) -> list[SampledTrace]:
    columns, step = record["columns"], record["step"]
    if not set(columns) >= COLUMNS:  # of another version
        return []
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return [
        SampledTrace(
            id=hashlib.sha256(f"{run_id} {step} {number}".encode()).hexdigest()[:32],
            time_ns=int(record["time"] * 1e9) + 1_000_000 * number,
            prompt=row["problem"],
            response=row["response"],
            attributes={
                "verdict": row["verdict"],
                "reward": _reward(row, reward),
                "length_tokens": row["tokens"],
                "iteration": step,
                "answer": row["answer"],
                **({"credit": row["credit"]} if "credit" in row else {}),
                **({"note": row["note"]} if row.get("note") else {}),
            },
        )
        for number, row in enumerate(rows[:most])
    ]


def _reward(row: dict[str, Any], reward: RewardSettings) -> float:
    if "credit" in row:
        return float((1.0 - row["credit"]) * reward.wrong + row["credit"] * reward.correct)
    return {"correct": reward.correct, "wrong": reward.wrong}.get(row["verdict"], reward.unreadable)
