"""Whom a cell waits for, and that it gives no sign of life: in the progress at once, and in `vcppo status`."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_cells import Bench, study
from fake_study import FakeStudy, iterate
from tiny import ASSIGNMENTS, tiny

from vcppo.cli.main import main
from vcppo.settings.fixed import SILENT_CELL_S
from vcppo.settings.loading import parse_assignment
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder
from vcppo.store.stage_lock import Holder, holder_of_stage
from vcppo.store.stage_progress import write_progress
from vcppo.studies.progress import CellProgress, Notice, describe
from vcppo.studies.status import study_status
from vcppo.studies.watch import CellWatch, Glance
from vcppo.system.files import file_lock
from vcppo.system.processes import locked

SHORT = "cold_start.steps=2"
HOST = socket.gethostname()
HOLD = """
import select, sys
from pathlib import Path
from vcppo.store.stage_lock import stage_lock
Path(sys.argv[1]).mkdir(parents=True, exist_ok=True)
with stage_lock(Path(sys.argv[1]), sys.argv[2], print):
    print("held", flush=True)
    select.select([sys.stdin], [], [], 20)
"""


class Other:
    """Another process, which computes a stage until it is told to end."""

    def __init__(self, folder: Path, cell: str = "theirs/ppo-s0") -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), cell], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "held\n"

    @property
    def words(self) -> str:
        return f"process {self.process.pid} on {HOST} computes for theirs/ppo-s0"

    def end(self) -> None:
        self.process.communicate("")


@pytest.fixture
def stage(tmp_path: Path) -> StageFolder:
    return StageFolder(tmp_path / "out", addresses(tiny(SHORT))["cold-start"])


@pytest.fixture
def other(stage: StageFolder) -> Iterator[Other]:
    other = Other(stage.path)
    yield other
    other.process.kill()
    other.end()


def test_who_waits_for_a_stage_learns_for_whom_and_then_has_it(stage: StageFolder, other: Other) -> None:
    said: list[str] = []

    def on_wait(holder: str) -> None:
        said.append(holder)
        other.end()

    assert holder_of_stage(stage.path) == Holder(other.process.pid, HOST, "theirs/ppo-s0")
    with stage.lock("mine/ppo-s0", on_wait):
        assert holder_of_stage(stage.path) == Holder(os.getpid(), HOST, "mine/ppo-s0")
    assert said == [other.words]
    assert holder_of_stage(stage.path) is None


def test_it_is_said_again_when_it_is_somebody_else_and_not_of_one_who_signs_nothing(stage: StageFolder) -> None:
    said: list[str] = []
    stage.path.mkdir(parents=True)
    with file_lock(stage.path / "lock") as lock:
        turns = iter([lambda: lock.write(json.dumps({"process": 7, "host": "h", "cell": ""})), lock.close])

        def on_wait(holder: str) -> None:
            said.append(holder)
            next(turns)()
            if not lock.closed:
                lock.flush()

        patience = threading.Timer(20, lock.close)  # where nothing is said
        patience.start()
        with stage.lock("", on_wait):
            patience.cancel()
    assert said == ["another process holds", "process 7 on h computes"]


def test_a_run_that_does_not_wait_says_nothing(tmp_path: Path, stage: StageFolder) -> None:
    said: list[tuple[str, str, str]] = []
    for _ in range(2):
        run_stages(tiny(SHORT), tmp_path / "out", until="cold-start", on_wait=lambda *words: said.append(words))
    assert said == []


RUNS = """
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder
from vcppo.settings.loading import parse_assignment
from vcppo.stages.pipeline import run_cell as run_stages_of


def run_cell(cell, out):
    return run_stages_of(cell, out, until="cold-start") | {"final_accuracy": 0.5}
"""


def test_a_study_says_at_once_for_whom_a_cell_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: StageFolder, other: Other
) -> None:
    (tmp_path / "waits.py").write_text(RUNS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notices, glances = list[str](), list[Glance]()
    bench = Bench(tmp_path / "out")
    cell = bench.folder("ppo-s0")
    seen: list[str | None] = []

    def on_event(event: object) -> None:
        if isinstance(event, CellProgress):
            glances.append(event.glance)
        if isinstance(event, Notice):
            notices.append(event.text)
            seen.append(str(cell.read().waits))
            standing = CliRunner().invoke(main, ["status", "grid", "--out", str(bench.out)])
            seen.append(standing.stdout.splitlines()[-1])
            other.end()

    base = dict(parse_assignment(text) for text in (*ASSIGNMENTS, SHORT))
    arms: dict[str, Any] = {"name": "grid", "title": "t", "base": base, "arms": [{"name": "ppo"}]}
    outcome = bench.run(study(arms), seeds=[0], workers=1, on_event=on_event, runner="waits:run_cell")
    assert (outcome.done, outcome.failures) == (1, ())
    line = f"waits for cold-start/{stage.path.name}, which {other.words}"
    assert notices == [f"ppo-s0 {line}"]
    assert seen[0] == line
    assert seen[1] is not None
    assert seen[1].endswith(f", {line}")
    assert line in {glance.waits for glance in glances}
    assert describe(next(glance for glance in glances if glance.waits)).startswith(f"{line}: 0/")
    record = cell.read()
    assert record.waits is None
    assert [known.stage for known in record.stages] == ["cold-start"]


def test_a_cell_that_was_killed_while_it_waited_waits_no_more(tmp_path: Path) -> None:
    cell = FakeStudy(tmp_path).cell("ppo-s0")
    cell.add_wait("rl", "a", "process 7 on h computes")
    assert str(cell.read().waits) == "waits for rl/a, which process 7 on h computes"
    assert cell.update(state="queued").waits is None
    cell.add_wait("rl", "a", "process 7 on h computes")
    assert cell.add_stage("rl", "a", ran=True).waits is None


# ---- a cell that writes nothing ----


class Clock:
    now = 1e6

    def __call__(self) -> float:
        return self.now


def watched(out: Path) -> tuple[CellFolder, Path, Clock, CellWatch]:
    fake = FakeStudy(out)
    cell = fake.cell("ppo-s0")
    stage = fake.enter(cell, "rl", "a")
    clock = Clock()
    return cell, stage.folder, clock, CellWatch(cell, out, clock, Path("logs/worker-3.log"))


def test_a_silent_cell_is_told_once_with_what_can_be_done(tmp_path: Path) -> None:
    _, folder, clock, watch = watched(tmp_path)
    with Held(folder):
        watch.look()
        clock.now += SILENT_CELL_S - 1
        assert watch.look().silent_s is None
        assert watch.remarks() == []
        clock.now += 1
        glance = watch.look()
        assert glance.silent_s == SILENT_CELL_S
        assert describe(glance).endswith("no sign of life for 10 min 0 s")
        (line,) = watch.remarks()
    assert line.startswith("ppo-s0 no sign of life for 10 min 0 s, in rl; see logs/worker-3.log. A large model ")
    assert f"If it hangs: kill -9 {os.getpid()} on {HOST}, after which it is run again, or stop the command" in line
    clock.now += 20 * SILENT_CELL_S
    watch.look()
    assert watch.remarks() == []


class Held(StageFolder):
    """A stage's folder, held by this process."""

    def __init__(self, folder: Path) -> None:
        self.path = folder
        self._lock = self.lock("components/ppo-s0")

    def __enter__(self) -> None:
        self._lock.__enter__()

    def __exit__(self, *error: object) -> None:
        self._lock.__exit__(None, None, None)


@pytest.mark.parametrize("what", ["journal", "tokens", "checkpoint", "record", "verl"])
def test_whatever_it_writes_is_a_sign_of_life(tmp_path: Path, what: str) -> None:
    cell, folder, clock, watch = watched(tmp_path)
    (folder / "verl").mkdir()
    (folder / "verl" / "verl.log").write_text("")
    iterate(FakeStudy(tmp_path).enter(cell, "rl", "a").journal, 0)
    watch.look()
    clock.now += SILENT_CELL_S - 1
    match what:
        case "journal":
            iterate(FakeStudy(tmp_path).enter(cell, "rl", "a").journal, 1)
        case "tokens":
            write_progress(folder, tokens=1, expected=2, seconds=1.0)
        case "checkpoint":
            (folder / "state.pt").write_bytes(b"state")
        case "record":
            cell.add_stage("evaluation", "b", ran=True)
        case "verl":
            (folder / "verl" / "verl.log").write_text("step 1")
    watch.look()
    clock.now += SILENT_CELL_S - 1
    assert watch.look().silent_s is None
    assert watch.remarks() == []


def test_the_next_silence_is_told_when_it_is_twice_as_long(tmp_path: Path) -> None:
    _, folder, clock, watch = watched(tmp_path)
    told: list[int] = []
    for silent_s in (1.0, 1.5, 2.0, 3.0):
        write_progress(folder, tokens=len(told), expected=2, seconds=clock.now)
        watch.look()
        clock.now += silent_s * SILENT_CELL_S
        watch.look()
        told.append(len(watch.remarks()))
    assert told == [1, 0, 1, 0]


def test_a_cell_that_no_worker_has_begun_is_not_silent(tmp_path: Path) -> None:
    """On a cluster it may wait for a place, which the pool says."""
    cell, _, clock, watch = watched(tmp_path)
    cell.update(state="queued")
    watch.look()
    clock.now += 2 * SILENT_CELL_S
    assert watch.look().silent_s is None
    cell.update(state="running")
    assert watch.look().silent_s is None


def test_status_says_that_a_running_cell_is_silent_and_not_of_one_that_nobody_runs(tmp_path: Path) -> None:
    cell, folder, _, _ = watched(tmp_path)
    cell.update(attempts=1)
    long_ago = time.time() - 2 * SILENT_CELL_S
    for place in (cell.path / "cell.json", *folder.iterdir(), folder):
        os.utime(place, (long_ago, long_ago))
    assert study_status(tmp_path, "components").cells[0].silence is None
    with locked(tmp_path / "studies" / "components"):
        silence = study_status(tmp_path, "components").cells[0].silence
        done = CliRunner().invoke(main, ["status", "components", "--out", str(tmp_path)])
    assert silence is not None
    assert silence.startswith("no sign of life for 20 min ")
    assert "If it hangs: stop the command and give it again" in silence
    assert done.stdout.splitlines()[-1].startswith("    no sign of life for 20 min ")
    write_progress(folder, tokens=1, expected=2, seconds=1.0)
    with locked(tmp_path / "studies" / "components"):
        assert study_status(tmp_path, "components").cells[0].silence is None
