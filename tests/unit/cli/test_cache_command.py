"""`vcppo cache` as one types it: lists, checks, shows what can go, and removes only with --yes."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vcppo.cli.main import main
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.system.files import write_bytes

ADDRESSES = addresses(RunSettings())
COLD, RL = f"cold-start/{ADDRESSES['cold-start'].key}", f"rl/{ADDRESSES['rl'].key}"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A study that has ended, with its RL stage; and a cold start that no study went through."""
    record = CellRecord(study="one", cell="a-s0", arm="a", seed=0, state="done")
    cell = CellFolder.create(tmp_path / "studies" / "one" / "cells" / "a-s0", record, RunSettings())
    cell.add_stage("rl", ADDRESSES["rl"].key, ran=True)
    for stage, wall_s in (("cold-start", 7200.0), ("rl", 3.0)):
        folder = StageFolder(tmp_path, ADDRESSES[stage])
        folder.describe()
        write_bytes(folder.path / "policy" / "model.safetensors", b"w" * 2_000_000)
        folder.finish({"steps": 1.0}, wall_s)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["cache", *arguments], catch_exceptions=False)


def test_a_list_says_who_needs_what_and_adds_up(out: Path) -> None:
    done = invoke("ls", "--out", str(out), "--sort", "age")
    lines = {line.split()[1]: line.split() for line in done.output.splitlines() if len(line.split()) > 5}
    assert lines[ADDRESSES["rl"].key][-2:] == ["done", "one"]
    assert lines[ADDRESSES["cold-start"].key][-2:] == ["done", "-"]
    assert lines[ADDRESSES["cold-start"].key][-6:-2] == ["2", "h", "0", "min"]
    assert "together" in done.output
    listed = json.loads(invoke("ls", "--out", str(out), "--json", "--stage", "rl").output)
    assert [(stage["address"], stage["needed_by"], stage["wall_s"]) for stage in listed] == [
        (ADDRESSES["rl"].key, ["one"], 3.0)
    ]
    assert listed[0]["size"] == sum(path.stat().st_size for path in (out / "cache" / RL).rglob("*") if path.is_file())
    assert ADDRESSES["cold-start"].key not in invoke("ls", "--out", str(out), "--study", "one").output


def test_nothing_goes_without_yes(out: Path) -> None:
    shown = invoke("gc", "--out", str(out))
    assert shown.exit_code == 0
    assert COLD in shown.output
    assert RL not in shown.output
    assert "would take 2 h 0 min of computing. Nothing was removed" in shown.output
    assert (out / "cache" / COLD).exists()
    assert json.loads(invoke("gc", "--out", str(out), "--json").output)["removals"][0]["again_s"] == 7200.0
    done = invoke("gc", "--out", str(out), "--yes")
    assert (done.exit_code, "removed 2.0 MB of 4.0 MB" in done.output) == (0, True)
    assert not (out / "cache" / COLD).exists()
    assert (out / "cache" / RL / "policy").exists()
    assert "nothing of it can go" in invoke("gc", "--out", str(out)).output


def test_what_stays_although_it_was_to_go_is_told_and_counts(out: Path) -> None:
    folder = StageFolder(out, ADDRESSES["cold-start"])
    shown = json.loads(invoke("gc", "--out", str(out), "--json", "--yes", "--larger-than", "1GB").output)
    assert shown["removals"] == []
    with folder.lock():
        busy = invoke("gc", "--out", str(out), "--yes")
    assert "stays: a process works on it" in busy.output
    assert folder.path.exists()


def test_damage_is_found_by_digest_and_a_lost_byte_by_size(out: Path) -> None:
    good = invoke("verify", "--out", str(out))
    assert (good.exit_code, "2 folders of 4.0 MB checked by sizes and digests, 0 of them damaged" in good.output) == (
        0,
        True,
    )
    model = out / "cache" / RL / "policy" / "model.safetensors"
    model.write_bytes(b"x" + model.read_bytes()[1:])
    assert invoke("verify", "--out", str(out), "--sizes").exit_code == 0
    bad = invoke("verify", "--out", str(out))
    assert bad.exit_code == 1
    assert f"{RL}: policy/model.safetensors has other bytes than were written; needed by one" in bad.output
    model.write_bytes(b"x")
    assert invoke("verify", "--out", str(out), "--sizes", "--stage", "cold-start").exit_code == 0
    sizes = invoke("verify", "--out", str(out), "--sizes", "--json")
    assert sizes.exit_code == 1
    assert json.loads(sizes.output)["damage"] == {
        RL: ["policy/model.safetensors has 1 bytes, was written with 2000000"]
    }


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["gc", "--older-than", "soon"], "ConfigError: --older-than soon: expected a number with s, m, h, d or w"),
        (
            ["gc", "--larger-than", "big"],
            "ConfigError: --larger-than big: expected a number of bytes or with kB, MB, GB",
        ),
        (["gc", "--stage", "sft"], "ConfigError: --stage sft: no such stage, expected one of cold-start"),
        (["gc", "--study", "two"], "StudyError: study two: not in"),
        (["ls", "--study", "two"], "ConfigError: --study two: not in"),
        (["verify", "--study", "two"], "ConfigError: --study two: not in"),
    ],
)
def test_a_mistake_is_one_line(out: Path, arguments: list[str], line: str) -> None:
    done = invoke(*arguments, "--out", str(out))
    assert done.exit_code == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    assert "nothing there" in invoke("ls", "--out", str(tmp_path)).output
    assert "nothing of it can go" in invoke("gc", "--out", str(tmp_path)).output
    assert invoke("verify", "--out", str(tmp_path)).exit_code == 0
