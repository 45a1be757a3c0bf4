"""vcppo's own: the folder `samples` of an evaluation, and the tables of sampled responses in a journal of RL.

Source: `SampledProblem` of vcppo/store/samples.py, a JSON file for each problem; `samples_table` of
vcppo/rl/metrics.py, written by vcppo/stages/rl.py every `record.samples_every` iterations into a journal
(vcppo/store/journal.py).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, has, items
from vcppo.errors import DataError
from vcppo.tasks.rows import Row

_CREDIT = "scores of vcppo's samples are credit: 1 for a correct response, 0 for others, what the task gave in between"


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    notes.say(_CREDIT)
    if "kind" in row.values:
        return _of_journal(row)
    return _of_problem(row)


def _of_problem(row: Row) -> Iterable[Cells]:
    for number, sample in enumerate(items(row, Cell("samples", row.values["samples"])), 1):
        if not isinstance(sample, Mapping):
            raise DataError(f"{row.place}, sample {number}: expected an object, found {type(sample).__name__}")
        yield _cells_of(row.values["prompt"], sample, "text") | {
            "truncated": Cell("stop_reason", sample.get("stop_reason", ""))
        }


def _of_journal(row: Row) -> Iterable[Cells]:
    if row.values["kind"] != "table" or row.values.get("name") != "samples":
        return
    columns = row.values.get("columns")
    if not isinstance(columns, Mapping) or not {"problem", "response", "verdict"} <= columns.keys():
        raise DataError(f"{row.place}: a table of samples without problem, response and verdict")
    lists = [items(row, Cell(str(name), cells)) for name, cells in columns.items()]
    if len(set(map(len, lists))) > 1:
        raise DataError(f"{row.place}: columns of {' and '.join(str(len(cells)) for cells in lists)} cells")
    for cells in zip(*lists, strict=True):
        sample = dict(zip(columns, cells, strict=True))
        yield _cells_of(sample["problem"], sample, "response") | {"step": Cell("step", row.values.get("step"))}


def _cells_of(prompt: Any, sample: Mapping[str, Any], response: str) -> Cells:
    credit, verdict = sample.get("credit"), sample.get("verdict")
    return {
        "prompt": Cell("prompt", prompt),
        "response": Cell(response, sample.get(response)),
        "score": Cell("credit", credit) if credit is not None else Cell("verdict", verdict),
    }


def _fits(columns: frozenset[str]) -> bool:
    return has("problem", "prompt", "number", "samples")(columns) or has("kind", "step", "time")(columns)


FORM = Form(
    description="vcppo, the folder samples of an evaluation, or a journal of RL",
    fits=_fits,
    cells=_cells,
    notes=("prompts of vcppo's samples are questions before any template; their token ids are not stored",),
    maps_columns=False,
)
