"""Status of a study, by its folder alone: cells, attempts, signs of life, disk, what its mirrors are owed."""

import csv
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vcppo.errors import StudyError
from vcppo.settings.fixed import SILENT_CELL_S
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord
from vcppo.store.study_folders import StudyFolder, read_object
from vcppo.studies.outbox import owed_trials
from vcppo.studies.signs import signs_of, silence_words
from vcppo.system.processes import holder_of
from vcppo.tracking.ledger import Ledger
from vcppo.tracking.off import MARK


@dataclass(frozen=True)
class CellStatus:
    """A cell; `last_sign_s` is when it last wrote anything, in seconds since the epoch."""

    cell: str
    state: str  # of CellRecord, or `interrupted`: begun, and no process runs it
    attempts: int
    stage: str | None
    last_sign_s: float
    error: str | None
    waits: str | None = None  # for which stage, that another process works on, and who that is
    silence: str | None = None  # of a running cell that has written nothing for long: how long, and what can be done


@dataclass(frozen=True)
class StudyStatus:
    """A study at one moment; sizes in bytes."""

    study: str
    folder: str
    holder: str | None  # number of the process that runs it
    cells: tuple[CellStatus, ...]
    unproposed: int  # cells of a search's trials that have not been proposed
    folder_bytes: int
    cache_bytes: int  # of the stages of its cells, shared ones counted once
    tracking_store: str | None  # that it was last delivered to
    undelivered_records: int  # on disk, and not confirmed by MLflow
    undelivered_trials: int  # that Optuna's storage has not confirmed
    exported: bool | None  # whether OUT/results has every cell as it ended; None for runs of no study
    tracking_off: bool = False  # the latest call had --tracking-uri none: nothing counts as undelivered

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells by state."""
        return dict(Counter(cell.state for cell in self.cells))

    @property
    def left(self) -> int:
        """Number of cells that have not ended."""
        return sum(cell.state not in ENDED for cell in self.cells) + self.unproposed

    @property
    def last_sign_s(self) -> float | None:
        """Time at which any cell last wrote something, in seconds since the epoch; None if none has."""
        return max((cell.last_sign_s for cell in self.cells), default=None)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {**asdict(self), "counts": self.counts, "left": self.left, "last_sign_s": self.last_sign_s}


def study_status(out: Path, study: str) -> StudyStatus:
    """Look at a study's folder; nothing is changed and no server is asked.

    Raises:
        StudyError: there is no such study.
    """
    folder = StudyFolder(out, study)
    cells = folder.cells()
    if not cells:
        there = sorted(path.parent.name for path in (out / "studies").glob("*/cells"))
        raise StudyError(f"study {study}: no cells in {folder.path}; there are {', '.join(there) or 'none'}")
    records = [(cell, cell.read()) for cell in cells]
    holder = holder_of(folder.path)
    stages = {stage.folder for _, record in records for stage in folder.stages(record)}
    definition = read_object(folder.path / "study.json")
    store = read_object(folder.path / "mlflow.json").get("store")
    return StudyStatus(
        study=study,
        folder=str(folder.path),
        holder=holder,
        cells=tuple(_cell_status(folder, cell, record, running=holder is not None) for cell, record in records),
        unproposed=_unproposed(definition, len(records)),
        folder_bytes=_size(folder.path),
        cache_bytes=sum(map(_size, stages)),
        tracking_store=store,
        tracking_off=(off := (folder.path / MARK).exists()),
        undelivered_records=0 if off else Ledger(folder, store or "").missing(),
        undelivered_trials=len(owed_trials(folder.path)),
        exported=_is_exported(out / "results" / study / "runs.csv", [r for _, r in records]) if definition else None,
    )


def _cell_status(study: StudyFolder, cell: CellFolder, record: CellRecord, *, running: bool) -> CellStatus:
    stages, state = study.stages(record), str(record.state)
    begun = record.state == "running" or (record.state == "queued" and record.attempts > 0)
    if begun and not running and not study.is_held(cell):
        state = "interrupted"
    last_sign_s = max((at for at, _ in signs_of(cell, study.out, record).values()), default=0) / 1e9
    runs, silent_s = state == "running", ago(last_sign_s)
    return CellStatus(
        record.cell,
        state,
        record.attempts,
        stages[-1].name if stages else None,
        last_sign_s,
        record.error,
        waits=str(record.waits) if runs and record.waits is not None else None,
        silence=silence_words(record, study.out, silent_s) if runs and silent_s >= SILENT_CELL_S else None,
    )


def _unproposed(definition: dict[str, Any], cells: int) -> int:
    search = (definition.get("definition") or {}).get("search")
    if not search:
        return 0
    expected: int = search["trials"] * len(definition["seeds"]) * len(definition.get("bases") or [0])
    return max(0, expected - cells)


def _is_exported(runs: Path, records: Iterable[CellRecord]) -> bool:
    """Return whether an export has every ended cell, and is no older than the last of them."""
    ended = [record for record in records if record.state in ENDED]
    if not runs.exists() or runs.stat().st_mtime < max((record.finished or 0.0 for record in ended), default=0.0):
        return False
    with open(runs, encoding="utf-8", newline="") as file:
        rows = {(row.get("cell"), row.get("status")) for row in csv.DictReader(file)}
    return rows == {(record.cell, record.state) for record in ended}


def _size(folder: Path) -> int:
    """Return the bytes of a folder's files; those that vanish meanwhile have none."""
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


def ago(seconds: float, now: float | None = None) -> float:
    """Return how long ago a moment was, in seconds, never below 0: clocks are set back."""
    return max(0.0, (time.time() if now is None else now) - seconds)
