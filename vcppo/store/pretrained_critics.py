"""Checkpoints of value pretraining: which of them settings ask for, from its journal, and whether it is there.

One folder serves many step counts, so that it may be complete for some settings and not for others.
"""

import math
from pathlib import Path

from vcppo.maths.settling import Measurement, Settled, best_of, settled
from vcppo.settings.critic import PretrainSettings
from vcppo.store.journal import read_journal


def measurements_in(journal: Path) -> list[Measurement]:
    """Return a journal's measurements on held-out responses, by step; a null is as bad as can be."""
    records = [r for r in read_journal(journal) if r["kind"] == "metrics" and "pretrain/held_out_loss" in r["values"]]
    return [
        Measurement(
            record["step"],
            _or(record["values"]["pretrain/held_out_loss"], math.inf),
            _or(record["values"]["pretrain/explained_variance"], -math.inf),  # null: the returns were all equal
            _or(record["values"].get("pretrain/constant_loss"), math.nan),
        )
        for record in records
    ]


def end_of(measurements: list[Measurement], settings: PretrainSettings) -> Settled | None:
    """Where these settings end a pretraining, and which critic they take of it; None while `converge` is undecided.

    A number of steps takes the critic after so many, `converge` the best one until the run had settled, or until
    `max_steps`.
    """
    if settings.steps != "converge":
        return Settled(settings.steps, settings.steps)
    within = [m for m in measurements if m.step <= settings.max_steps]
    found = settled(within, patience=settings.patience, min_delta=settings.min_delta)
    if found is None and within and within[-1].step == settings.max_steps:
        return Settled(settings.max_steps, best_of(within))
    return found


def chosen_step(folder: Path, settings: PretrainSettings) -> int | None:
    """Updates of the critic that RL starts from, None while `converge` is undecided; it may have trained further."""
    end = end_of(measurements_in(folder / "journal.jsonl"), settings)
    return None if end is None else end.best


def critic_folder(folder: Path, step: int) -> Path:
    """Folder of the critic after `step` updates."""
    return folder / f"critic-{step:06d}"


def pretraining_is_done(folder: Path, settings: PretrainSettings) -> bool:
    """Whether the checkpoint that these settings request lies there."""
    step = chosen_step(folder, settings)
    return step is not None and critic_is_saved(folder, step)


def critic_is_saved(folder: Path, step: int) -> bool:
    """Whether the critic after `step` updates lies there, whole."""
    return (critic_folder(folder, step) / "state.pt").exists()  # the last file to be written


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number
