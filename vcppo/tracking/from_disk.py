"""A study's measurements, read from its folder and the cache: no tracking server is needed."""

from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

from vcppo.errors import StudyError
from vcppo.settings.digests import settings_digest
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord
from vcppo.store.journal import read_journal
from vcppo.store.study_folders import CELL_STAGES, Stage, StudyFolder, provenance_of, read_object
from vcppo.store.summary import curves_of
from vcppo.tracking.ledger import run_id_of_before, run_ids
from vcppo.tracking.measured import MeasuredCell, MeasuredStudy, Pretraining, Tables, refuse_empty, refuse_unfinished

CRITIC_TABLES = ("critic_by_position", "critic_calibration")
TABLES = (*CRITIC_TABLES, "true_values", "problems")  # sampled responses are not exported


def read_study(out: Path, study: str, *, allow_incomplete: bool = False) -> MeasuredStudy:
    """Read the cells of OUT/studies/STUDY that have ended.

    Raises:
        StudyError: there is no such folder, cells of it have not ended, or none has.
        DataError: a journal or record is broken.
    """
    folder = StudyFolder(out, study)
    if not folder.path.is_dir():
        raise StudyError(
            f"{folder.path}: no such folder; give the --out that study {study} was run with, or --from-mlflow for "
            "what a tracking server has of it"
        )
    cells = [(cell, cell.read()) for cell in folder.cells()]
    if not cells:
        raise StudyError(f"{folder.path}: no cell of study {study} has begun, so there is nothing to export")
    if not allow_incomplete:
        running = folder.is_running()
        states = {record.cell: _state(record, running=running) for _, record in cells}
        refuse_unfinished(study, states, "run the study to its end, or give --allow-incomplete")
    ended = [(cell, record) for cell, record in cells if record.state in ENDED]
    refuse_empty(study, str(folder.path), len(ended))
    pretrainings: dict[str, Pretraining] = {}  # by address: journals are read once
    runs = run_ids(folder)
    given = str(read_object(folder.path / "study.json").get("given", ""))
    measured = [_read_cell(folder, cell, record, runs, pretrainings) for cell, record in ended]
    return MeasuredStudy.of(study, measured, given)


def _state(record: CellRecord, *, running: bool) -> str:
    if record.state == "queued" and not record.attempts:
        return "not begun"
    return record.state if running or record.state in ENDED else "interrupted"


def _read_cell(
    study: StudyFolder,
    folder: CellFolder,
    record: CellRecord,
    runs: Mapping[str, str],
    pretrainings: dict[str, Pretraining],
) -> MeasuredCell:
    stages = study.stages(record)
    journals = [entry for stage in stages if stage.name in CELL_STAGES for entry in read_journal(stage.journal)]
    return MeasuredCell(
        run_id=runs.get(record.cell) or run_id_of_before(folder.path) or record.cell,
        cell=record.cell,
        arm=record.arm,
        seed=record.seed,
        state=record.state,
        settings=folder.settings(),
        settings_hash=settings_digest(read_object(folder.path / "settings.json")),
        curves=curves_of(journals),
        error=record.error or "",
        wall_s=None if record.finished is None else record.finished - (record.started or 0.0),
        swept=record.swept,
        result=dict(record.result),
        commit=str(provenance_of(stages).get("commit", "unknown")),
        pretraining=_read_pretraining(stages, pretrainings),
        tables=tables_of(journals, TABLES) if record.state == "done" else {},
    )


def _read_pretraining(stages: list[Stage], by_address: dict[str, Pretraining]) -> Pretraining | None:
    for stage in stages:
        if stage.name == "value-pretraining":
            if stage.address not in by_address:
                by_address[stage.address] = pretraining_of(read_journal(stage.journal))
            return by_address[stage.address]
    return None


def pretraining_of(records: list[dict[str, Any]]) -> Pretraining:
    """Return a value pretraining from its journal: `pretrain/*`, since verl's journals have RL's names as well."""
    curves = {name: by_step for name, by_step in curves_of(records).items() if name.startswith("pretrain/")}
    return Pretraining(curves, tables_of(records, CRITIC_TABLES))


def tables_of(records: Iterable[Mapping[str, Any]], names: Container[str]) -> dict[str, Tables]:
    """Return the tables among journal records, by name and step; of several at one step the latest counts."""
    tables: dict[str, Tables] = {}
    for record in records:
        if record["kind"] == "table" and record["name"] in names:
            tables.setdefault(record["name"], {})[record["step"]] = record["columns"]
    return tables
