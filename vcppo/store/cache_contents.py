"""Contents of the cache: every stage's folder with its size, its age, and the time that it took to compute."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vcppo.errors import CheckpointError, DataError
from vcppo.store.manifest import NAME
from vcppo.store.study_folders import read_object
from vcppo.system.files import is_locked
from vcppo.system.temporaries import is_temporary

_ADDRESS = re.compile(r"[0-9a-f]{12}")

State = Literal["done", "unfinished", "journal", "running", "aside"]


@dataclass(frozen=True)
class CachedStage:
    """A folder of the cache. `journal`: only that is left of it; `aside`: no result, moved aside or half removed."""

    stage: str
    address: str  # the folder's name
    path: Path
    state: State
    size: int  # bytes of its files
    written: float  # when a file of it was last written, seconds since the epoch
    wall_s: float | None  # seconds that it took, the last part of it if it was extended; None: not finished
    parents: tuple[str, ...]  # stage/address
    recorded: bool  # whether it has a manifest of its files

    @property
    def key(self) -> str:
        """Stage and address, as cells record them."""
        return f"{self.stage}/{self.address}"


def cached_stages(out: Path) -> list[CachedStage]:
    """Return every folder of OUT/cache, by stage and address."""
    folders = sorted(path for path in (out / "cache").glob("*/*") if _is_one(path))
    return [_stage(path) for path in folders]


def _is_one(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not is_temporary(path)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; one that goes meanwhile counts nothing."""
    return sum(status.st_size for status in _files(path))


def _stage(path: Path) -> CachedStage:
    files = list(_files(path))
    done = _object(path / "done.json")
    state: State = "unfinished"
    if not _ADDRESS.fullmatch(path.name):
        state = "aside"
    elif is_locked(path / "lock"):
        state = "running"
    elif "result" in done:
        state = "done"
    elif {entry.name for entry in path.iterdir()} <= LEFT | {"lock"}:
        state = "journal"
    wall_s = done.get("wall_s")
    parents = _object(path / "stage.json").get("parents", {})
    return CachedStage(
        stage=path.parent.name,
        address=path.name,
        path=path,
        state=state,
        size=sum(status.st_size for status in files),
        written=max((status.st_mtime for status in files), default=path.stat().st_mtime),
        wall_s=float(wall_s) if isinstance(wall_s, int | float) else None,
        parents=tuple(f"{stage}/{address}" for stage, address in parents.items()),
        recorded=(path / NAME).exists(),
    )


LEFT = {"journal.jsonl", "stage.json"}  # what an export reads; it stays of a stage whose study is given up


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (DataError, CheckpointError, OSError):
        return {}


def _files(path: Path) -> Iterator[os.stat_result]:
    try:
        if not path.is_dir():
            yield path.stat()
            return
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield from _files(Path(entry.path))
                else:
                    yield entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
