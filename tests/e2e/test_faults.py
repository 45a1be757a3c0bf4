"""A study whose worker, parent and tracking server are killed ends as one that nobody touched."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from mlflow_server import Server
from tiny import ASSIGNMENTS

STUDY = """
name = "faults"
title = "a study to be killed"
seeds = 2

[[arms]]
name = "ppo"
set = { "pretrain.steps" = 0, "gae.lambda_critic" = 0.95 }

[[arms]]
name = "vcppo"
set = { "pretrain.steps" = 4, "gae.lambda_critic" = 1.0 }
"""
ABOUT_THE_RUN = ("run_id", "wall_s", "train_s", "peak_memory_mb")  # everything else in runs.csv must be the same
PATIENCE_S = 120.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    yield server
    server.kill()


class Sweep:
    """`vcppo sweep` as a user has it running."""

    def __init__(self, folder: Path, *options: str) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "faults.toml").write_text(STUDY)
        settings = [
            word for text in (*ASSIGNMENTS, "steps=12") if "pretrain.steps" not in text for word in ("--set", text)
        ]
        self.out = folder / "runs"
        command = [sys.executable, "-m", "vcppo", "sweep", "faults.toml", "--workers", "2", "--out", "runs"]
        self.process = subprocess.Popen(
            [*command, *settings, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def wait(self) -> None:
        _, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0, errors

    def workers(self) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.process.pid).children() if "vcppo.studies.worker" in p.cmdline()]

    def rl_records(self) -> int:
        return sum(len(path.read_bytes().splitlines()) for path in self.out.glob("cache/rl/*/journal.jsonl"))

    def runs(self) -> list[dict[str, str]]:
        text = (self.out / "results" / "faults" / "runs.csv").read_text(encoding="utf-8")
        rows = csv.DictReader(text.splitlines())
        return [{name: value for name, value in row.items() if name not in ABOUT_THE_RUN} for row in rows]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.02)


@pytest.mark.e2e
@pytest.mark.long
def test_killing_worker_parent_and_server_changes_nothing(tmp_path: Path, server: Server) -> None:
    undisturbed = Sweep(tmp_path / "undisturbed")
    server.start()
    killed = Sweep(tmp_path / "killed", "--tracking-uri", server.uri)
    until(lambda: killed.rl_records() > 2)
    killed.workers()[0].kill()
    server.kill()
    until(lambda: killed.rl_records() > 12)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.communicate(timeout=PATIENCE_S)
    until(
        lambda: (
            not any(
                "vcppo.studies.worker" in " ".join(p.cmdline()) and p.cwd() == str(tmp_path / "killed") for p in ours()
            )
        )
    )
    server.start()
    again = Sweep(tmp_path / "killed", "--tracking-uri", server.uri)
    again.wait()
    undisturbed.wait()
    assert [row["cell"] for row in again.runs()] == ["ppo-s0", "ppo-s1", "vcppo-s0", "vcppo-s1"]
    assert again.runs() == undisturbed.runs()


def ours() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            process.cmdline(), process.cwd()
        except psutil.Error:
            continue
        yield process
