"""Cells that a study must not average with those it runs now: results of other weights or other code, and leftovers.

A stage's address knows the contents behind `model.path` and `critic.path` and the version of its code, which no setting
says. A cell records the addresses that it went through; they are compared with those that its settings lead to now.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vcppo.errors import StudyError
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder

AddressesOf = Callable[[RunSettings], Mapping[str, str]]  # of a run's stages, in their order, by their names

NAMED = 3  # cells in a message
WITHDRAWN = "withdrawn"  # folder beside cells/


@dataclass(frozen=True)
class OutdatedCell:
    """An ended cell, and the first of its stages that would be another one now."""

    folder: CellFolder
    stage: str
    recorded: str
    present: str

    @property
    def name(self) -> str:
        """The cell's name, that of its folder."""
        return self.folder.path.name


def outdated_cells(
    folders: Iterable[CellFolder], grid: Mapping[str, RunSettings], addresses_of: AddressesOf
) -> list[OutdatedCell]:
    """Return the cells with results, of a whole run or of one that a pruner ended, that would be others now.

    Args:
        grid: the settings of cells that are known to be those of their folders, by name.
    """
    outdated = []
    for folder in folders:
        record = folder.read()
        if record.state not in ("done", "pruned") or not record.stages:
            continue
        settings = grid.get(record.cell) or folder.settings()
        recorded = {stage.stage: stage.address for stage in record.stages}
        for stage, present in addresses_of(settings).items():
            if recorded.get(stage, present) != present:
                outdated.append(OutdatedCell(folder, stage, recorded[stage], present))
                break
    return outdated


def refuse_outdated(study: str, cells: Sequence[OutdatedCell]) -> None:
    """Check that there is none.

    Raises:
        StudyError: there is; the message names the first of them, its stage and the remedy.
    """
    if not cells:
        return
    first = cells[0]
    raise StudyError(
        f"study {study}: {len(cells)} of its ended cells ({named([cell.name for cell in cells])}) have results of "
        f"another {first.stage} (address {first.recorded}, now {first.present}): the weights behind model.path or "
        "critic.path, or the code of a stage, have changed since. One table would average both: --recompute runs these "
        "cells again, --fresh moves the old study aside"
    )


def withdraw(folder: CellFolder) -> None:
    """Move the folder of a cell that is not the study's any more to withdrawn/, beside what lies there."""
    place = folder.path.parent.parent / WITHDRAWN
    place.mkdir(exist_ok=True)
    target, number = place / folder.path.name, 1
    while target.exists():
        number += 1
        target = place / f"{folder.path.name}.{number}"
    os.rename(folder.path, target)


def named(cells: Sequence[str]) -> str:
    """Return the first of several names, for a message.

    >>> named(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(cells) - NAMED} more" if len(cells) > NAMED else ""
    return ", ".join(cells[:NAMED]) + more
