"""Resuming of a stage: from the state that its last process saved, and as much of the journal as that counts.

What a power cut or a bad disk left unreadable is moved aside, and costs the updates since, never the run.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vcppo.errors import CheckpointError, DataError
from vcppo.models.checkpoints import load_state
from vcppo.models.distributed import world
from vcppo.stages.context import StageContext
from vcppo.store.journal import Journal


def resume(context: StageContext, journal: Journal) -> dict[str, Any] | None:
    """Return the state in `state.pt`, the journal cut back to what it counts; None where the stage begins anew."""
    path = context.folder.path / "state.pt"
    state = usable_state(context, path, path.name)
    if state is None or cut_back(journal, state.get("records", 0)):
        if state is None:
            cut_back(journal, 0)
        return state
    move_state_aside(context, [path.name], f"{path}: counts records that the journal beside it has not")
    cut_back(journal, 0)
    return None


def usable_state(context: StageContext, path: Path, aside: str) -> dict[str, Any] | None:
    """Return a state, None if there is none; one that cannot be read goes aside, with what `aside` names.

    Every process calls this, and all have a state or none has.
    """
    fault, state = None, None
    try:
        state = load_state(path)
    except CheckpointError as error:
        fault = str(error)
    faults = [line for line in world().gather([fault]) if line is not None]
    if not faults:
        return state
    move_state_aside(context, [aside], faults[0])
    return None


def cut_back(journal: Journal, records: int) -> bool:
    """Cut the journal back to so many records; False, and nothing is cut, if it has fewer. Every process calls this."""
    try:
        journal.truncate(records)
    except DataError:
        return world().from_main(False)
    return world().from_main(True)


def move_state_aside(context: StageContext, names: Sequence[str], reason: str) -> None:
    """Move parts of the stage's folder aside, and say why in a line."""
    here = world()
    here.wait()  # none of them reads there any more
    if here.is_main:
        aside = context.folder.move_aside([name for name in names if (context.folder.path / name).exists()])
        context.notice(f"{reason}; moved to {aside.name}, and trained again from the state before, if there is one")
    here.wait()
