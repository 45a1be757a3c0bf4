"""Exported files as rows, and a study of four cells."""

import csv
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fake_study import FakeStudy

from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.tracking.measured import MeasuredCell

ACCURACIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
LENGTHS = [100.0, 50.0, 20.0, 30.0, 40.0, 50.0]

Rows = list[dict[str, str]]


def rows_of(paths: list[Path]) -> dict[str, Rows]:
    """Rows by file name, every cell as the text that it has in CSV."""
    return {path.name: list(csv.DictReader(text_of(path).splitlines())) for path in paths}


def text_of(path: Path) -> str:
    if path.suffix == ".csv":
        return path.read_text()
    table = pq.read_table(path)
    for place, field in enumerate(table.schema):
        if pa.types.is_float32(field.type):
            values = table.column(place).to_numpy().astype(str)  # seven digits
            table = table.set_column(place, field.name, [["" if value == "nan" else value for value in values]])
    return str(table.to_pandas().to_csv(index=False))


def four_cells(study: FakeStudy) -> None:
    for arm in ("vcppo", "ppo"):
        for seed in (1, 0):
            study.finished_cell(f"{arm}-s{seed}", arm=arm, seed=seed, accuracies=ACCURACIES, lengths=LENGTHS)


def measured(curves: dict[str, dict[int, float]], **settings: Any) -> MeasuredCell:
    chosen = {"rollout.prompts": 10, "rollout.samples_per_prompt": 2, "evaluation.samples": 8, "task.held_out": 50}
    chosen |= {"policy.minibatches": 2, "evaluation.samples_during": 1, "pretrain.batch": 96, "pretrain.held_out": 384}
    made = override(RunSettings(), chosen | {"pretrain.steps": "converge"} | settings)
    return MeasuredCell("id", "cell", "arm", 0, "done", made, "hash", curves)
