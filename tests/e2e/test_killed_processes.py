"""A cell that several processes run: whoever is killed takes what it started along, and the same command goes on."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from tiny import ASSIGNMENTS

from vcppo.store.cell_folders import CellFolder

STUDY = """
name = "several"
title = "cells of two processes, to be killed"
seeds = 1

[base]
"advantage.estimator" = "grpo"
"rollout.samples_per_prompt" = 2

[[arms]]
name = "grpo"
"""
PATIENCE_S, SOON_S = 400.0, 20.0


def started_by(folder: Path) -> list[psutil.Process]:
    """The processes that work on cells in this folder."""
    processes = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
        except psutil.Error:
            continue
        if "vcppo.studies.launch" in line and any(str(folder) in word for word in line):
            processes.append(process)
    return processes


def until(condition: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.05)


def any_lives(processes: list[psutil.Process]) -> bool:
    return any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


@pytest.mark.e2e
@pytest.mark.long
def test_processes_of_a_cell_end_with_their_worker_and_with_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "several.toml").write_text(STUDY)
    shared = [text for text in ASSIGNMENTS if not text.startswith(("pretrain", "reward_model", "steps", "rollout.p"))]
    flags = [word for text in (*shared, "rollout.prompts=4", "steps=12") for word in ("--set", text)]
    command = [sys.executable, "-m", "vcppo", "sweep", "several.toml", "--workers", "1", "--processes", "2"]
    command += [*flags, "--out", str(tmp_path / "runs")]

    def records() -> int:
        journals = (tmp_path / "runs").glob("cache/rl/*/journal.jsonl")
        return sum(len(path.read_bytes().splitlines()) for path in journals)

    sweep = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: records() > 2 and len(started_by(tmp_path)) == 2)
        first = started_by(tmp_path)
        for process in first:
            listening = [c.laddr.ip for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1", "::1"}
        first[1].kill()  # one of the two, as the kernel does for want of memory: the cell runs again
        until(lambda: not any_lives(first), SOON_S)

        until(lambda: len(started_by(tmp_path)) == 2)
        again = started_by(tmp_path)
        workers = [p for p in psutil.Process(sweep.pid).children() if "vcppo.studies.worker" in p.cmdline()]
        workers[0].kill()
        until(lambda: not any_lives(again), SOON_S)

        until(lambda: len(started_by(tmp_path)) == 2)
        second = started_by(tmp_path)
        os.kill(sweep.pid, signal.SIGKILL)
        sweep.wait()
        until(lambda: not any_lives(second), SOON_S)
    finally:
        sweep.kill()
        sweep.wait()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    record = CellFolder(tmp_path / "runs" / "studies" / "several" / "cells" / "grpo-s0").read()
    assert (record.state, record.attempts) == ("done", 4)
    assert not started_by(tmp_path)
    assert not list(tmp_path.rglob(".*~*.tmp"))


AGENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-m", "vcppo", "train", "--out", "runs"])
print(child.pid, flush=True)
child.wait()
"""


@pytest.mark.e2e
def test_a_process_of_torchrun_that_waits_for_the_others_ends_with_it(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # where nobody listens
        others = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1"}
        others |= {"MASTER_PORT": str(reserved.getsockname()[1]), "TORCHELASTIC_RUN_ID": "some"}
        agent = subprocess.Popen(
            [sys.executable, "-c", AGENT], cwd=tmp_path, env={**os.environ, **others}, stdout=subprocess.PIPE, text=True
        )
        assert agent.stdout is not None
        child = psutil.Process(int(agent.stdout.readline()))
        try:
            until(lambda: any("torch" in mapped.path for mapped in child.memory_maps()))
            agent.kill()
            agent.wait()
            until(lambda: not any_lives([child]), SOON_S)
        finally:
            if any_lives([child]):
                child.kill()
            agent.stdout.close()
