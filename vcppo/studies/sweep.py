"""A study run to its end by worker processes: every cell ends once, whatever dies on the way.

What a cell did is known by its folder alone. The process here holds the study's lock, gives cells to workers, asks
and tells Optuna, and may be killed at any moment: the next one reads the folders and goes on.
"""

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import sqlalchemy.exc
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from vcppo.errors import ConfigError, StudyError
from vcppo.store.cache import Address, addresses
from vcppo.store.run_folders import ENDED, CellFolder, CellRecord, State, check_same_settings
from vcppo.studies.pool import Answer, Death, WorkerPool
from vcppo.studies.progress import CellEnded, CellProgress, CellStarted, Event, Notice, StudyStarted, WorkerDied
from vcppo.studies.study import Cell, Study
from vcppo.studies.trials import Scoreboard, distributions, grid_params, open_storage, signature
from vcppo.studies.watch import CellWatch
from vcppo.studies.worker import PIPELINE
from vcppo.system.files import move_aside, read_json, write_json
from vcppo.system.processes import INTERRUPTED, interrupts, locked
from vcppo.system.redaction import redacted

TICK_S = 0.25  # longest wait for workers
LOOK_S = 1.0  # between looks at the journals of running cells
MAX_DEATHS = 3  # of workers in one cell before it is given up
LAST_WORDS_S = {False: 30.0, True: 5.0}  # for the courier to finish: at a study's end, after Ctrl-C

Listener = Callable[[Event], None]


class Courier(Protocol):
    """Whoever carries journals and records to a tracking server, in a thread of its own."""

    def start(self) -> None:
        """Begin to deliver what cells write, every few seconds."""

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
    courier: Courier | None = None,
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
    with locked(folder), interrupts() as interrupted:
        if fresh:
            move_aside(folder)
        try:
            sweep = _Sweep(study, tuple(seeds), out, folder, storage, retry_failed, on_event)
            on_event(sweep.started(workers))
            _drain(sweep, workers, runner, processes, interrupted, courier)
        except (StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
            reason = redacted(" ".join(str(error).split()))
            raise StudyError(
                f"the storage of study {study.name} failed ({reason}); what its cells did is safe in {folder}: "
                "the same command goes on when the storage is back"
            ) from error
        outcome = sweep.outcome(time.monotonic() - began, interrupted.is_set())
    if outcome.interrupted:
        on_event(Notice(f"stopped with {outcome.left} cells to go; the same command goes on from here"))
    return outcome


def _drain(
    sweep: "_Sweep",
    workers: int,
    runner: str,
    processes: int,
    interrupted: threading.Event,
    courier: Courier | None,
) -> None:
    """Have workers run what is queued, and the courier carry what they write; leave neither behind."""
    size = min(workers, sweep.most_at_once())
    pool = WorkerPool(size, runner=runner, logs=sweep.folder / "logs", processes=processes)
    try:
        if courier is not None:
            courier.start()
        sweep.run(pool, interrupted)
    finally:
        pool.close()
        sweep.take_back()
        kept = courier.close(LAST_WORDS_S[interrupted.is_set()]) if courier is not None else 0
        if kept:
            sweep.on_event(
                Notice(f"{kept} records are not with the tracking server yet; `vcppo track replay` sends them")
            )


@dataclass
class _Group:
    """The cells that one trial is the score of: one in a grid, one a seed in a search."""

    name: str
    params: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)


class _Sweep:
    """The state of a running study."""

    def __init__(
        self,
        study: Study,
        seeds: tuple[int, ...],
        out: Path,
        folder: Path,
        storage: str | None,
        retry_failed: bool,
        on_event: Listener,
    ) -> None:
        self.study, self.seeds, self.out, self.folder, self.on_event = study, seeds, out, folder, on_event
        self.retry_failed = retry_failed
        self.states: dict[str, State] = {}
        self.groups: dict[str, _Group] = {}
        self.group_of: dict[str, _Group] = {}
        self.queue: list[Cell] = []
        self.deaths: Counter[str] = Counter()
        self.watches: dict[str, CellWatch] = {}
        self.stages: dict[str, list[Address]] = {}
        grid = study.cells(seeds) if study.search is None else []
        for cell in grid:
            if self.folder_of(cell.name).exists():
                check_same_settings(self.folder_of(cell.name), cell.settings)
        space = distributions(study)
        self.board = Scoreboard(open_storage(storage, folder), self._optuna_name(signature(space)), study, space)
        for cell in grid:
            self._enlist(_Group(cell.name, grid_params(cell, space), [cell]))
        if study.search is not None:
            self._resume_search()

    # What there is

    def folder_of(self, cell: str) -> CellFolder:
        return CellFolder(self.folder / "cells" / cell)

    def started(self, workers: int) -> StudyStarted:
        counts = Counter(self.states.values())
        total = len(self.states) + self._proposals_left() * len(self.seeds)
        study = self.study
        return StudyStarted(study.name, study.title, total, counts["done"], counts["failed"], counts["pruned"], workers)

    def most_at_once(self) -> int:
        return len(self.queue) + self._proposals_left() * len(self.seeds)

    def outcome(self, wall_s: float, interrupted: bool) -> StudyOutcome:
        counts = Counter(self.states.values())
        failed = [cell for cell, state in self.states.items() if state == "failed"]
        return StudyOutcome(
            folder=self.folder,
            done=counts["done"],
            failed=counts["failed"],
            pruned=counts["pruned"],
            left=counts["queued"] + counts["running"] + self._proposals_left() * len(self.seeds),
            failures=tuple((cell, self.folder_of(cell).read().error or "") for cell in failed),
            wall_s=wall_s,
            interrupted=interrupted,
        )

    def _proposals_left(self) -> int:
        return max(0, self.study.search.trials - len(self.groups)) if self.study.search is not None else 0

    def _optuna_name(self, space: str) -> str:
        """The Optuna study's name, its own for each folder, so that two folders may share a database.

        A grid whose choices have changed gets a new one, into which its ended cells are entered again.
        """
        file = self.folder / "study.json"
        before = read_json(file) if file.exists() else None
        fresh = before is None or before["space"] != space
        if before is not None and self.study.search is not None:
            if fresh:
                raise self._changed("[search.space] has other dimensions or choices")
            if before["seeds"] != list(self.seeds):
                raise self._changed(f"its trials were scored on seeds {before['seeds']}, now {list(self.seeds)}")
        name = f"{self.study.name}-{uuid.uuid4().hex[:6]}" if before is None or fresh else before["optuna_study"]
        definition = self.study.model_dump(mode="json")
        summary = {"study": self.study.name, "title": self.study.title, "why": self.study.why}
        own = {"definition": definition, "seeds": list(self.seeds), "optuna_study": name, "space": space}
        write_json(file, summary | own)
        return str(name)

    def _changed(self, what: str) -> StudyError:
        return StudyError(
            f"search {self.study.name} in {self.folder} has changed: {what}; its trials can no longer be compared. "
            "Give another --out, another study name, or --fresh to move the old study aside and begin anew"
        )

    # Cells and trials, made to agree

    def _enlist(self, group: _Group) -> None:
        """Make the group's folders and its trial what they should be, and queue what is still to run."""
        self.groups[group.name] = group
        for cell in group.cells:
            self.group_of[cell.name] = group
            self.stages[cell.name] = list(addresses(cell.settings).values())
            self.states[cell.name] = self._prepare(cell)
        unfinished = [cell for cell in group.cells if self.states[cell.name] not in ENDED]
        trial = self.board.trial(group.name)
        outdated = trial is not None and trial.state.is_finished() and trial.state != self._verdict(group)
        if trial is None or outdated:
            self.board.enqueue(group.name, group.params)
        self.queue += unfinished
        if not unfinished:
            self._settle(group)

    def _prepare(self, cell: Cell) -> State:
        folder = self.folder_of(cell.name)
        if not folder.exists():
            record = CellRecord(study=self.study.name, cell=cell.name, arm=cell.arm, seed=cell.seed, swept=cell.swept)
            CellFolder.create(folder.path, record, cell.settings)
            return "queued"
        check_same_settings(folder, cell.settings)
        state = self._scored(folder.read()).state
        if state in ENDED and not (state == "failed" and self.retry_failed):
            return state
        folder.update(state="queued")
        return "queued"

    def _verdict(self, group: _Group) -> TrialState | None:
        """What the group's trial should say, None while a cell has not ended."""
        states = {self.states[cell.name] for cell in group.cells}
        if not states <= set(ENDED):
            return None
        if "failed" in states or not states:
            return TrialState.FAIL
        return TrialState.PRUNED if "pruned" in states else TrialState.COMPLETE

    def _settle(self, group: _Group) -> None:
        """Tell Optuna how a group ended, once."""
        verdict, trial = self._verdict(group), self.board.trial(group.name)
        if verdict is None or trial is None or trial.state.is_finished():
            return
        records = [self.folder_of(cell.name).read() for cell in group.cells]
        scores = [score for record in records if (score := record.result.get(self.study.objective)) is not None]
        errors = [f"{record.cell}: {record.error}" for record in records if record.state == "failed"]
        value = sum(scores) / len(scores) if verdict == TrialState.COMPLETE else None
        self.board.finish(group.name, verdict, value, "; ".join(errors) or None)

    def _resume_search(self) -> None:
        if not self.board.names() and any((self.folder / "cells").glob("*/cell.json")):
            raise StudyError(
                f"{self.folder} holds cells of a search whose trials are not in this storage: give the --storage it "
                "was begun with, or --fresh to move the old study aside and begin anew"
            )
        for name in self.board.names():
            self._enlist_trial(name, self.board.params(name))

    def _enlist_trial(self, name: str, params: dict[str, Any]) -> None:
        try:
            cells = self.study.trial_cells(name, params, self.seeds)
        except ConfigError as error:
            self.groups[name] = _Group(name, params)
            self.on_event(Notice(f"{name} FAILED: {error}"))
            trial = self.board.trial(name)
            if trial is not None and not trial.state.is_finished():
                self.board.finish(name, TrialState.FAIL, error=str(error))
            return
        self._enlist(_Group(name, params, cells))

    # Running

    def run(self, pool: WorkerPool, interrupted: threading.Event) -> None:
        looked = 0.0
        while not interrupted.is_set():
            self._dispatch(pool)
            if not pool.running() and not self.queue and not self._proposals_left():
                break
            for happening in pool.listen(TICK_S):
                self._hear(happening)
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                self._look(pool)

    def take_back(self) -> None:
        """After the workers are gone: a cell that was running is queued again, unless it ended at the last moment."""
        for cell in [cell for cell, state in self.states.items() if state == "running"]:
            record = self.folder_of(cell).read()
            if record.state in ENDED:
                self._ended(record)
            else:
                self._requeue(cell)

    def _dispatch(self, pool: WorkerPool) -> None:
        for worker in pool.idle():
            while not self.queue and self._proposals_left():
                self._enlist_trial(*self.board.propose())
            if not self.queue:
                return
            cell = self.queue.pop(pick([self._keys(c.name) for c in self.queue], self._busy(pool.running())))
            folder = self.folder_of(cell.name)
            self.board.begin(self.group_of[cell.name].name)
            self.states[cell.name] = "running"
            self.watches[cell.name] = CellWatch(folder, self.out)
            self.on_event(CellStarted(cell.name, worker, folder.read().attempts + 1))
            pool.give(worker, folder.path, self.out)

    def _keys(self, cell: str) -> set[str]:
        return {f"{address.stage}/{address.key}" for address in self.stages[cell]}

    def _busy(self, running: Mapping[str, int]) -> set[str]:
        """Stages that running cells compute now, or will have to."""
        wanted = set().union(*(self._keys(cell) for cell in running))
        return {key for key in wanted if not (self.out / "cache" / key / "done.json").exists()}

    def _hear(self, happening: Answer | Death) -> None:
        if isinstance(happening, Answer):
            self._ended(self.folder_of(happening.cell).read())
            return
        cell = happening.cell
        if cell is None:
            return
        record = self.folder_of(cell).read()
        if record.state in ENDED:  # it died between its last word to the disk and its answer
            self._ended(record)
            return
        self.deaths[cell] += 1
        again = self.deaths[cell] < MAX_DEATHS
        self.on_event(WorkerDied(happening.worker, cell, happening.reason, again))
        if again:
            self._requeue(cell)
            return
        error = f"worker died {MAX_DEATHS} times, last by {happening.reason}; see logs/worker-{happening.worker}.log"
        self._ended(self.folder_of(cell).update(state="failed", finished=time.time(), error=error))

    def _requeue(self, cell: str) -> None:
        self.folder_of(cell).update(state="queued")
        self.states[cell] = "queued"
        self.queue.insert(0, next(c for c in self.group_of[cell].cells if c.name == cell))

    def _ended(self, record: CellRecord) -> None:
        record = self._scored(record)
        self.states[record.cell] = record.state
        seconds = record.finished - record.started if record.finished and record.started else None
        self.on_event(CellEnded(record.cell, record.state, seconds, record.error, record.result))
        self._settle(self.group_of[record.cell])

    def _scored(self, record: CellRecord) -> CellRecord:
        """The record; of a run without the result that the study scores it by, as failed."""
        objective = self.study.objective
        if record.state != "done" or record.result.get(objective) is not None:
            return record
        have = ", ".join(name for name, value in record.result.items() if value is not None) or "none"
        error = f"the run has no finite result {objective}, by which the study scores it; it has {have}"
        return self.folder_of(record.cell).update(state="failed", error=error)

    # Looking at what runs

    def _look(self, pool: WorkerPool) -> None:
        for cell, worker in pool.running().items():
            self.on_event(CellProgress(cell, worker, self.watches[cell].look()))
        if self.study.search is not None and self.study.search.pruner is not None:
            groups = {self.group_of[cell].name: self.group_of[cell] for cell in pool.running()}
            for group in groups.values():
                if self._report(group, self.study.search.pruner.interval_steps):
                    self._prune(group, pool)

    def _report(self, group: _Group, interval: int) -> bool:
        """Tell the pruner of every `interval`-th iteration that all begun seeds have reached; whether it gives up."""
        begun = [self._watch(cell.name) for cell in group.cells if self.states[cell.name] in ("running", "done")]
        step = self.board.last_step(group.name)
        while True:
            step = (step // interval + 1) * interval
            values = [watch.recent_accuracy(step) for watch in begun]
            reached = [value for value in values if value is not None]
            if len(reached) < len(values):
                return False
            if self.board.report(group.name, step, sum(reached) / len(reached)):
                return True

    def _watch(self, cell: str) -> CellWatch:
        if cell not in self.watches:  # it was done before this process began
            self.watches[cell] = CellWatch(self.folder_of(cell), self.out)
            self.watches[cell].look()
        return self.watches[cell]

    def _prune(self, group: _Group, pool: WorkerPool) -> None:
        names = {cell.name for cell in group.cells}
        self.queue = [cell for cell in self.queue if cell.name not in names]
        running = pool.running()
        for name in [cell.name for cell in group.cells if self.states[cell.name] not in ENDED]:
            if name in running:
                pool.stop(running[name])
            record = self.folder_of(name).read()
            if record.state not in ENDED:
                record = self.folder_of(name).update(state="pruned", finished=time.time())
            self._ended(record)


def pick(waiting: Sequence[set[str]], busy: set[str]) -> int:
    """Which waiting cell to start: the first of those that need the fewest stages others are busy computing.

    Two workers would otherwise take neighbouring cells, and one would wait for the stage that both need.

    >>> pick([{"cold-start/a", "rl/1"}, {"cold-start/b", "rl/2"}], busy={"cold-start/a"})
    1
    """
    return min(range(len(waiting)), key=lambda index: len(waiting[index] & busy))
