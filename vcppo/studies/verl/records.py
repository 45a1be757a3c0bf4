"""Records of a run that verl may take up again at an earlier step: what was said of later ones is taken back."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vcppo.maths.settling import Measurement
from vcppo.store.journal import Journal, read_journal


def cut_after(journal: Path, step: int, *, step_of: Callable[[dict[str, Any]], int] = lambda r: int(r["step"])) -> None:
    """Keep what a journal says of verl's steps up to `step`.

    Args:
        step_of: which step of verl's a record belongs to, for journals that count otherwise.
    """
    records = read_journal(journal)
    kept = next((number for number, record in enumerate(records) if step_of(record) > step), len(records))
    if kept < len(records):
        Journal(journal).truncate(kept)


def measurements_in(journal: Path) -> list[Measurement]:
    """What a journal says of the held-out answers, by step."""
    told = [r for r in read_journal(journal) if r["kind"] == "metrics" and "pretrain/held_out_loss" in r["values"]]
    return [
        Measurement(
            record["step"],
            _or(record["values"]["pretrain/held_out_loss"], math.inf),
            _or(record["values"]["pretrain/explained_variance"], -math.inf),
        )
        for record in told
    ]


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number
