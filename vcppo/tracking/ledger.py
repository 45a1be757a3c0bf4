"""Ledger of a study's runs in one tracking store, in the study's folder: which runs, and which of them are complete.

Runs that it does not list as complete are uploaded again. Without it the study is another one to the store, beside what
the store has of it: so it is on the disk before the store hears of the study.
"""

import hashlib
import os
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vcppo.errors import DataError, StudyError
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.study_folders import CELL_STAGES, Stage, StudyFolder, read_object
from vcppo.system.files import write_json
from vcppo.system.redaction import without_credentials

SAVE_EVERY_S = 2.0
SIGNED_BYTES = 4096  # of a file's end


@dataclass(frozen=True)
class Source:
    """The files that one run in a store is made of."""

    key: str  # cell/NAME or stage/ADDRESS
    files: tuple[Path, ...]
    journals: tuple[Path, ...]
    state: str = ""  # of a cell

    @classmethod
    def of_cell(cls, folder: CellFolder, record: CellRecord, stages: list[Stage]) -> "Source":
        """Return a cell's source, with the stages of this cell alone."""
        journals = tuple(stage.journal for stage in stages if stage.name in CELL_STAGES)
        return cls(
            f"cell/{record.cell}", (folder.path / "cell.json", folder.path / "settings.json"), journals, record.state
        )

    @classmethod
    def of_stage(cls, stage: Stage) -> "Source":
        """Return the source of a stage that several cells may share."""
        files = (stage.folder / "stage.json", stage.folder / "done.json")
        return cls(f"stage/{stage.address}", files, (stage.journal,))

    def signature(self) -> str:
        """Digest of the files' sizes and ends: another one when a file has changed."""
        digest = hashlib.sha256()
        for path in (*self.files, *self.journals):
            size = path.stat().st_size if path.exists() else -1
            digest.update(f"{path.parent.name}/{path.name} {size}\n".encode())
            if size > 0:
                with open(path, "rb") as file:
                    file.seek(-min(size, SIGNED_BYTES), os.SEEK_END)
                    digest.update(file.read())
        return digest.hexdigest()[:16]

    def records(self) -> int:
        """Count the records in the journals."""
        return sum(path.read_bytes().count(b"\n") for path in self.journals if path.exists())


@dataclass(frozen=True)
class Entry:
    """A run in the store."""

    run: str = ""  # ID of the run
    records: int = 0  # that the run has
    state: str = ""  # of the cell, that the run has
    signature: str = ""  # of the source, once the run has all of it; empty before
    models: bool = False  # whether it has its logged models, which earlier versions did not deliver


class Ledger:
    """OUT/studies/STUDY/mlflow.json."""

    def __init__(self, study: StudyFolder, store: str) -> None:
        self.study, self.store = study, store
        self._unsaved, self._saved_at = False, 0.0
        self.path = study.path / "mlflow.json"
        stored = _read_or_nothing(self.path)
        self.instance = str(stored.get("instance") or uuid.uuid4().hex)
        runs = stored.get("runs", {}) if stored.get("store") == store else {}
        self.entries = {key: Entry(**entry) for key, entry in runs.items()}

    def entry(self, key: str) -> Entry:
        """Return a run's entry, an empty one if there is none."""
        return self.entries.get(key, Entry())

    def put(self, key: str, entry: Entry) -> None:
        """Record an entry; on disk within SAVE_EVERY_S, or by `flush`, since the file has a line for every run."""
        if self.entries.get(key) != entry:
            self.entries[key] = entry
            self._unsaved = True
            if time.monotonic() - self._saved_at > SAVE_EVERY_S:
                self.save()

    def flush(self) -> None:
        """Put on disk what is not there yet."""
        if self._unsaved:
            self.save()

    def save(self) -> None:
        """Write the file whole."""
        self._unsaved, self._saved_at = False, time.monotonic()
        runs = {key: asdict(entry) for key, entry in self.entries.items()}
        write_json(self.path, {"instance": self.instance, "store": self.store, "runs": runs})

    def missing(self) -> int:
        """Count records on disk that the store has not confirmed, by the ledger alone; a cell's state is one.

        A cell whose own record cannot be read counts as one.
        """
        sources: dict[str, Source] = {}
        unreadable = 0
        for folder in self.study.cells():
            try:
                record = folder.read()
            except StudyError:  # nobody can say what it lacks; an upload names it
                unreadable += 1
                continue
            stages = self.study.stages(record)
            if record.state != "queued" or stages:
                shared = [Source.of_stage(stage) for stage in stages if stage.ran and stage.name not in CELL_STAGES]
                sources |= {source.key: source for source in (*shared, Source.of_cell(folder, record, stages))}
        return unreadable + sum(self._missing(source) for source in sources.values())

    def _missing(self, source: Source) -> int:
        entry = self.entry(source.key)
        if entry.signature == source.signature():
            return 0
        return max(source.records() - entry.records, 0) + (source.state not in ("", "queued", entry.state))


def run_ids(study: StudyFolder) -> dict[str, str]:
    """Return the IDs of cells' runs, by cell, in the store that they were last uploaded to; some may have none."""
    ids = {}
    for key, entry in _read_or_nothing(study.path / "mlflow.json").get("runs", {}).items():
        kind, _, name = key.partition("/")
        if kind == "cell" and entry.get("run"):
            ids[name] = str(entry["run"])
    return ids


def run_id_of_before(cell: Path) -> str | None:
    """Return the ID that an earlier version wrote into the cell's folder, None if there is none."""
    run = read_object(cell / "mlflow.json").get("child")
    return None if run is None else str(run)


def _read_or_nothing(path: Path) -> dict[str, Any]:
    """Return the file's content; nothing where it is no JSON, since losing it costs only time."""
    try:
        return read_object(path)
    except DataError:
        return {}


def store_name(tracking_uri: str, experiment: str) -> str:
    """Return the name of a store in mlflow.json."""
    return f"{without_credentials(tracking_uri)}#{experiment}"
