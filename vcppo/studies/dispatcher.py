"""The dispatcher of a study: gives queued cells to workers, records how they end, and stops what a pruner gives up."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress

from vcppo.errors import DiskError
from vcppo.store.cache import unfinished
from vcppo.store.cell_folders import ENDED, CellRecord
from vcppo.studies.cell_states import StudyLedger, TrialCells
from vcppo.studies.pool import Death, Pool, Reply
from vcppo.studies.reporting import SweepReporter

TICK_S = 0.25  # longest wait for workers
LOOK_S = 1.0  # between looks at the journals of running cells
LOOK_AHEAD = 200  # waiting cells among which the next is picked
MAX_DEATHS = 3  # of workers in one cell before it is given up; machines that were lost do not count


class Dispatcher:
    """Runs a ledger's queued cells, and records their outcomes in it."""

    def __init__(self, ledger: StudyLedger, pool: Pool, reporter: SweepReporter) -> None:
        self._ledger, self._pool, self._reporter = ledger, pool, reporter
        self._deaths: Counter[str] = Counter()

    def run(self, interrupted: threading.Event) -> None:
        """Until every cell has ended, or until the event is set.

        Raises:
            DiskError: a worker cannot write: its cell stays queued, as all that would meet the same.
            StudyError: workers cannot run anything.
        """
        looked = 0.0
        while not interrupted.is_set():
            self._give_cells()
            if not self._pool.running() and not self._ledger.queue and not self._ledger.unproposed():
                break
            for event in self._pool.listen(TICK_S):
                self._handle(event)
            if time.monotonic() - looked >= LOOK_S:
                looked = time.monotonic()
                self._reporter.look(self._pool.running())
                self._prune()

    def take_back(self) -> None:
        """Queue cells again that were running when the workers went, unless they ended at the last moment."""
        for cell in self._ledger.in_state("running"):
            record = self._ledger.folder_of(cell).read()
            if record.state in ENDED:
                self._end(record)
            else:
                with suppress(DiskError):  # its record says that it runs, which the next process takes for queued
                    self._ledger.requeue(cell)

    def _give_cells(self) -> None:
        ledger = self._ledger
        for worker in self._pool.idle():
            ledger.propose()
            if not ledger.queue:
                return
            waiting = [ledger.stages_of(cell) for cell in ledger.queue[:LOOK_AHEAD]]
            cell = ledger.queue.pop(pick(waiting, self._busy(self._pool.running())))
            ledger.begin(cell)
            self._reporter.cell_started(cell.name, worker)
            self._pool.give(worker, ledger.folder_of(cell.name).path, self._ledger.out)

    def _busy(self, running: Mapping[str, int]) -> set[str]:
        """Return the stages that running cells compute now, or will have to."""
        ledger = self._ledger
        return set().union(*(unfinished(ledger.out, ledger.settings_of(cell)) for cell in running))

    def _handle(self, event: Reply | Death) -> None:
        folder_of = self._ledger.folder_of
        if isinstance(event, Reply) and event.disk is not None:
            raise DiskError(event.disk)
        if isinstance(event, Reply):
            self._end(folder_of(event.cell).read())
            return
        cell = event.cell
        if cell is None:
            return
        record = folder_of(cell).read()
        if record.state in ENDED:  # it died between its last write and its reply
            self._end(record)
            return
        self._deaths[cell] += not event.machine_lost
        again = self._deaths[cell] < MAX_DEATHS
        self._reporter.worker_died(event.worker, cell, event.reason, again=again)
        if again:
            self._ledger.requeue(cell)
            return
        error = f"worker died {MAX_DEATHS} times, last by {event.reason}; see logs/worker-{event.worker}.log"
        self._end(folder_of(cell).update(state="failed", finished=time.time(), error=error))

    def _end(self, record: CellRecord) -> None:
        record = self._ledger.end(record)
        self._reporter.cell_ended(record)
        self._ledger.settle(self._ledger.trial_of(record.cell))

    # Giving up poor trials

    def _prune(self) -> None:
        search = self._ledger.study.search
        if search is None or search.pruner is None:
            return
        trials = {trial.name: trial for trial in map(self._ledger.trial_of, self._pool.running())}
        for trial in trials.values():
            if self._is_given_up(trial, search.pruner.interval_steps):
                self._stop(trial)

    def _is_given_up(self, trial: TrialCells, interval: int) -> bool:
        """Report every `interval`-th iteration that all begun seeds have reached; whether the pruner stops it."""
        states, scores = self._ledger.states, []
        begun = [self._reporter.watch(c.name) for c in trial.cells if states[c.name] in ("running", "done")]
        for step in itertools.count(0, interval):
            values = [watch.recent_accuracy(step) for watch in begun]
            reached = [value for value in values if value is not None]
            if len(reached) < len(values):
                break
            scores.append((step, sum(reached) / len(reached)))
        return bool(scores) and self._ledger.report(trial, scores)

    def _stop(self, trial: TrialCells) -> None:
        running = self._pool.running()
        for cell in self._ledger.withdraw(trial):
            if cell in running:
                self._pool.stop(running[cell])
            folder = self._ledger.folder_of(cell)
            record = folder.read()
            if record.state not in ENDED:
                record = folder.update(state="pruned", finished=time.time())
            self._end(record)


def pick(waiting: Sequence[set[str]], busy: set[str]) -> int:
    """Return which waiting cell to start: the first of those that need the fewest stages others are busy computing.

    Two workers would otherwise take neighbouring cells, and one would wait for the stage that both need.

    >>> pick([{"cold-start/a", "rl/1"}, {"cold-start/b", "rl/2"}], busy={"cold-start/a"})
    1
    """
    return min(range(len(waiting)), key=lambda index: len(waiting[index] & busy))
