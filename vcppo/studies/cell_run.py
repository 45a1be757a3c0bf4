"""Run a cell, and record how it ended."""

import math
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from vcppo.errors import DiskError, VcppoError
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.system.disk import disk_error, is_disk_error
from vcppo.system.redaction import redacted

Runner = Callable[[Path, Path], Mapping[str, float]]  # (cell folder, --out) -> results by name


def run_and_record(folder: CellFolder, out: Path, runner: Runner) -> CellRecord:
    """Run a cell and record how it ended; an error of the cell goes to its record, not to the caller.

    Ctrl-C and the like go through, and leave the cell queued.

    Raises:
        DiskError: the disk is full, or refuses; that is no failure of the cell, which stays queued.
    """
    attempts, begun = folder.read().attempts + 1, time.time()
    fresh: dict[str, Any] = {"finished": None, "error": None, "result": {}, "notices": ()}
    folder.update(state="running", attempts=attempts, started=begun, **fresh)
    (folder.path / "traceback.txt").unlink(missing_ok=True)
    with _FailureRecorded(folder):
        result = {name: float(value) for name, value in runner(folder.path, out).items()}
        clean = {name: value if math.isfinite(value) else None for name, value in result.items()}
        folder.update(state="done", finished=time.time(), result=clean)
    return folder.read()


class _FailureRecorded:
    """Record any error that ends the block as the cell's `failed`, with its traceback beside it."""

    def __init__(self, folder: CellFolder) -> None:
        self.folder = folder

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> bool:
        if error is None:
            return False
        if not isinstance(error, Exception):
            self.folder.update(state="queued")
            return False
        if is_disk_error(error):
            with suppress(DiskError):  # it stays as it is, and whoever goes on with it queues it
                self.folder.update(state="queued")
            raise disk_error(error) from error
        trace = redacted("".join(traceback.format_exception(error)))
        (self.folder.path / "traceback.txt").write_text(trace, encoding="utf-8")
        self.folder.update(state="failed", finished=time.time(), error=_recorded(error))
        return True


def _recorded(error: BaseException) -> str:
    """An error in one line, without secrets; those of libraries with their type."""
    text = redacted(" ".join(str(error).split()))
    return text if isinstance(error, VcppoError) and text else f"{type(error).__name__}: {text}".removesuffix(": ")
