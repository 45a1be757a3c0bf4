"""A sweep whose disk runs full ends in one line; once there is room the same command ends it as if nothing had been."""

import subprocess
import sys
from pathlib import Path

import pytest
from disks import disk_of
from tiny import ASSIGNMENTS

from vcppo.store.cell_folders import CellFolder

STUDY = """
name = "full"
title = "a disk that runs full"
seeds = 1

[base]
"advantage.estimator" = "grpo"
"rollout.samples_per_prompt" = 2

[[arms]]
name = "grpo"
"""


@pytest.mark.e2e
@pytest.mark.long
def test_a_sweep_on_a_full_disk_is_one_line_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    shared = [text for text in ASSIGNMENTS if not text.startswith(("pretrain", "reward_model", "rollout.p"))]
    flags = [word for text in (*shared, "rollout.prompts=4") for word in ("--set", text)]
    (tmp_path / "full.toml").write_text(STUDY)

    def sweep(out: Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "vcppo", "sweep", "full.toml", "--workers", "1", "--out", str(out), *flags]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)

    with disk_of("64M", tmp_path / "disk") as disk:
        (disk / "other").write_bytes(bytes((64 << 20) - (1 << 20)))  # 1 MB is left
        done = sweep(disk / "runs")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("DiskError: ")]) == 1
        folder = CellFolder(disk / "runs" / "studies" / "full" / "cells" / "grpo-s0")
        assert not folder.exists() or folder.read().state in ("queued", "running")
        assert not list(disk.rglob(".*~*.tmp"))

        (disk / "other").unlink()
        done = sweep(disk / "runs")
        assert done.returncode == 0, done.stdout + done.stderr
        assert folder.read().state == "done"
