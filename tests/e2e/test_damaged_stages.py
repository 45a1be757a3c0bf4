"""Results that a disk damaged are computed again, with the same numbers; complete ones are used wherever they lie."""

import json
import shutil
from pathlib import Path

import pytest
from disks import read_only
from tiny import tiny

from vcppo.errors import DiskError
from vcppo.models.checkpoints import save_state
from vcppo.stages.context import StageContext
from vcppo.stages.pipeline import StageUse, run_cell, run_stages
from vcppo.stages.shared.resuming import resume
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.journal import Journal, read_journal

pytestmark = pytest.mark.e2e
SETTINGS = tiny()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished")
    run_stages(SETTINGS, out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "out"))


def of(out: Path, stage: str) -> Path:
    return StageFolder(out, addresses(SETTINGS)[stage]).path


def ran(uses: dict[str, StageUse]) -> list[str]:
    return [stage for stage, use in uses.items() if use.ran]


def test_damage_is_seen_before_it_is_read_and_costs_what_was_damaged(finished: Path, out: Path) -> None:
    reward_model = of(out, "reward-model") / "critic" / "model.safetensors"
    content = bytearray(reward_model.read_bytes())
    content[-300:] = bytes(300)
    reward_model.write_bytes(content)
    critic = of(out, "value-pretraining") / "critic-000004" / "model.safetensors"
    critic.write_bytes(critic.read_bytes()[:100])
    (of(out, "rl") / "done.json").write_bytes(b"")
    record = CellRecord(study="train", cell="cell", arm="vcppo", seed=0)
    cell = CellFolder.create(out / "studies" / "train" / "cells" / "cell", record, SETTINGS)
    run_cell(cell.path, out)
    stages, lines = cell.read().stages, cell.read().notices
    assert [stage.stage for stage in stages if stage.ran] == ["reward-model", "value-pretraining", "rl"]
    assert len([line for line in lines if "critic/model.safetensors has other bytes" in line]) == 1
    assert len([line for line in lines if "critic-000004/model.safetensors has 100 bytes" in line]) == 1
    assert not any("\n" in line for line in lines)
    for stage, file in (("reward-model", "critic"), ("value-pretraining", "critic-000004"), ("rl", "policy")):
        name = f"{file}/model.safetensors"
        assert (of(out, stage) / name).read_bytes() == (of(finished, stage) / name).read_bytes()
    again: list[str] = []
    assert ran(run_stages(SETTINGS, out, notice=again.append)) == []
    assert again == []


def test_a_value_pretraining_killed_before_it_was_marked_complete_is_ended_by_the_next_run(out: Path) -> None:
    pretraining = of(out, "value-pretraining")
    journal = read_journal(pretraining / "journal.jsonl")
    result = json.loads((pretraining / "done.json").read_text())["result"]
    (pretraining / "done.json").unlink()
    assert ran(run_stages(SETTINGS, out)) == ["value-pretraining"]
    assert json.loads((pretraining / "done.json").read_text())["result"] == result
    assert read_journal(pretraining / "journal.jsonl") == journal


def test_a_complete_cache_that_is_read_only_needs_no_lock_and_an_incomplete_one_says_so(out: Path) -> None:
    for lock in out.rglob("lock"):
        lock.unlink()
    with read_only(out):
        assert ran(run_stages(SETTINGS, out)) == []
        with pytest.raises(DiskError, match=r"Read-only file system; expected a folder of your own on a disk to write"):
            run_stages(tiny("steps=5"), out)


def test_a_state_that_cannot_be_read_is_moved_aside_and_the_stage_begins_anew(tmp_path: Path) -> None:
    folder, lines = StageFolder(tmp_path, addresses(SETTINGS)["rl"]), list[str]()
    context = StageContext(SETTINGS, folder, {}, lines.append)
    journal = Journal(folder.path / "journal.jsonl")
    for step in range(3):
        journal.metrics(step, {"policy/loss": 0.0})
    save_state(folder.path / "state.pt", {"step": 2, "records": 2})
    state = resume(context, journal)
    assert state is not None
    assert state["step"] == 2
    assert (journal.count, lines) == (2, [])

    (folder.path / "state.pt").write_bytes(bytes(500))
    assert resume(context, journal) is None
    assert read_journal(journal.path) == []
    assert len(lines) == 1
    assert "state.pt: not a readable state" in lines[0]
    assert "\n" not in lines[0]

    save_state(folder.path / "state.pt", {"step": 2, "records": 2})  # the journal has none
    assert resume(context, journal) is None
    assert lines[1].startswith(f"{folder.path / 'state.pt'}: counts records that the journal beside it has not")
    asides = sorted(path.name for path in folder.path.parent.glob("*.bad-*/state.pt"))
    assert (asides, (folder.path / "state.pt").exists()) == (["state.pt"] * 2, False)
