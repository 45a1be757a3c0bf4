"""A study as a user has it running, with workers, a tracking server and a database, and what it must end with."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import torch  # noqa: F401 -- loaded once, before anything is forked
from mlflow_server import Server
from postgresql_server import MISSING, PostgreSQL, running
from study_processes import CELLS, STUDY, until
from tiny import ASSIGNMENTS
from torture import oracle

PASSWORD = "Tr0ub4dor-and-3"
PATIENCE_S = 600.0
NOT_DRAWN = 3  # exit code of a study that is done, and whose figures are not: who drew them was killed
UNDELIVERED = 4  # of one that MLflow or Optuna lack some of
MOST_CALLS = 12  # of the same command until all is delivered
SETTINGS = (*(text for text in ASSIGNMENTS if not text.startswith("pretrain.steps")), "steps=8")


class StudyRun:
    """One study in a folder of its own; its records are below `out`.

    Args:
        tracking: port of the tracking server.
        storage: Optuna's; None: its journal.
        out: None: within the folder.
        environment: of the command, beside that of this process.
    """

    def __init__(
        self, folder: Path, tracking: int, storage: str | None, out: Path | None, environment: Mapping[str, str]
    ) -> None:
        folder.mkdir()
        (folder / "faults.toml").write_text(STUDY)
        self.folder, self.out, self.storage = folder, out or folder / "runs", storage
        self.study, self.said = self.out / "studies" / "faults", folder / "said.txt"
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = {
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://ada:{PASSWORD}@127.0.0.1:{tracking}",
            **({} if storage is None else {"VCPPO_STORAGE": storage}),
            **environment,
        }

    def start(self) -> None:
        """Give the command."""
        settings = [word for text in SETTINGS for word in ("--set", text)]
        self._run("sweep", "faults.toml", "--workers", "2", *settings)

    def deliver(self) -> None:
        """Give the command that a study ends with if MLflow lacks some of it."""
        self._run("track", "replay", "faults")
        assert self.process is not None
        self.process.wait(PATIENCE_S)

    def _run(self, *words: str) -> None:
        with open(self.said, "ab") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vcppo", *words, "--out", str(self.out)],
                cwd=self.folder,
                env=self._environment,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )

    def runs(self) -> bool:
        """Return whether the command is running."""
        return self.process is not None and self.process.poll() is None

    def started(self) -> list[psutil.Process]:
        """Return the processes that the command has started, and those that they have."""
        if not self.runs() or self.process is None:
            return []
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """SIGKILL of the command alone: what it started has to end by itself."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def kill_all(self) -> None:
        """SIGKILL of the command and of all that it started, as when a machine goes."""
        if self.process is None:
            return
        for process in self.started():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        self.kill()
        until(lambda: not oracle.processes_in(self.folder))

    def end(self) -> str | None:
        """Give the same command until all is done and delivered; return what is wrong."""
        for _ in range(MOST_CALLS):
            if self.process is None or self.process.poll() is not None:
                self.start()
            assert self.process is not None
            code = self.process.wait(PATIENCE_S)
            if code == 0:
                return None
            if code not in (NOT_DRAWN, UNDELIVERED):
                break
            self.deliver()
        return f"ended with {code}: {' '.join(self.said.read_text(errors='replace').split())[-600:]}"


class Studies:
    """Studies below a folder, on one tracking server and one database, and the undisturbed one."""

    def __init__(self, place: Path, server: Server, database: PostgreSQL | None) -> None:
        self.place, self.server, self.database = place, server, database
        self._runs: list[StudyRun] = []

    def undisturbed(self) -> None:
        """Run the one that others are compared with."""
        whole = self.new(self.server.port)
        began = time.monotonic()
        wrong = whole.end()
        if wrong is not None:
            raise RuntimeError(f"the undisturbed study {wrong}")
        self.seconds = time.monotonic() - began
        self.tables = oracle.exported(whole.out / "results" / "faults")
        self.stages = oracle.measured(whole.out)
        self.trials = oracle.trials(whole.study, whole.storage)
        mlflow = self.server.folder / "server.db"
        self.runs, self._known = oracle.runs_in_mlflow(mlflow, whole.study), oracle.instances(mlflow)
        shutil.rmtree(whole.folder)

    def new(self, tracking: int, out: Path | None = None, environment: Mapping[str, str] | None = None) -> StudyRun:
        """Return a study that has not begun."""
        name, storage = f"study{len(self._runs)}", None
        if self.database is not None:
            storage = self.database.database(name).replace("postgres@", f"postgres:{PASSWORD}@")
        self._runs.append(StudyRun(self.place / name, tracking, storage, out, environment or {}))
        return self._runs[-1]

    def stop(self) -> None:
        """End what still runs."""
        for run in self._runs:
            run.kill_all()

    def wrong_with(self, run: StudyRun) -> str | None:
        """Let a study end; return what is wrong with it then."""
        mlflow = self.server.folder / "server.db"
        return run.end() or oracle.first(
            self._doubled,
            lambda: _left(run.folder),
            lambda: oracle.temporary_in(run.out),
            lambda: _not_done(oracle.states(run.study)),
            lambda: oracle.differing(oracle.exported(run.out / "results" / "faults"), self.tables),
            lambda: oracle.differing(oracle.measured(run.out), self.stages),
            lambda: oracle.miscounted("Optuna", oracle.trials(run.study, run.storage), self.trials),
            lambda: oracle.miscounted("MLflow", oracle.runs_in_mlflow(mlflow, run.study), self.runs),
            lambda: _said(run, PASSWORD),
            lambda: _said(run, "Traceback (most recent call last)"),
        )

    def _doubled(self) -> str | None:
        before, self._known = self._known, oracle.instances(self.server.folder / "server.db")
        new = len(self._known - before)
        return None if new == 1 else f"MLflow has the study {new} times"


def _left(folder: Path) -> str | None:
    left = oracle.processes_in(folder)
    return f"left a process: {left[0]}" if left else None


def _not_done(states: dict[str, str]) -> str | None:
    return None if states == dict.fromkeys(CELLS, "done") else f"cells: {states}"


def _said(run: StudyRun, words: str) -> str | None:
    found = oracle.said_in(run.folder, words) or (
        None if run.out.is_relative_to(run.folder) else oracle.said_in(run.out, words)
    )
    return None if found is None else f"said {words!r}: {found}"


@contextmanager
def studies(place: Path) -> Iterator[Studies]:
    """Start a tracking server, and PostgreSQL for the trials where there is one."""
    (place / "server").mkdir()
    server = Server(place / "server")
    with ExitStack() as stack:
        database = None if MISSING else stack.enter_context(running())
        stack.callback(server.kill)
        server.start()
        every = Studies(place, server, database)
        stack.callback(every.stop)
        every.undisturbed()
        yield every
