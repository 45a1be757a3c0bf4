"""Progress of a diagnosis: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vcppo.system.processes import is_main
from vcppo.system.terminal import SummaryTimer, progress_console


class DiagnosisView:
    """Shows what is being done; of several processes the main one's."""

    def __init__(self, console: Console | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console or (progress_console() if is_main() else Console(quiet=True))
        self._summary = SummaryTimer(clock)
        self._rows: dict[str, TaskID] = {}
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """Print a line, above the bars where there are some."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __call__(self, what: str, done: int, of: int) -> None:
        """So much of so much is done."""
        if what not in self._rows:
            self._rows[what] = self._bar.add_task(what, total=of)
        self._bar.update(self._rows[what], completed=done, total=of)
        if not self._console.is_terminal and self._summary.is_due():
            self._console.print(f"{what}: {done:,} of {of:,}", markup=False, highlight=False)
