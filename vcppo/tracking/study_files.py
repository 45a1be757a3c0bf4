"""A study's folder as delivering to a tracking store reads it, and the small files that remember what was delivered."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.errors import DataError
from vcppo.store.run_folders import CellFolder, CellRecord, StageRecord
from vcppo.system.files import write_json
from vcppo.system.processes import is_locked
from vcppo.tracking.mlflow_client import Run

OF_THE_CELL = ("rl", "evaluation")  # stages whose records go to the cell's own run


@dataclass(frozen=True)
class Stage:
    """A stage of a cell on disk."""

    cell: str
    name: str
    address: str
    ran: bool
    folder: Path

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    def described(self) -> dict[str, Any]:
        """stage.json, empty before the stage has begun."""
        return read_json(self.folder / "stage.json")


class StudyFiles:
    """A study's folder, as far as delivering needs it."""

    def __init__(self, out: Path, study: str) -> None:
        self.out, self.name = out, study
        self.path = out / "studies" / study

    def cells(self) -> list[CellFolder]:
        """Its cells by name."""
        folders = [CellFolder(path) for path in sorted((self.path / "cells").glob("*"))]
        return [folder for folder in folders if folder.exists()]

    def worked_on(self) -> bool:
        """Whether a process runs the study, or one of its cells by itself."""
        return is_locked(self.path) or any(is_locked(folder.path) for folder in self.cells())

    def stages(self, record: CellRecord) -> list[Stage]:
        """The stages that a cell has reached."""

        def stage(known: StageRecord) -> Stage:
            folder = self.out / "cache" / known.stage / known.address
            return Stage(record.cell, known.stage, known.address, known.ran, folder)

        return [stage(known) for known in record.stages]

    def instance(self) -> str:
        """A name for this folder's study that no other study of the same name shares; made once."""
        path = self.path / "mlflow.json"
        known = read_json(path)
        if "instance" not in known:
            known = {"instance": uuid.uuid4().hex}
            write_json(path, known)
        return str(known["instance"])

    def undelivered(self, store: str) -> int:
        """Records on disk that `store` has not confirmed, without asking it; a cell's state is one of them."""
        count = 0
        for folder in self.cells():
            cursors, record = Cursors(folder, store), folder.read()
            count += record.state not in ("queued", cursors.state)
            for stage in self.stages(record):
                if stage.ran or stage.name in OF_THE_CELL:
                    total = stage.journal.read_bytes().count(b"\n") if stage.journal.exists() else 0
                    count += max(total - cursors.of_stage(stage), 0)
        return count


class Cursors:
    """A cell's mlflow.json: the store, the cell's run and state there, and for each stage its run and records sent.

    Records are counted, since a resumed stage cuts its journal and writes the same records again.
    """

    def __init__(self, folder: CellFolder, store: str) -> None:
        self.path, self.store = folder.path / "mlflow.json", store
        known = read_json(self.path)
        fits = known.get("store") == store
        self.child: str | None = known["child"] if fits else None
        self.state: str | None = known["state"] if fits else None
        self.stages: dict[str, dict[str, Any]] = known["stages"] if fits else {}

    def of_stage(self, stage: Stage) -> int:
        """Records delivered, to whichever run."""
        return int(self.stages.get(_key(stage), {}).get("records", 0))

    def get(self, stage: Stage, run: Run) -> int:
        """Records delivered to this run."""
        known = self.stages.get(_key(stage), {})
        return int(known["records"]) if known.get("run") == run.id else 0

    def put(self, stage: Stage, run: Run, records: int) -> None:
        """Remember, on disk."""
        self.stages[_key(stage)] = {"run": run.id, "records": records}
        self.save()

    def save(self) -> None:
        """Write the file whole."""
        known = {"store": self.store, "child": self.child, "state": self.state, "stages": self.stages}
        write_json(self.path, known)


def stamps(folder: CellFolder, stages: list[Stage]) -> tuple[tuple[int, int] | None, ...]:
    """Sizes and times of the files that a cell's runs are made of."""
    names = ("journal.jsonl", "stage.json", "done.json")
    paths = [folder.path / "cell.json", *(stage.folder / name for stage in stages for name in names)]
    stats = [path.stat() if path.exists() else None for path in paths]
    return tuple((stat.st_mtime_ns, stat.st_size) if stat is not None else None for stat in stats)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file, empty if there is no file.

    Raises:
        DataError: the file holds something else.
    """
    if not path.exists():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise DataError(f"{path}: expected an object, found {type(value).__name__}")
    return value


def _key(stage: Stage) -> str:
    return f"{stage.name}/{stage.address}"
