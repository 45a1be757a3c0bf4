"""Records of a run that verl may resume at an earlier step: those of later steps are cut."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcppo.maths.settling import Measurement
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


def measurements_in(journal: Path) -> list[Measurement]:
    """Return a journal's measurements on held-out responses, by step."""
    records = [r for r in read_journal(journal) if r["kind"] == "metrics" and "pretrain/held_out_loss" in r["values"]]
    return [
        Measurement(
            record["step"],
            _or(record["values"]["pretrain/held_out_loss"], math.inf),
            _or(record["values"]["pretrain/explained_variance"], -math.inf),
        )
        for record in records
    ]


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number
