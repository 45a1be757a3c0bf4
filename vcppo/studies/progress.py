"""Progress of a study or a run: events, and a view of them for terminals and for logs."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vcppo.store.cell_folders import CellFolder, State
from vcppo.studies.watch import CellWatch, Glance
from vcppo.studies.work_left import PlannedStage, WorkLeft
from vcppo.system.terminal import SummaryTimer, duration, progress_console


@dataclass(frozen=True)
class StudyStarted:
    """The work ahead. The counts are of cells; those done, failed or pruned were so before."""

    study: str
    title: str
    total: int
    done: int
    failed: int
    pruned: int
    workers: int


@dataclass(frozen=True)
class CellStarted:
    """A worker was given a cell."""

    cell: str
    worker: int
    attempt: int


@dataclass(frozen=True)
class CellProgress:
    """Progress of a running cell."""

    cell: str
    worker: int
    glance: Glance


@dataclass(frozen=True)
class CellEnded:
    """A cell is done, failed or pruned; `seconds` since its last start, None if it was never started."""

    cell: str
    state: State
    seconds: float | None = None
    error: str | None = None
    result: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerDied:
    """A worker died in a cell, which will be run again or is given up."""

    worker: int
    cell: str
    reason: str
    again: bool


@dataclass(frozen=True)
class Notice:
    """One line that the user should read."""

    text: str


Event = StudyStarted | CellStarted | CellProgress | CellEnded | WorkerDied | Notice


class ProgressView:
    """Shows events: a live picture on a terminal; elsewhere a line for each ended cell and a summary now and then.

    Use as a context; call with each event, from one thread.

    Args:
        planned: what each cell has to run, where that is known before; else the time left goes by numbers of cells.
    """

    def __init__(
        self,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        planned: Mapping[str, Sequence[PlannedStage]] | None = None,
    ) -> None:
        self.console, self._planned = console or progress_console(), planned or {}
        self._clock = clock
        self._began = clock()
        self._summary = SummaryTimer(clock)
        self._title = ""
        self._total = self._before = 0
        self._work = WorkLeft({}, 0)
        self._ended: dict[State, int] = {"done": 0, "failed": 0, "pruned": 0}
        self._workers: dict[int, tuple[str, Glance]] = {}  # replaced, never changed: the live picture has a thread
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live = Live(console=self.console, get_renderable=self._picture, refresh_per_second=2)
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        match event:
            case StudyStarted():
                self._title, self._total = f"{event.study}: {event.title}", event.total
                self._ended = {"done": event.done, "failed": event.failed, "pruned": event.pruned}
                self._before = sum(self._ended.values())
                self._work = WorkLeft(self._planned, self._total - self._before)
                self._print(f"{self._title}: {event.total} cells, {self._before} ended before, {event.workers} workers")
            case CellStarted():
                self._workers = self._workers | {event.worker: (event.cell, Glance())}
            case CellProgress():
                self._workers = self._workers | {event.worker: (event.cell, event.glance)}
                self._work.see(event.cell, event.glance)
            case CellEnded():
                self._ended[event.state] += 1
                self._forget(event.cell)
                self._work.end(event.cell)
                self._print(f"[{sum(self._ended.values())}/{self._total}] {ending(event)}")
            case WorkerDied():
                self._forget(event.cell)
                fate = "runs again" if event.again else "is given up"
                self._print(f"worker {event.worker} died ({event.reason}); {event.cell} {fate}")
            case Notice():
                self._print(event.text)
        if self._live is None and self._workers and self._summary.is_due():
            self._print(self.summary())

    def summary(self) -> str:
        """Return everything in one line."""
        counts = [f"{sum(self._ended.values())} of {self._total} cells"]
        counts += [f"{number} {state}" for state, number in self._ended.items() if number and state != "done"]
        eta = self._seconds_left()
        left = f", about {duration(eta)} left" if eta is not None else ""
        workers = [f"{index}: {cell} {describe(glance)}" for index, (cell, glance) in sorted(self._workers.items())]
        return " | ".join([f"{', '.join(counts)}, {duration(self._clock() - self._began)} gone{left}", *workers])

    def _forget(self, cell: str) -> None:
        self._workers = {index: entry for index, entry in self._workers.items() if entry[0] != cell}

    def _print(self, line: str) -> None:
        self.console.print(Text(line))

    def _seconds_left(self) -> float | None:
        return self._work.seconds(self._clock() - self._began)

    def _picture(self) -> Group:
        table = Table.grid(padding=(0, 2))
        for index, (cell, glance) in sorted(self._workers.items()):
            bar = ProgressBar(total=glance.total, completed=glance.step, width=20) if glance.total else Text("")
            table.add_row(Text(str(index), style="dim"), Text(cell, style="bold"), bar, Text(describe(glance)))
        completed = self._before + self._work.share * (self._total - self._before)
        overall = ProgressBar(total=max(1, self._total), completed=completed, width=40)
        failed = f"{self._ended['failed']} failed" if self._ended["failed"] else ""
        eta = self._seconds_left()
        line = Table.grid(padding=(0, 2))
        line.add_row(
            overall,
            Text(f"{sum(self._ended.values())}/{self._total} cells"),
            Text(duration(self._clock() - self._began)),
            Text(f"about {duration(eta)} left" if eta is not None else ""),
            Text(failed, style="red"),
        )
        return Group(line, table)


def ending(event: CellEnded) -> str:
    """Describe how a cell ended, in one line."""
    took = f" in {duration(event.seconds)}" if event.seconds is not None else ""
    if event.state == "failed":
        return f"{event.cell} FAILED{took}: {event.error}"
    accuracy, length = event.result.get("final_accuracy"), event.result.get("final_length_tokens")
    values = [f"accuracy {accuracy:.3f}"] if accuracy is not None else []
    values += [f"length {length:.0f} tokens"] if length is not None else []
    warned = event.result.get("early_warning_at")
    values += [f"early warning at iteration {warned:.0f}"] if warned is not None else []
    return f"{event.cell} {event.state}{took}" + (f": {', '.join(values)}" if values else "")


def describe(glance: Glance) -> str:
    """Describe where a cell is, in a few words."""
    silent = "" if glance.silent_s is None else f"no sign of life for {duration(glance.silent_s)}"
    if glance.stage is None:
        return " ".join(word for word in ("starting", silent) if word)
    at = f"{glance.step}/{glance.total}" if glance.total else ""
    words = [glance.stage if glance.waits is None else f"{glance.waits}:" if at else glance.waits, at]
    words += [f"accuracy {glance.accuracy:.2f}"] if glance.accuracy is not None else []
    words += [f"length {glance.length_tokens:.0f}"] if glance.length_tokens is not None else []
    words += [f"{glance.tokens_per_s:,.0f} tokens/s"] if glance.tokens_per_s is not None else []
    words += [f"at most {duration(glance.seconds_left)} left in it"] if glance.seconds_left is not None else []
    words += [f"early warning at {glance.warned_at}"] if glance.warned_at is not None else []
    return " ".join(word for word in (*words, silent) if word)


@contextmanager
def following(
    folder: CellFolder,
    out: Path,
    on_event: Callable[[Event], None],
    every: float = 1.0,
    news: Callable[[], list[str]] = list,
) -> Iterator[None]:
    """Report a cell's progress and `news` while the block runs it in this process, and its end after."""
    name, watch, ended = folder.path.name, CellWatch(folder, out), threading.Event()

    def follow() -> None:
        while not ended.wait(every):
            on_event(CellProgress(name, 0, watch.look()))
            for text in (*watch.remarks(), *news()):
                on_event(Notice(text))

    on_event(StudyStarted(folder.read().study, name, 1, 0, 0, 0, 1))
    on_event(CellStarted(name, 0, folder.read().attempts + 1))
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    record = folder.read()
    if record.state in ("done", "failed"):
        seconds = max(record.finished - record.started, 0.0) if record.finished and record.started else None
        on_event(CellEnded(name, record.state, seconds, record.error, record.result))
