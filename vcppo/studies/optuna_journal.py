"""Optuna's journal, a file in a study's folder that the study's process alone writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from vcppo.system.files import rename_aside


class _JournalLock(JournalFileSymlinkLock):
    """Optuna's, which calls a disk that refuses to let go of it a RuntimeError, a fault of ours."""

    def release(self) -> None:
        """See JournalFileSymlinkLock.

        Raises:
            OSError: the disk refuses.
        """
        try:
            super().release()
        except RuntimeError as error:
            raise error.__context__ or error from None


def open_journal(file: Path, notice: Callable[[str], None]) -> JournalStorage:
    """Open a journal, whose study's lock the caller holds: a line that a kill tore, or a lock it left, is nobody's.

    Both go. A journal with another line that is none is moved aside, and `notice` receives a line.
    """
    _drop_torn_line(file)
    bad = _first_bad_line(file)
    if bad is not None:
        aside = rename_aside(file, "bad")
        notice(f"{file} line {bad}: no line of Optuna's; moved to {aside.name}, its trials are made from the cells")
    Path(f"{file}.lock").unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(file), lock_obj=_JournalLock(str(file))))


def _drop_torn_line(file: Path) -> None:
    content = file.read_bytes() if file.exists() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(file, content.rfind(b"\n") + 1)


def _first_bad_line(file: Path) -> int | None:
    """Return the number of the first line that is no operation of Optuna's; None if all are."""
    for number, line in enumerate(file.read_bytes().splitlines() if file.exists() else [], 1):
        try:
            operation = json.loads(line)
        except ValueError:
            return number
        if not isinstance(operation, dict) or "op_code" not in operation:
            return number
    return None
