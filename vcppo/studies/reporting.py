"""Events of a running study for its listeners, and watches on its running cells."""

from collections.abc import Callable, Mapping

from vcppo.store.cell_folders import CellRecord
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.pool import log_of
from vcppo.studies.progress import CellEnded, CellProgress, CellStarted, Event, Notice, StudyStarted, WorkerDied
from vcppo.studies.watch import CellWatch

Listener = Callable[[Event], None]


class SweepReporter:
    """Turns what happens to cells into events, and keeps a watch on each cell that runs or has run.

    Args:
        news: lines that the user should read by now, each once, on the servers that mirror the study.
    """

    def __init__(self, ledger: StudyLedger, on_event: Listener, news: Callable[[], list[str]] = list) -> None:
        self._ledger, self._on_event, self._news = ledger, on_event, news
        self._watches: dict[str, CellWatch] = {}

    def study_started(self, workers: int) -> None:
        """Report the work ahead."""
        ledger, study = self._ledger, self._ledger.study
        total = ledger.count() + ledger.unproposed()
        ended = (ledger.count("done"), ledger.count("failed"), ledger.count("pruned"))
        self._on_event(StudyStarted(study.name, study.title, total, *ended, workers))

    def cell_started(self, cell: str, worker: int) -> None:
        """Report that a worker is about to be given a cell."""
        folder = self._ledger.folder_of(cell)
        self._watches[cell] = CellWatch(folder, self._ledger.out, log=log_of(self._ledger.folder / "logs", worker))
        self._on_event(CellStarted(cell, worker, folder.read().attempts + 1))

    def cell_ended(self, record: CellRecord) -> None:
        """Report that a cell is done, failed or pruned."""
        for line in record.notices:
            self.notice(f"{record.cell}: {line}")
        seconds = max(record.finished - record.started, 0.0) if record.finished and record.started else None
        self._on_event(CellEnded(record.cell, record.state, seconds, record.error, record.result))

    def worker_died(self, worker: int, cell: str, reason: str, *, again: bool) -> None:
        """Report that a worker died in a cell."""
        self._on_event(WorkerDied(worker, cell, reason, again))

    def notice(self, text: str) -> None:
        """Report one line that the user should read."""
        self._on_event(Notice(text))

    def look(self, running: Mapping[str, int]) -> None:
        """Report how far each running cell is, by the worker that runs it, and what is new of the mirrors."""
        self.report_news()
        for cell, worker in running.items():
            self._on_event(CellProgress(cell, worker, self._watches[cell].look()))
            for text in self._watches[cell].remarks():
                self.notice(text)

    def report_news(self) -> None:
        """Report what is new of the mirrors."""
        for text in self._news():
            self.notice(text)

    def watch(self, cell: str) -> CellWatch:
        """Return the watch on a cell."""
        if cell not in self._watches:  # it was done before this process began
            self._watches[cell] = CellWatch(self._ledger.folder_of(cell), self._ledger.out)
            self._watches[cell].look()
        return self._watches[cell]
