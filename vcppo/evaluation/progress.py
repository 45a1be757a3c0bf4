"""Progress of an evaluation: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from vcppo.store.samples import SampledProblem
from vcppo.system.terminal import SummaryTimer, progress_console
from vcppo.types import Verdict


class EvaluationView:
    """Counts problems as they are done. Use as a context around one checkpoint's evaluation."""

    def __init__(
        self, name: str, total: int, console: Console | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name, self.total = name, total
        self.done = self.before = 0
        self._samples = self._correct = self._tokens = 0
        self._console = console or progress_console()
        self._clock = clock
        self._began = clock()
        self._summary = SummaryTimer(clock)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._row = self._bar.add_task(name, total=total, status="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()

    def __call__(self, problem: SampledProblem, fresh: bool) -> None:
        """Count a problem, done just now (`fresh`) or by an evaluation that this one goes on from."""
        self.done += 1
        self.before += not fresh
        self._samples += len(problem.samples)
        self._correct += problem.count(Verdict.CORRECT)
        self._tokens += sum(sample.tokens for sample in problem.samples) if fresh else 0
        self._bar.update(self._row, completed=self.done, status=self.status())
        if fresh and not self._console.is_terminal and self._summary.is_due():
            self.notify(f"{self.name}: {self.done} of {self.total} problems, {self.status()}")

    def notify(self, line: str) -> None:
        """Print one line that the user should read."""
        self._console.print(Text(line))

    def status(self) -> str:
        """Accuracy so far, and tokens per second since the beginning."""
        seconds = self._clock() - self._began
        speed = f", {self._tokens / seconds:,.0f} tokens/s" if self._tokens and seconds > 0 else ""
        return f"accuracy {self._correct / max(1, self._samples):.3f}{speed}"
