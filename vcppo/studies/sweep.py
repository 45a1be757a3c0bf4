"""A study run to its end by worker processes: every cell ends once, whatever dies on the way.

A cell's state is that of its folder alone. The process here holds the study's lock, keeps its ledger, has its
dispatcher give cells to workers, and may be killed at any moment: the next one reads the folders and goes on.
"""

import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from vcppo.errors import StudyError
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.dispatcher import Dispatcher
from vcppo.studies.execution import Execution
from vcppo.studies.mirror import TrialMirror
from vcppo.studies.pool import Pool
from vcppo.studies.progress import Notice
from vcppo.studies.reporting import Listener, SweepReporter
from vcppo.studies.study import Study
from vcppo.studies.worker_locks import await_workers
from vcppo.system import disk
from vcppo.system.files import move_aside
from vcppo.system.processes import INTERRUPTED, interrupts, locked
from vcppo.system.redaction import redacted

LAST_WORDS_S = {False: 30.0, True: 5.0}  # for the uploader to finish: at a study's end, after Ctrl-C


class Uploader(Protocol):
    """Sends journals and records to a tracking server, in a separate thread."""

    @property
    def replay_command(self) -> str:
        """The command that delivers the rest."""
        ...

    def news(self) -> list[str]:
        """Lines for the user on the state of the server, each once."""

    def start(self) -> None:
        """Begin to send what cells write, every few seconds."""

    def close(self, timeout_s: float) -> int:
        """Deliver the rest, and stop; the number of records that only the disk has."""


@dataclass(frozen=True)
class StudyOutcome:
    """Outcome of `run_study`. Counts are of cells."""

    folder: Path
    done: int
    failed: int
    pruned: int
    left: int
    failures: tuple[tuple[str, str], ...]  # (cell, error)
    wall_s: float
    interrupted: bool
    undelivered_records: int = 0  # that MLflow lacks, and the disk has
    undelivered_trials: int = 0  # that Optuna's storage lacks, and the folders have

    @property
    def undelivered(self) -> int:
        """Records and trials together."""
        return self.undelivered_records + self.undelivered_trials

    @property
    def exit_code(self) -> int:
        """0 if all is done, 1 if a cell failed, 130 after Ctrl-C."""
        return INTERRUPTED if self.interrupted else int(self.failed > 0)


@disk.writing()
def run_study(
    study: Study,
    execution: Execution,
    *,
    on_event: Listener = lambda event: None,
    uploader: Uploader | None = None,
) -> StudyOutcome:
    """Run what is left of a study.

    Raises:
        ConfigError: a run of the study is not valid; nothing has been started.
        StudyError: another process runs this study, or a worker that it left on another machine; the study has changed
            under its cells, the storage cannot be opened, or workers cannot start.
        DiskError: the disk is full, or refuses; the same call goes on.
        KeyboardInterrupt: Ctrl-C or SIGTERM came before any cell could be begun.
    """
    study.validate_all()
    execution = replace(execution, out=execution.out.resolve())
    folder = execution.out / "studies" / study.name
    began = time.monotonic()
    logs = folder / "logs"
    with locked(folder) as lock, interrupts() as interrupted:
        await_workers(logs, interrupted)
        if execution.fresh:
            move_aside(folder)
        try:
            ledger = StudyLedger(study, execution, warn=lambda text: on_event(Notice(text)), interrupted=interrupted)
            sources = [ledger.mirror.news, *([uploader.news] if uploader is not None else [])]
            reporter = SweepReporter(ledger, on_event, lambda: [line for news in sources for line in news()])
            reporter.study_started(execution.workers)
            size = min(execution.workers, len(ledger.queue) + ledger.unproposed())
            processes = execution.processes
            pool = execution.make_pool(size, runner=execution.runner, logs=logs, processes=processes, lock=lock)
            sources.append(pool.news)
            dispatcher = Dispatcher(ledger, pool, reporter)
            undelivered = _drain(dispatcher, pool, reporter, interrupted, uploader, ledger.mirror)
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            reason = redacted(" ".join(str(error).split()))
            raise StudyError(
                f"the storage of study {study.name} failed ({reason}); what its cells did is safe in {folder}: "
                "the same command goes on when the storage is back"
            ) from error
        outcome = _outcome(ledger, time.monotonic() - began, interrupted.is_set(), undelivered)
    if outcome.interrupted:
        on_event(Notice(f"stopped with {outcome.left} cells to go; the same command goes on from here"))
    return outcome


def _drain(
    dispatcher: Dispatcher,
    pool: Pool,
    reporter: SweepReporter,
    interrupted: threading.Event,
    uploader: Uploader | None,
    mirror: TrialMirror,
) -> tuple[int, int]:
    """Let workers run what is queued, and the uploader send what they write; leave neither behind.

    Returns:
        The numbers of records and of trials that only the disk has.
    """
    records = trials = 0
    try:
        if uploader is not None:
            uploader.start()
        dispatcher.run(interrupted)
    finally:
        pool.close()
        dispatcher.take_back()
        patience_s = LAST_WORDS_S[interrupted.is_set()]
        records = uploader.close(patience_s) if uploader is not None else 0
        trials = mirror.close(patience_s)
        reporter.report_news()
        if trials:
            reporter.notice(f"{trials} trials are not in Optuna's storage yet; the same command enters them")
        if uploader is not None and records:
            reporter.notice(
                f"{records} records are not with the tracking server yet; {uploader.replay_command} sends them"
            )
    return records, trials


def _outcome(ledger: StudyLedger, wall_s: float, interrupted: bool, undelivered: tuple[int, int]) -> StudyOutcome:
    return StudyOutcome(
        folder=ledger.folder,
        done=ledger.count("done"),
        failed=ledger.count("failed"),
        pruned=ledger.count("pruned"),
        left=ledger.count("queued", "running") + ledger.unproposed(),
        failures=tuple((cell, ledger.folder_of(cell).read().error or "") for cell in ledger.in_state("failed")),
        wall_s=wall_s,
        interrupted=interrupted,
        undelivered_records=undelivered[0],
        undelivered_trials=undelivered[1],
    )
