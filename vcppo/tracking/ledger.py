"""What one tracking store has of a study, noted beside the study: which runs, and which of them are whole.

Losing it costs time alone: what it does not call whole is uploaded again.
"""

import hashlib
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.study_folders import CELL_STAGES, Stage, StudyFolder, read_object
from vcppo.system.files import write_json
from vcppo.system.redaction import without_credentials

SIGNED_BYTES = 4096  # of a file's end


@dataclass(frozen=True)
class Source:
    """What one run in a store is made of."""

    key: str  # cell/NAME or stage/ADDRESS
    files: tuple[Path, ...]
    journals: tuple[Path, ...]
    state: str = ""  # of a cell

    @classmethod
    def of_cell(cls, folder: CellFolder, record: CellRecord, stages: list[Stage]) -> "Source":
        """A cell, with the stages that are its own."""
        journals = tuple(stage.journal for stage in stages if stage.name in CELL_STAGES)
        return cls(
            f"cell/{record.cell}", (folder.path / "cell.json", folder.path / "settings.json"), journals, record.state
        )

    @classmethod
    def of_stage(cls, stage: Stage) -> "Source":
        """A stage that may serve several cells."""
        files = (stage.folder / "stage.json", stage.folder / "done.json")
        return cls(f"stage/{stage.address}", files, (stage.journal,))

    def signature(self) -> str:
        """Another one when a file has changed: of sizes and ends."""
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
        """Records in the journals."""
        return sum(path.read_bytes().count(b"\n") for path in self.journals if path.exists())


@dataclass(frozen=True)
class Entry:
    """A run in the store."""

    run: str = ""  # its id
    records: int = 0  # that it has
    state: str = ""  # of the cell, that it has
    signature: str = ""  # of the source, once the run has all of it; empty before


class Ledger:
    """OUT/studies/STUDY/mlflow.json."""

    def __init__(self, study: StudyFolder, store: str) -> None:
        self.study, self.store = study, store
        self.path = study.path / "mlflow.json"
        known = read_object(self.path)
        self.instance = str(known.get("instance") or uuid.uuid4().hex)
        runs = known.get("runs", {}) if known.get("store") == store else {}
        self.entries = {key: Entry(**entry) for key, entry in runs.items()}

    def entry(self, key: str) -> Entry:
        """What is known of a run, an empty entry if nothing is."""
        return self.entries.get(key, Entry())

    def put(self, key: str, entry: Entry) -> None:
        """Note, on disk."""
        if self.entries.get(key) != entry:
            self.entries[key] = entry
            self.save()

    def save(self) -> None:
        """Write the file whole."""
        runs = {key: asdict(entry) for key, entry in self.entries.items()}
        write_json(self.path, {"instance": self.instance, "store": self.store, "runs": runs})

    def missing(self) -> int:
        """Records on disk that the store has not confirmed, without asking it; a cell's state is one of them."""
        sources: dict[str, Source] = {}
        for folder in self.study.cells():
            record = folder.read()
            stages = self.study.stages(record)
            if record.state != "queued" or stages:
                of_all = [Source.of_stage(stage) for stage in stages if stage.ran and stage.name not in CELL_STAGES]
                sources |= {source.key: source for source in (*of_all, Source.of_cell(folder, record, stages))}
        return sum(self._missing(source) for source in sources.values())

    def _missing(self, source: Source) -> int:
        entry = self.entry(source.key)
        if entry.signature == source.signature():
            return 0
        return max(source.records() - entry.records, 0) + (source.state not in ("", "queued", entry.state))


def run_id(study: StudyFolder, cell: str) -> str | None:
    """The id of a cell's run in the store that it was last uploaded to, None if there is none."""
    known = read_object(study.path / "mlflow.json").get("runs", {}).get(f"cell/{cell}", {}).get("run")
    earlier = known or read_object(study.path / "cells" / cell / "mlflow.json").get("child")
    return None if earlier is None else str(earlier)


def store_name(tracking_uri: str, experiment: str) -> str:
    """How mlflow.json calls a store."""
    return f"{without_credentials(tracking_uri)}#{experiment}"
