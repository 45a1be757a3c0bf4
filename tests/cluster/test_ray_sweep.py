"""A study on a Ray cluster whose nodes, and whose own process, are killed ends as one on this machine."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_cells import FAKE, GRID, Bench
from ray_nodes import Nodes
from study_processes import STUDY
from tiny import ASSIGNMENTS
from torture.oracle import measured

pytestmark = [pytest.mark.ray, pytest.mark.e2e, pytest.mark.long]

CELLS = 11  # of `components`, of a base and a seed
KILLS = int(os.environ.get("VCPPO_RAY_KILLS", "5"))
PATIENCE_S = 400.0
TAKEN = ("attempts", "started", "finished", "stages")  # of a cell's record: how often, when and beside whom it ran


def sweep(
    folder: Path, *options: str, study: str = "faults.toml", steps: int = 4, workers: int = 2
) -> subprocess.Popen[str]:
    """`vcppo sweep` as a user has it running."""
    folder.mkdir(exist_ok=True)
    (folder / "faults.toml").write_text(STUDY)
    more = (f"steps={steps}", "pretrain.max_steps=20")
    shared = [text for text in (*ASSIGNMENTS, *more) if not text.startswith("pretrain.steps")]
    settings = [word for text in shared for word in ("--set", text)]
    command = [sys.executable, "-m", "vcppo", "sweep", study, "--workers", str(workers), "--out", "runs", *settings]
    return subprocess.Popen([*command, *options], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, output + errors
    return errors


def killed(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def until(condition: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for {what}"
        time.sleep(0.05)


def workers_in(folder: Path) -> list[psutil.Process]:
    """The processes that run cells for a command that was given there."""
    found = []
    for process in psutil.process_iter():
        try:
            if "vcppo.studies.worker" in process.cmdline() and process.cwd() == str(folder):
                found.append(process)
        except psutil.Error:
            continue
    return found


def rl_records(folder: Path) -> int:
    return sum(len(path.read_bytes().splitlines()) for path in (folder / "runs").glob("cache/rl/*/journal.jsonl"))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for file in (folder / "runs" / "studies").glob("*/cells/*/cell.json"):
        record = json.loads(file.read_text())
        found[file.parent.name] = {name: value for name, value in record.items() if name not in TAKEN}
    return found


def test_killing_nodes_and_the_studys_process_changes_nothing(nodes: Nodes, tmp_path: Path) -> None:
    """Study `components`, a base and a seed of it, made small."""
    draws = random.Random(KILLS)
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    shipped = partial(sweep, study="components", steps=10 + KILLS)
    one_of_each = ("--bases", "1", "--seeds", "1")
    ended(shipped(undisturbed, *one_of_each))
    on_ray = (*one_of_each, "--executor", "ray", "--address", nodes.address)
    process, restart_at = shipped(disturbed, *on_ray), KILLS // 2
    for kill in range(KILLS):
        seen = rl_records(disturbed)
        until(lambda: rl_records(disturbed) > seen or process.poll() is not None, "the study to go on")  # noqa: B023
        assert process.poll() is None, "the study ended before all kills: give it more steps"
        nodes.kill(draws.choice(nodes.all()))
        nodes.add()
        if kill == restart_at:
            killed(process)
            process = shipped(disturbed, *on_ray)
    ended(process)
    assert measured(disturbed / "runs") == measured(undisturbed / "runs")
    assert len(records(disturbed)) == CELLS
    assert records(disturbed) == records(undisturbed)
    assert not workers_in(disturbed)


def test_the_processes_of_a_cell_are_on_one_node_and_compute_what_they_do_here(nodes: Nodes, tmp_path: Path) -> None:
    ended(sweep(tmp_path / "here", "--processes", "2", "--seeds", "1", workers=1))
    roomy = nodes.add(cpus=2)
    on_ray = ("--processes", "2", "--seeds", "1", "--executor", "ray", "--address", nodes.address)
    there = sweep(tmp_path / "there", *on_ray, workers=1)
    try:
        ended(there)
    finally:
        nodes.kill(roomy)
    assert measured(tmp_path / "there" / "runs") == measured(tmp_path / "here" / "runs")
    assert records(tmp_path / "there") == records(tmp_path / "here")


def test_a_cell_that_kills_its_worker_is_given_up_as_on_one_machine(played: "Played") -> None:
    played.bench.plan({played.cells[0]: ["die"]})
    errors = ended(played.start(), code=1)
    records = {cell: played.bench.record(cell) for cell in played.cells}
    assert Counter(record.state for record in records.values()) == {"done": len(records) - 1, "failed": 1}
    assert "worker died 3 times, last by signal 9 (SIGKILL" in (records[played.cells[0]].error or "")
    assert errors == ""


def test_no_worker_outlives_the_studys_process_and_the_next_waits_for_them(played: "Played") -> None:
    played.bench.plan({cell: ["wait"] for cell in played.cells})
    process = played.start()
    until(lambda: len(played.bench.log("begin")) == 2, "two cells to run")
    pids = {record["pid"] for record in played.bench.log("begin")}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    following = played.start()
    until(lambda: not any(psutil.pid_exists(pid) for pid in pids), "the workers to end", within_s=10.0)
    (
        played.bench.out / "go"
    ).touch()  # not before: one that ends its cell and is killed before it says so runs it again
    ended(following)
    assert played.bench.ends() == dict.fromkeys(played.cells, 1)


def test_a_second_process_is_kept_out(played: "Played") -> None:
    played.bench.plan({cell: ["wait"] for cell in played.cells})
    first = played.start()
    until(lambda: len(played.bench.log("begin")) == 2, "two cells to run")
    second = played.start()
    assert f"process {first.pid} is running this study" in ended(second, code=1)
    (played.bench.out / "go").touch()
    ended(first)
    assert played.bench.ends() == dict.fromkeys(played.cells, 1)


def test_a_node_that_sees_another_folder_is_refused(nodes: Nodes, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    out.mkdir()
    start = f"{Path(sys.executable).with_name('ray')} start --address {nodes.address} --num-cpus 1 --block"
    hidden = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs tmpfs {out} && exec {start}"]
    if subprocess.run([*hidden[:4], f"mount -t tmpfs tmpfs {out}"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("nothing can be mounted here")
    count = nodes.alive()
    with subprocess.Popen(hidden, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as node:
        try:
            until(lambda: nodes.alive() > count, "the node to join")
            errors = ended(sweep(tmp_path, "--executor", "ray", "--address", nodes.address), code=2)
        finally:
            node.terminate()
    assert re.fullmatch(rf"StudyError: {out}: seen from node \S+, there is no .*; expected a folder .*\n", errors)


def test_where_there_is_no_cluster_one_line_says_so(tmp_path: Path) -> None:
    errors = ended(sweep(tmp_path, "--executor", "ray", "--address", "127.0.0.1:1"), code=2)
    assert errors.startswith("StudyError: --address 127.0.0.1:1: no Ray cluster that this machine is part of (")
    assert errors.count("\n") == 1


PARENT = """
import json, sys
from pathlib import Path
from vcppo.studies.study import parse_study
from vcppo.studies.execution import Execution
from vcppo.studies.sweep import run_study
from vcppo.studies.ray.cluster import connected
out, address = Path(sys.argv[1]), sys.argv[3]
study = parse_study(json.loads(sys.argv[2]), "test")
with connected(address, 1, out) as cluster:
    execution = Execution((0, 1), out, workers=2, runner="fake:run_cell", make_pool=cluster.make_pool)
    outcome = run_study(study, execution)
sys.exit(outcome.exit_code)
"""


class Played:
    """A study on the cluster whose cells are played, by processes of their own."""

    def __init__(self, bench: Bench, address: str, stack: ExitStack) -> None:
        self.bench, self.address, self._stack = bench, address, stack
        values = ("0.9", "1.0")
        self.cells = [
            f"gae.lambda_actor={a},gae.lambda_critic={c}-s{s}" for s in (0, 1) for a in values for c in values
        ]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", PARENT, str(self.bench.out), json.dumps(GRID), self.address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self._stack.callback(killed, process)
        return process


@pytest.fixture
def played(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Played]:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake.py").write_text(FAKE)
    modules = f"{tmp_path / 'modules'}:{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", modules)
    with ExitStack() as stack:
        yield Played(Bench(tmp_path), nodes.address, stack)
