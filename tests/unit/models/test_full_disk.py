"""Checkpoints on a disk without room, and metadata of shards that would run code."""

import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from disks import disk_of
from tiny import new_policy, tiny

from vcppo.errors import CheckpointError, DiskError
from vcppo.models import checkpoints
from vcppo.models.checkpoints import load_state, save_model, save_state, saved_number
from vcppo.models.sharding import prepare
from vcppo.settings.model import ComputeSettings, LoraSettings
from vcppo.tasks import make_task


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with disk_of("1M", tmp_path / "disk") as place:
        yield place


@pytest.mark.parametrize("foreseen", [True, False])
def test_a_state_without_room_is_one_line_and_the_one_before_stays(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, foreseen: bool
) -> None:
    monkeypatch.setattr("vcppo.system.disk.RESERVE_BYTES", 0)
    if not foreseen:
        monkeypatch.setattr(checkpoints, "check_room", lambda path, needed: None)
    save_state(small_disk / "state.pt", {"step": 1, "policy": {"weight": torch.ones(10)}})
    with pytest.raises(DiskError, match=r"state\.pt: .*; make room, then the same command goes on"):
        save_state(small_disk / "state.pt", {"step": 2, "policy": {"weight": torch.ones(1 << 20)}})
    assert [path.name for path in small_disk.iterdir()] == ["state.pt"]
    state = load_state(small_disk / "state.pt")
    assert state is not None
    assert state["step"] == 1


def test_shards_without_room_leave_what_was_there(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a state of shards kept the disk full until the next one that fitted."""
    monkeypatch.setattr(checkpoints, "check_room", lambda path, needed: None)
    prepared = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    save_state(small_disk / "state.pt", {"step": 1, "policy": prepared.state_dict()})
    before = sorted(path.name for path in small_disk.iterdir())
    large = prepare(
        new_policy("model.hidden_size=256", "model.intermediate_size=512", "model.layers=2"),
        ComputeSettings(dtype="bfloat16"),
        LoraSettings(),
        seed=0,
    )
    with pytest.raises(DiskError, match=r"state\.pt: cannot be written \(No space left on device"):
        save_state(small_disk / "state.pt", {"step": 2, "policy": large.state_dict()})
    assert sorted(path.name for path in small_disk.iterdir()) == before
    state = load_state(small_disk / "state.pt")
    assert state is not None
    assert state["step"] == 1


def test_a_model_without_room_is_one_line_and_nothing_of_it_stays(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "check_room", lambda path, needed: None)
    policy = new_policy("model.hidden_size=256", "model.intermediate_size=512", "model.layers=2")
    with pytest.raises(DiskError, match=r"policy: cannot be written"):
        save_model(policy, make_task(tiny().task).tokenizer(), small_disk / "policy")
    assert list(small_disk.iterdir()) == []


class _Code:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.target,)


def test_a_number_of_a_state_is_read_without_its_shards(tmp_path: Path) -> None:
    """By the one process that failed: all together read shards."""
    policy = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    path = tmp_path / "state.pt"
    assert saved_number(path, "step") is None
    save_state(path, {"step": 7, "policy": policy.state_dict()})
    (shard,) = tmp_path.glob("*.shards/*.distcp")
    shard.unlink()
    assert saved_number(path, "step") == 7
    path.write_bytes(b"no state")
    assert saved_number(path, "step") is None


def test_a_state_whose_shards_are_gone_is_not_readable(tmp_path: Path) -> None:
    policy = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    save_state(tmp_path / "state.pt", {"step": 1, "policy": policy.state_dict()})
    (shard,) = tmp_path.glob("*.shards/*.distcp")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"state\.pt: not a readable state"):
        load_state(tmp_path / "state.pt")
    shard.unlink()
    with pytest.raises(CheckpointError, match=r"state\.pt: not a readable state"):
        load_state(tmp_path / "state.pt")


def test_metadata_of_shards_runs_no_code(tmp_path: Path) -> None:
    policy = prepare(new_policy(), ComputeSettings(dtype="bfloat16"), LoraSettings(), seed=0)
    save_state(tmp_path / "state.pt", {"step": 1, "policy": policy.state_dict()})
    assert load_state(tmp_path / "state.pt") is not None
    (metadata,) = tmp_path.glob("*.shards/.metadata")
    metadata.write_bytes(pickle.dumps(_Code(tmp_path / "it-ran")))
    with pytest.raises(CheckpointError, match=r"state\.pt: not a readable state"):
        load_state(tmp_path / "state.pt")
    assert not (tmp_path / "it-ran").exists()
