"""Records of a run that verl may resume at an earlier step: those of later steps are cut."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcppo.store.journal import Journal, read_journal


def cut_after(journal: Path, step: int, *, step_of: Callable[[dict[str, Any]], int] = lambda r: int(r["step"])) -> None:
    """Cut a journal's records after verl's step `step`.

    Args:
        step_of: which step of verl's a record belongs to, for journals that count otherwise.
    """
    records = read_journal(journal)
    retained = next((number for number, record in enumerate(records) if step_of(record) > step), len(records))
    if retained < len(records):
        Journal(journal).truncate(retained)
