"""A cache and studies as runs leave them, made of small files without running anything."""

from pathlib import Path

from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.store.cache import Address, StageFolder, addresses
from vcppo.store.cell_folders import CellFolder, CellRecord, State
from vcppo.store.pretrained_critics import critic_folder
from vcppo.system.files import write_bytes

MADE_BEFORE = ("cold-start", "reward-model", "answers", "value-pretraining")


def run(*changes: tuple[str, object]) -> RunSettings:
    """A run with these settings changed."""
    return override(RunSettings(), {"pretrain.steps": 40, **dict(changes)}, source="test")


def make_stage(out: Path, address: Address, *, wall_s: float = 60.0) -> StageFolder:
    """A finished stage with a model of a kB."""
    folder = StageFolder(out, address)
    folder.describe()
    write_bytes(folder.path / "policy" / "model.safetensors", b"w" * 1000)
    folder.journal.metrics(0, {"loss": 1.0})
    if address.stage == "value-pretraining":
        for step in range(10, 50, 10):
            write_bytes(critic_folder(folder.path, step) / "model.safetensors", b"c" * 1000)
            write_bytes(critic_folder(folder.path, step) / "state.pt", b"m" * 3000)
    folder.finish({"steps": 1.0}, wall_s)
    return folder


def make_cell(out: Path, study: str, settings: RunSettings, state: State = "done", cell: str = "a-s0") -> CellFolder:
    """A cell that has gone through all its stages, or, unless it is done, through those before RL."""
    record = CellRecord(study=study, cell=cell, arm="a", seed=0, state=state)
    folder = CellFolder.create(out / "studies" / study / "cells" / cell, record, settings)
    for stage, address in addresses(settings).items():
        if state == "done" or stage in MADE_BEFORE:
            make_stage(out, address)
            folder.add_stage(stage, address.key, ran=True)
    return folder
