"""Where the workers of a study run: what is refused without Ray, and what keeps workers elsewhere apart."""

import dataclasses
import errno
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fake_cells import GRID, Bench, study

from vcppo.cli.main import main
from vcppo.errors import StudyError
from vcppo.store.cell_folders import CellFolder
from vcppo.studies import executors, launch, worker_locks
from vcppo.studies.dispatcher import MAX_DEATHS
from vcppo.studies.launch import DISK_REFUSED
from vcppo.studies.pool import Death, Reply
from vcppo.studies.ray.worker import Job, RemoteWorker
from vcppo.studies.worker_locks import await_free, await_workers, lock_of, node_and_host, worker_lock
from vcppo.system import files
from vcppo.system.files import is_locked
from vcppo.system.processes import PROCESSES


def swept(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sweep", "components", *arguments])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--executor", "ray"],
            "--executor ray: Ray is not installed; expected pip install 'vcppo[ray]', on every node",
        ),
        (
            ["--gpus-per-worker", "1"],
            "--gpus-per-worker 1: it would be ignored, expected --executor ray beside it; "
            "here a worker has a GPU for each process of a cell where there are as many",
        ),
        (["--address", "head:6379"], "--address head:6379: it would be ignored, expected --executor ray beside it"),
        (
            ["--executor", "ray", "--address", "ray://head:10001"],
            "--address ray://head:10001: expected HOST:PORT of the cluster's head, or auto",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_before_anything_is_written(
    arguments: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: None)
    done = swept("--out", str(tmp_path / "runs"), *arguments)
    assert (done.exit_code, done.stderr) == (2, f"ConfigError: {line}\n")
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_asks_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "find_spec", lambda name: object())
    done = swept("--executor", "ray", "--dry-run", "--workers", "7", "--seeds", "1", "--out", str(tmp_path / "runs"))
    assert done.exit_code == 0, done.output
    assert "with 7 workers" in done.stdout


def test_a_worker_elsewhere_holds_a_lock_that_says_where_it_is(tmp_path: Path) -> None:
    assert node_and_host(tmp_path, 3) == ("", "")
    with worker_lock(tmp_path, 3, "abc"):
        assert is_locked(lock_of(tmp_path, 3))
        node, host = node_and_host(tmp_path, 3)
    assert node == "abc"
    assert host
    assert not is_locked(lock_of(tmp_path, 3))


HOLDER = """
import sys, time
from pathlib import Path
from vcppo.studies.worker_locks import worker_lock
with worker_lock(Path(sys.argv[1]), 0, "node"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker of the study `grid` whose study's process is gone."""
    logs = tmp_path / "studies" / "grid" / "logs"
    logs.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(logs)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_nobody_begins_a_study_while_a_worker_elsewhere_is_left_of_it(
    orphan: subprocess.Popen[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_locks, "PREDECESSOR_S", 0.2)
    with pytest.raises(StudyError, match=r"worker-0\.lock: a worker of this study, .* still runs on .*; wait for"):
        Bench(tmp_path).run(study(GRID))
    assert not (tmp_path / "studies" / "grid" / "cells").exists()


def test_it_is_waited_for_a_worker_that_is_about_to_end(orphan: subprocess.Popen[str], tmp_path: Path) -> None:
    logs = tmp_path / "studies" / "grid" / "logs"
    assert is_locked(lock_of(logs, 0))
    orphan.kill()
    await_workers(logs)
    await_free([lock_of(logs, 0), lock_of(logs, 1)])


class Perishable:
    """A pool of one worker, which dies so many times in each cell before it ends it."""

    def __init__(self, times: int, *, machine_lost: bool) -> None:
        self.times, self.machine_lost = times, machine_lost
        self.given: Counter[str] = Counter()
        self.folder: Path | None = None  # of the cell that runs

    def __call__(self, size: int, **options: Any) -> "Perishable":
        return self

    def idle(self) -> list[int]:
        return [0] if self.folder is None else []

    def running(self) -> dict[str, int]:
        return {} if self.folder is None else {self.folder.name: 0}

    def give(self, index: int, folder: Path, out: Path) -> None:
        self.folder = folder
        self.given[folder.name] += 1

    def listen(self, timeout: float) -> Iterator[Reply | Death]:
        folder, self.folder = self.folder, None
        assert folder is not None
        if self.given[folder.name] <= self.times:
            yield Death(0, folder.name, "its node was lost", self.machine_lost)
            return
        CellFolder(folder).update(state="done", finished=time.time(), result={"final_accuracy": 0.5})
        yield Reply(0, folder.name)

    def news(self) -> list[str]:
        return []

    def stop(self, index: int) -> None: ...

    def close(self) -> None: ...


def test_a_cell_whose_machine_is_lost_runs_again_however_often(tmp_path: Path) -> None:
    assert MAX_DEATHS < 10
    pool = Perishable(10, machine_lost=True)
    outcome = Bench(tmp_path).run(study(GRID), [0], make_pool=pool)
    assert (outcome.done, outcome.failed) == (4, 0)
    assert set(pool.given.values()) == {11}


def test_a_cell_whose_worker_dies_by_itself_is_given_up(tmp_path: Path) -> None:
    pool = Perishable(MAX_DEATHS, machine_lost=False)
    outcome = Bench(tmp_path).run(study(GRID), [0], make_pool=pool)
    assert outcome.failed == 4
    assert set(pool.given.values()) == {MAX_DEATHS}


def test_a_node_with_another_version_starts_nothing(tmp_path: Path) -> None:
    job = dataclasses.replace(Job.here(tmp_path, "x:y", 1), version="0")
    with pytest.raises(StudyError, match=r"node .* has vcppo .*; expected 0$"):
        RemoteWorker(0, job).run(tmp_path / "cell", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [files, worker_locks])
def test_what_a_lock_says_is_on_the_disk_before_others_look(
    module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network's file system sends what is written to its server when the file is closed, or synced."""
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync", synced.append)
    lock = files.signed_lock(tmp_path / "lock") if module is files else worker_lock(tmp_path, 0, "node")
    with lock:
        assert synced == [tmp_path / "lock" if module is files else lock_of(tmp_path, 0)]


def test_an_error_under_a_lock_is_not_taken_for_the_lock_being_held(tmp_path: Path) -> None:
    with pytest.raises(BlockingIOError, match="out of processes"), files.signed_lock(tmp_path / "lock"):
        raise BlockingIOError(errno.EAGAIN, "out of processes")


@pytest.mark.parametrize(
    ("codes", "told"),
    [((0, 0), 0), ((1, -signal.SIGKILL), -signal.SIGKILL), ((1, DISK_REFUSED), DISK_REFUSED), ((3, 0), 3)],
)
def test_of_several_processes_the_one_that_tells_the_cause_is_heard(codes: tuple[int, ...], told: int) -> None:
    """Processes that lose another fail, too, and may be seen first."""
    processes = [subprocess.Popen([sys.executable, "-c", ending(code)]) for code in codes]
    processes[0].wait()
    assert launch._wait(processes) == told


def ending(code: int) -> str:
    return f"import os, sys; os.kill(os.getpid(), {-code}) if {code} < 0 else sys.exit({code})"


def test_a_process_that_the_kernel_kills_takes_its_worker_along_as_if_there_were_one(tmp_path: Path) -> None:
    program = (
        "import os; from pathlib import Path; from vcppo.studies import launch\n"
        "launch._run_processes = lambda *_: -9\n"
        f"os.environ[{PROCESSES!r}] = '2'; launch.run_cell(Path({str(tmp_path)!r}), Path('.'))"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
