"""Checkpoints of value pretraining: which of them settings ask for, from its journal, and whether it is there.

One folder serves many step counts, so that it may be complete for some settings and not for others.
"""

import math
from pathlib import Path

from vcppo.maths.settling import Measurement, settled_at
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
        )
        for record in records
    ]


def chosen_step(folder: Path, settings: PretrainSettings) -> int | None:
    """Number of updates that these settings request, None while `converge` is undecided."""
    if settings.steps != "converge":
        return settings.steps
    measurements = [m for m in measurements_in(folder / "journal.jsonl") if m.step <= settings.max_steps]
    settled = settled_at(measurements, patience=settings.patience, tolerance=settings.tolerance)
    if settled is None and measurements and measurements[-1].step == settings.max_steps:
        return settings.max_steps
    return settled


def critic_folder(folder: Path, step: int) -> Path:
    """Folder of the critic after `step` updates."""
    return folder / f"critic-{step:06d}"


def pretraining_is_done(folder: Path, settings: PretrainSettings) -> bool:
    """Whether the checkpoint that these settings request lies there."""
    step = chosen_step(folder, settings)
    return step is not None and (critic_folder(folder, step) / "state.pt").exists()  # the last file to be written


def _or(number: float | None, otherwise: float) -> float:
    return otherwise if number is None else number
