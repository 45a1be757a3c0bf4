"""A run measures where its gradient points without being changed by it, warns in one line, and may end at a warning."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny

from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder
from vcppo.store.journal import read_journal
from vcppo.store.summary import curves_of

FAST = ("pretrain.steps=0", "evaluation.every=0", "steps=3", "cold_start.steps=60")


def run(out: Path, *more: str) -> StageFolder:
    return run_stages(settings(*more), out, until="rl")["rl"].folder


def settings(*more: str) -> RunSettings:
    return tiny(*FAST, *more)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


def test_measuring_changes_neither_weights_nor_samples(out: Path) -> None:
    off, on = run(out, "record.alignment_every=0"), run(out, "record.alignment_every=2")
    for model in ("policy", "critic"):
        before, after = (load_file(folder.path / model / "model.safetensors") for folder in (off, on))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    curves = [curves_of(read_journal(folder.path / "journal.jsonl")) for folder in (off, on)]
    assert not [name for name in curves[0] if name.startswith("alignment/")]
    assert sorted(curves[1]["alignment/score_z"]) == [0, 2]
    assert sorted(curves[1]["early_warning/length_falls"]) == [0, 1, 2]
    same = ("rollout/length_tokens", "policy/grad_norm", "value/grad_norm", "policy/entropy")
    assert all(curves[0][name] == curves[1][name] for name in same)
