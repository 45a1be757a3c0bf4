"""The folder of a study on disk: its cells, the stages that each has reached, and whether a process is running it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.errors import DataError
from vcppo.store.cell_folders import CellFolder, CellRecord, StageRecord
from vcppo.system.processes import is_folder_locked

CELL_STAGES = ("forecast", "rl", "evaluation")  # whose metrics are a cell's; other stages may be shared by several


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
        """Path of the stage's metrics and tables; the file may not exist yet."""
        return self.folder / "journal.jsonl"

    def description(self) -> dict[str, Any]:
        """Read stage.json; empty before the stage has begun."""
        return read_object(self.folder / "stage.json")


class StudyFolder:
    """OUT/studies/STUDY, with its cells' stages in OUT/cache."""

    def __init__(self, out: Path, study: str) -> None:
        self.out, self.name = out, study
        self.path = out / "studies" / study

    def cells(self) -> list[CellFolder]:
        """Return its cells, sorted by name."""
        folders = [CellFolder(path) for path in sorted((self.path / "cells").glob("*"))]
        return [folder for folder in folders if folder.exists()]

    def is_running(self) -> bool:
        """Return whether a process runs the study, or one of its cells by itself."""
        return is_folder_locked(self.path) or any(is_folder_locked(folder.path) for folder in self.cells())

    def is_held(self, cell: CellFolder) -> bool:
        """Return whether a process runs this cell by itself, as `vcppo train` does."""
        return is_folder_locked(cell.path)

    def stages(self, record: CellRecord) -> list[Stage]:
        """Return the stages that a cell has reached."""

        def stage(reached: StageRecord) -> Stage:
            folder = self.out / "cache" / reached.stage / reached.address
            return Stage(record.cell, reached.stage, reached.address, reached.ran, folder)

        return [stage(reached) for reached in record.stages]


def provenance_of(stages: list[Stage]) -> dict[str, Any]:
    """Return the provenance of a cell's RL stage, else that of its first stage; empty if unknown."""
    chosen = [stage for stage in stages if stage.name == "rl"] or stages[:1]
    return dict(chosen[0].description().get("provenance", {})) if chosen else {}


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file, empty if there is no file.

    Raises:
        DataError: the file contains something else.
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
