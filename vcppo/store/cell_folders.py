"""One cell of a study on disk: the settings it runs with, and a record of its state that is never half written."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.kinds import layout
from vcppo.settings.loading import flatten, load_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.unused import unused
from vcppo.system.files import json_bytes_of_sections, rename_aside, write_bytes, write_json
from vcppo.system.redaction import redacted

State = Literal["queued", "running", "done", "failed", "pruned"]
ENDED: tuple[State, ...] = ("done", "failed", "pruned")


class StageRecord(BaseModel):
    """A stage the cell went through; `ran`: computed by this cell, else taken from the cache."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    address: str
    ran: bool


class Waiting(BaseModel):
    """What a cell waits for: a stage, and who holds it and why, as in `process 7 on host computes for study/cell`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    stage: str
    address: str
    holder: str

    def __str__(self) -> str:
        return f"waits for {self.stage}/{self.address}, which {self.holder}"


class CellRecord(BaseModel):
    """Content of cell.json. Times are seconds since the epoch; a result that is not a finite number is null."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    study: str
    cell: str
    arm: str
    seed: int
    swept: dict[str, Any] = {}
    state: State = "queued"
    error: str | None = None
    attempts: int = 0
    stages: tuple[StageRecord, ...] = ()
    started: float | None = None
    finished: float | None = None
    result: dict[str, float | None] = {}
    notices: tuple[str, ...] = ()  # lines for the user on what was damaged, and made again
    waits: Waiting | None = None


class CellFolder:
    """DIR/studies/<study>/cells/<cell>: settings.json, cell.json, and traceback.txt if the cell failed.

    One process at a time writes here: the worker that runs the cell while it lives, the study's process otherwise.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, record: CellRecord, settings: RunSettings) -> Self:
        """Make the folder; cell.json comes last, so a folder that has one is whole.

        A study may have thousands, and one that has not run costs nothing to make again: nothing waits for the disk.
        """
        path.mkdir(parents=True, exist_ok=True)
        write_bytes(path / "settings.json", json_bytes_of_sections(settings.model_dump(mode="json")), synced=False)
        write_json(path / "cell.json", record.model_dump(mode="json"), synced=False)
        return cls(path)

    def exists(self) -> bool:
        """True if the folder is complete: cell.json is written last."""
        return (self.path / "cell.json").exists()

    def read(self) -> CellRecord:
        """Read the record.

        Raises:
            StudyError: cell.json is missing or is no record.
        """
        file = self.path / "cell.json"
        try:
            return CellRecord.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            raise StudyError(f"{file}: no such file; {self.path} is not the folder of a cell") from None
        except ValidationError as error:
            detail = error.errors()[0]
            where = ".".join(str(part) for part in detail["loc"])
            raise StudyError(f"{file}: not the record of a cell ({where}: {detail['msg']})") from None

    def move_unreadable_aside(self, notice: Callable[[str], None]) -> None:
        """Move record and settings aside if either is no JSON: the cell is one that has not run, and is made again.

        What its stages computed is in the cache. The caller holds the lock of the study, or of the cell.
        """
        files = [self.path / name for name in ("cell.json", "settings.json")]
        if not self.exists() or all(_is_json(file) for file in files):
            return
        bad = next(file for file in files if not _is_json(file))
        for file in files:
            if file.exists():
                rename_aside(file, "bad")
        notice(f"{bad}: no JSON; moved aside, and the cell runs again from what the cache has")

    def settings(self) -> RunSettings:
        """The settings the cell runs with; names that came into being since take their defaults."""
        return load_settings(self.path / "settings.json")

    def update(self, **fields: Any) -> CellRecord:
        """Replace fields of the record, on disk at once or not at all. A cell in a new state waits for nobody."""
        if "state" in fields:
            fields.setdefault("waits", None)
        record = CellRecord.model_validate({**self.read().model_dump(), **fields})
        write_json(self.path / "cell.json", record.model_dump(mode="json"))
        return record

    def add_notice(self, line: str) -> CellRecord:
        """Record a line for the user."""
        return self.update(notices=[*self.read().notices, redacted(line)])

    def add_stage(self, stage: str, address: str, *, ran: bool) -> CellRecord:
        """Record that the cell is in this stage now; one that an earlier attempt computed stays marked so."""
        record = self.read()
        before = [known for known in record.stages if known.stage == stage and known.address == address]
        others = [known for known in record.stages if known.stage != stage]
        ran = ran or any(known.ran for known in before)
        return self.update(stages=[*others, StageRecord(stage=stage, address=address, ran=ran)], waits=None)

    def add_wait(self, stage: str, address: str, holder: str) -> CellRecord:
        """Record that the cell waits for a stage which another process works on, until it enters one."""
        return self.update(waits=Waiting(stage=stage, address=address, holder=holder))


def _is_json(file: Path) -> bool:
    try:
        json.loads(file.read_bytes())
    except (FileNotFoundError, ValueError):
        return False
    return True


def setting_differences(ours: RunSettings, theirs: RunSettings) -> list[str]:
    """Dotted settings that differ, as `name = theirs, now ours`, but for those that neither run reads.

    One that a record has not is at its default.
    """
    new, old = flatten(ours.model_dump(mode="json")), flatten(theirs.model_dump(mode="json"))
    default = {name: setting.default for name, setting in layout().items()}
    pairs = {name: [x.get(name, default.get(name)) for x in (old, new)] for name in {**default, **old, **new}}
    differ = [name for name, (before, after) in pairs.items() if before != after]
    read = [name for name in differ if unused(ours, name) is None or unused(theirs, name) is None]
    return [f"{name} = {pairs[name][0]!r}, now {pairs[name][1]!r}" for name in read]


def check_same_settings(folder: CellFolder, settings: RunSettings) -> None:
    """Check that a cell has the settings it was made with.

    Raises:
        StudyError: it would run with others now; the message names them and the remedy.
    """
    if _recorded(folder.path / "settings.json") == settings.model_dump(mode="json"):
        return
    advice = "give another --out, another study name, or --fresh to move the old study aside and begin anew"
    try:
        differing = setting_differences(settings, folder.settings())
    except ConfigError as error:
        raise StudyError(f"cell {folder.path.name} was made by another version ({error}); {advice}") from None
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise StudyError(
            f"cell {folder.path.name} in {folder.path.parent.parent} was made with {'; '.join(differing[:3])}{more}. "
            f"The cells of one study share their settings: {advice}"
        )


def _recorded(file: Path) -> Any:
    """Return the JSON of a file as it stands; None where there is none."""
    try:
        return json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
