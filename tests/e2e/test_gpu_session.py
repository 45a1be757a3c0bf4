"""The GPU session at its smallest, here: what it runs on a GPU has run before."""

import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vcppo.settings.task import DigitsTaskSettings
from vcppo.store.cell_folders import CellFolder
from vcppo.studies.study import load_study

pytestmark = [pytest.mark.e2e, pytest.mark.long]
ROOT = Path(__file__).resolve().parents[2]
ARMS = 7


def session(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "-m", "bench.gpu", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def peer(folder: Path, does: str) -> str:
    """A program in the place of TRL's Python."""
    path = folder / "python"
    path.write_text(f"#!/bin/bash\ncat > /dev/null\n{does}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_every_benchmark_runs_and_none_runs_twice(tmp_path: Path) -> None:
    python = peer(tmp_path, """echo '{"update_s": 2.0, "peak_gib": 1.5, "trl": "1.12.0"}'""")
    first = session("bench", "--tiny", "--to", str(tmp_path), "--trl-python", python)
    assert first.returncode == 0, first.stdout[-1500:] + first.stderr[-1500:]
    found = {str(entry["name"]): entry for entry in lines(tmp_path / "bench.jsonl")}
    lengths = (64, 128)
    wanted = {f"update/tiny/{who}/{n}" for who in ("policy", "critic", "both") for n in lengths}
    wanted |= {"update/tiny/policy/64/not-checkpointed", "update/tiny/policy/64/lora", "profile/tiny/policy/64"}
    wanted |= {"rollout/tiny/torch", *(f"trl/tiny/both/{n}" for n in lengths)}
    assert wanted <= set(found)
    assert found["update/tiny/policy/64"]["tokens_per_s"] > 0  # type: ignore[operator]
    assert found["trl/tiny/both/128"]["tokens_per_s"] == 3 * 128 / 2.0
    shares = [value for name, value in found["profile/tiny/policy/64"].items() if name.startswith("share: ")]
    assert sum(shares) == pytest.approx(1.0)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "bench.where.json").read_text())["device"]
    again = session("bench", "--tiny", "--to", str(tmp_path), "--trl-python", python)
    assert again.returncode == 0
    assert len(lines(tmp_path / "bench.jsonl")) == len(found)


def test_when_time_runs_out_it_says_what_is_left_and_goes_on(tmp_path: Path) -> None:
    none = session("bench", "--tiny", "--to", str(tmp_path), "--minutes", "0")
    assert none.returncode == 3
    assert "update/tiny/policy/64: no time left" in none.stdout
    assert not (tmp_path / "bench.jsonl").exists()


def test_a_peer_that_does_not_fit_is_a_result_and_one_that_breaks_is_a_failure(tmp_path: Path) -> None:
    full = peer(tmp_path, "echo 'torch.OutOfMemoryError: CUDA out of memory.' >&2; exit 1")
    command = ("bench", "--tiny", "--to", str(tmp_path), "--only", "trl/*", "--trl-python")
    session(*command, full)
    assert [entry.get("out_of_memory") for entry in lines(tmp_path / "bench.jsonl")] == [True, True]
    broken = peer(tmp_path, "echo 'ImportError: no trl' >&2; exit 1")
    done = session(*command, broken, "--again")
    assert done.returncode == 1
    said = "trl/tiny/both/64: FAILED, RuntimeError: TRL's process ended with exit code 1: ImportError: no trl"
    assert said in done.stdout


def test_the_study_runs_in_pieces_and_packs_what_an_export_needs(tmp_path: Path) -> None:
    out, to = tmp_path / "out", tmp_path / "to"
    paths = ("--to", str(to), "--out", str(out), "--workers", "2")
    cut = session("study", "--tiny", *paths, "--minutes", "0.01")
    assert cut.returncode == 3, cut.stderr[-1500:]
    cells = sorted((out / "studies" / "components-long" / "cells").glob("*-s[0-9]"))
    assert len(cells) == ARMS
    assert {CellFolder(cell).read().state for cell in cells} == {"queued"}
    done = session("study", "--tiny", *paths)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    assert {CellFolder(cell).read().state for cell in cells} == {"done"}
    with tarfile.open(to / "components-long.tar.gz") as archive:
        names = archive.getnames()
    assert "studies/components-long/study.json" in names
    assert sum(name.startswith("cache/rl/") and name.endswith("journal.jsonl") for name in names) == ARMS
    assert not [name for name in names if name.endswith((".safetensors", ".pt"))]
    assert (to / "components-long" / "runs.csv").read_text().count(",done,") == ARMS


def test_workers_that_are_stopped_while_they_load_end_without_a_word(tmp_path: Path) -> None:
    """As on a machine so busy that a worker has not come to its own first line when time is up."""
    slow = "import sys, time\nif 'bench.gpu.study' in sys.orig_argv:\n    time.sleep(3)\n"
    (tmp_path / "sitecustomize.py").write_text(slow)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    paths = ("--to", str(tmp_path / "to"), "--out", str(tmp_path / "out"), "--workers", "2")
    done = session("study", "--tiny", *paths, "--minutes", "0.01", PYTHONPATH=path)
    assert (done.returncode, done.stderr) == (3, "")
    cells = (tmp_path / "out" / "studies" / "components-long" / "cells").glob("*-s[0-9]")
    assert {CellFolder(cell).read().state for cell in cells} == {"queued"}


def test_the_long_study_is_the_short_one_at_another_length() -> None:
    long, short = load_study("components-long"), load_study("components")
    controls = {"ppo-bounded", "ppo-recentred", "ppo-constant", "ppo-pessimist"}  # of the critic
    arms = [arm for arm in short.arms if arm.name not in controls]
    assert [arm.name for arm in long.arms] == [arm.name for arm in arms]
    assert [arm.set for arm in long.arms] == [arm.set for arm in arms]
    settings = long.cells()[0].settings.task
    assert isinstance(settings, DigitsTaskSettings)
    share = (1 - settings.stop_hazard) ** (settings.chain_length - 1)
    assert 0.05 <= share <= 0.08, "of the demonstrations think to the end"
    assert settings.chain_length * (settings.digits + 1) >= 2000
