"""A study run to its end by worker processes: every cell ends once, whatever dies on the way.

A cell's state is that of its folder alone. The process here holds the study's lock, keeps its ledger, has its
dispatcher give cells to workers, and may be killed at any moment: the next one reads the folders and goes on.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError

from vcppo.errors import StudyError
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.dispatcher import Dispatcher
from vcppo.studies.pool import WorkerPool
from vcppo.studies.progress import Notice
from vcppo.studies.reporting import Listener, SweepReporter
from vcppo.studies.study import Study
from vcppo.studies.worker import PIPELINE
from vcppo.system.files import move_aside
from vcppo.system.processes import INTERRUPTED, interrupts, locked
from vcppo.system.redaction import redacted

LAST_WORDS_S = {False: 30.0, True: 5.0}  # for the uploader to finish: at a study's end, after Ctrl-C


class Uploader(Protocol):
    """Sends journals and records to a tracking server, in a separate thread."""

    def start(self) -> None:
        """Begin to send what cells write, every few seconds."""

    def close(self, timeout_s: float) -> int:
        """Deliver the rest, and stop; the number of records that only the disk has."""


@dataclass(frozen=True)
class StudyOutcome:
    """How a study stands when `run_study` returns. Counts are of cells."""

    folder: Path
    done: int
    failed: int
    pruned: int
    left: int
    failures: tuple[tuple[str, str], ...]  # (cell, error)
    wall_s: float
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """0 if all is done, 1 if a cell failed, 130 after Ctrl-C."""
        return INTERRUPTED if self.interrupted else int(self.failed > 0)


def run_study(
    study: Study,
    *,
    seeds: Sequence[int],
    workers: int,
    out: Path,
    storage: str | None = None,
    retry_failed: bool = False,
    fresh: bool = False,
    on_event: Listener = lambda event: None,
    uploader: Uploader | None = None,
    runner: str = PIPELINE,
    processes: int = 1,
) -> StudyOutcome:
    """Run what is left of a study.

    Args:
        storage: URL of a database for Optuna; by default a journal file in the study's folder.
        retry_failed: run cells again that failed; otherwise they stay failed.
        fresh: move an old study of this name aside and begin anew; the cache of stages stays.
        runner: module:function called with (cell folder, out) in a worker.
        processes: by which the runner has each cell run; a worker finds the number in its environment.
    Raises:
        ConfigError: a run of the study is not valid; nothing has been started.
        StudyError: another process runs this study, the study has changed under its cells, the storage cannot be
            opened, or workers cannot start.
    """
    study.validate_all()
    out = out.resolve()
    folder = out / "studies" / study.name
    began = time.monotonic()
    with locked(folder) as lock, interrupts() as interrupted:
        if fresh:
            move_aside(folder)
        try:
            ledger = StudyLedger(
                study,
                tuple(seeds),
                out,
                storage,
                retry_failed=retry_failed,
                warn=lambda text: on_event(Notice(text)),
            )
            reporter = SweepReporter(ledger, on_event)
            reporter.study_started(workers)
            size = min(workers, len(ledger.queue) + ledger.unproposed())
            pool = WorkerPool(size, runner=runner, logs=folder / "logs", processes=processes, lock=lock)
            _drain(Dispatcher(ledger, pool, reporter), pool, reporter, interrupted, uploader)
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            reason = redacted(" ".join(str(error).split()))
            raise StudyError(
                f"the storage of study {study.name} failed ({reason}); what its cells did is safe in {folder}: "
                "the same command goes on when the storage is back"
            ) from error
        outcome = _outcome(ledger, time.monotonic() - began, interrupted.is_set())
    if outcome.interrupted:
        on_event(Notice(f"stopped with {outcome.left} cells to go; the same command goes on from here"))
    return outcome


def _drain(
    dispatcher: Dispatcher,
    pool: WorkerPool,
    reporter: SweepReporter,
    interrupted: threading.Event,
    uploader: Uploader | None,
) -> None:
    """Let workers run what is queued, and the uploader send what they write; leave neither behind."""
    try:
        if uploader is not None:
            uploader.start()
        dispatcher.run(interrupted)
    finally:
        pool.close()
        dispatcher.take_back()
        undelivered = uploader.close(LAST_WORDS_S[interrupted.is_set()]) if uploader is not None else 0
        if undelivered:
            reporter.notice(
                f"{undelivered} records are not with the tracking server yet; `vcppo track replay` sends them"
            )


def _outcome(ledger: StudyLedger, wall_s: float, interrupted: bool) -> StudyOutcome:
    return StudyOutcome(
        folder=ledger.folder,
        done=ledger.count("done"),
        failed=ledger.count("failed"),
        pruned=ledger.count("pruned"),
        left=ledger.count("queued", "running") + ledger.unproposed(),
        failures=tuple((cell, ledger.folder_of(cell).read().error or "") for cell in ledger.in_state("failed")),
        wall_s=wall_s,
        interrupted=interrupted,
    )
