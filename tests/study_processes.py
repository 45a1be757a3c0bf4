"""A small study of two arms and two seeds as a user has it running, for tests that disturb it."""

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
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
PATIENCE_S = 300.0
CELLS = ["ppo-s0", "ppo-s1", "vcppo-s0", "vcppo-s1"]


class Sweep:
    """`vcppo sweep` of that study, as a process."""

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


def processes() -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            process.cmdline(), process.cwd()
        except psutil.Error:
            continue
        yield process
