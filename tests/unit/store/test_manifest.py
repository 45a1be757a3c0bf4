"""A folder's manifest knows each of its result files; damage shows by size at once, by digest where bytes are read."""

import shutil
from pathlib import Path

import pytest

from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses, is_complete, is_intact, move_damaged_aside
from vcppo.store.journal import Journal
from vcppo.store.manifest import faults, forget_files, read_manifest, record_files, write_manifest
from vcppo.store.stage_progress import write_progress

SETTINGS = RunSettings()


@pytest.fixture
def folder(tmp_path: Path) -> StageFolder:
    """A cold start that has ended."""
    stage = StageFolder(tmp_path, addresses(SETTINGS)["cold-start"])
    with stage.lock():
        stage.describe()
        stage.journal.metrics(0, {"cold_start/loss": 1.0})
        (stage.path / "policy").mkdir()
        (stage.path / "policy" / "model.safetensors").write_bytes(b"w" * 1000)
        (stage.path / "state.pt").write_bytes(b"s")
        stage.finish({"steps": 3.0}, 1.5)
    return stage


def overwrite(path: Path, start: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(start)
        file.write(content)


def test_it_names_every_result_and_nothing_that_is_none(folder: StageFolder) -> None:
    (folder.path / ".hidden").touch()
    (folder.path / "state-1.shards").mkdir()
    (folder.path / "state-1.shards" / "shard").touch()
    record_files(folder.path)
    names = {"done.json", "journal.jsonl", "policy/model.safetensors", "stage.json"}
    assert read_manifest(folder.path).keys() == names
    assert is_intact(folder, SETTINGS)


@pytest.mark.parametrize("name", ["done.json", "journal.jsonl", "policy/model.safetensors", "stage.json"])
def test_a_file_that_is_cut_or_gone_is_known_without_reading_it(folder: StageFolder, name: str) -> None:
    content = (folder.path / name).read_bytes()
    (folder.path / name).write_bytes(content[:-1])
    found = faults(folder.path, digests=False)
    assert found == [f"{name} has {len(content) - 1} bytes, was written with {len(content)}"]
    assert not is_complete(folder, SETTINGS)
    (folder.path / name).unlink()
    assert faults(folder.path, digests=False) == [f"{name} is missing"]


def test_how_far_a_stage_has_come_is_no_result(folder: StageFolder) -> None:
    """It is written every two seconds: with it in the manifest an interrupted pretraining was said to be damaged."""
    write_progress(folder.path, tokens=5, expected=10, seconds=1.0)
    record_files(folder.path)
    assert "progress.json" not in read_manifest(folder.path)
    manifest = read_manifest(folder.path)
    write_manifest(folder.path, {**manifest, "progress.json": manifest["stage.json"]})  # of an earlier version
    write_progress(folder.path, tokens=700, expected=1000, seconds=2.5)
    assert is_intact(folder, SETTINGS)


def test_zeroed_bytes_are_known_by_the_digest(folder: StageFolder) -> None:
    overwrite(folder.path / "policy" / "model.safetensors", 300, bytes(300))
    assert is_complete(folder, SETTINGS)
    assert not is_intact(folder, SETTINGS)
    assert faults(folder.path, digests=True) == ["policy/model.safetensors has other bytes than were written"]


def test_a_journal_may_have_grown_and_nothing_else(folder: StageFolder) -> None:
    Journal(folder.path / "journal.jsonl").metrics(1, {"cold_start/loss": 0.5})
    assert is_intact(folder, SETTINGS)
    overwrite(folder.path / "journal.jsonl", 5, b"\0\0")
    assert faults(folder.path, digests=True) == ["journal.jsonl has other bytes than were written"]
    with open(folder.path / "policy" / "model.safetensors", "ab") as file:
        file.write(b"w")
    assert "policy/model.safetensors has 1001 bytes, was written with 1000" in faults(folder.path, digests=False)


def test_what_is_damaged_is_moved_aside_whole_in_one_line_and_the_address_is_free_again(folder: StageFolder) -> None:
    lines: list[str] = []
    with folder.lock():
        move_damaged_aside(folder, SETTINGS, lines.append)
        assert lines == []
        overwrite(folder.path / "policy" / "model.safetensors", 300, bytes(300))
        move_damaged_aside(folder, SETTINGS, lines.append)
    assert [path.name for path in folder.path.iterdir()] == ["lock"]
    aside = folder.path.with_name(f"{folder.path.name}.bad-1")
    assert lines == [
        f"{folder.path}: policy/model.safetensors has other bytes than were written; moved to {aside.name}, "
        "and computed again"
    ]
    assert (aside / "policy" / "model.safetensors").stat().st_size == 1000
    assert not is_complete(folder, SETTINGS)


def test_a_folder_of_an_earlier_version_has_no_manifest_and_stays_valid(folder: StageFolder) -> None:
    (folder.path / "manifest.json").unlink()
    assert is_intact(folder, SETTINGS)


@pytest.mark.parametrize("content", [b"", b"\0" * 50, b"[]", b'{"files": {"a": 1}}'])
def test_a_manifest_that_cannot_be_read_is_a_fault(folder: StageFolder, content: bytes) -> None:
    (folder.path / "manifest.json").write_bytes(content)
    assert faults(folder.path, digests=False)[0].startswith("manifest.json: cannot be read")


def test_a_copy_with_other_times_is_intact_and_a_forgotten_file_is_not_missed(
    folder: StageFolder, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder.path, copy, copy_function=shutil.copy)
    assert faults(copy, digests=True) == []
    forget_files(copy, ["policy/model.safetensors"])
    shutil.rmtree(copy / "policy")
    assert faults(copy, digests=True) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 30, b'{"result"', b"[1]"])
def test_a_done_json_of_nothing_is_a_stage_that_has_not_ended(folder: StageFolder, content: bytes) -> None:
    (folder.path / "manifest.json").unlink()
    (folder.path / "done.json").write_bytes(content)
    assert folder.result is None
    assert not is_complete(folder, SETTINGS)
