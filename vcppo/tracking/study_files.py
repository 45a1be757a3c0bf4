"""A study's folder as delivering to a tracking store reads it, and the small files that remember what was delivered."""

import uuid
from typing import Any

from vcppo.store.run_folders import CellFolder
from vcppo.store.study_folders import OF_THE_CELL, Stage, StudyFolder, read_object
from vcppo.system.files import write_json
from vcppo.tracking.mlflow_client import Run


class StudyFiles(StudyFolder):
    """A study's folder, as far as delivering needs it."""

    def instance(self) -> str:
        """A name for this folder's study that no other study of the same name shares; made once."""
        path = self.path / "mlflow.json"
        known = read_object(path)
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
        known = read_object(self.path)
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


def _key(stage: Stage) -> str:
    return f"{stage.name}/{stage.address}"
