"""The workers of a study as its dispatcher sees them, whether on this machine or on many."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Reply:
    """A worker ended its cell and recorded how; or it could not, for what `disk` says."""

    worker: int
    cell: str
    disk: str | None = None


@dataclass(frozen=True)
class Death:
    """A worker is gone, with all that it started, and another takes its place; `cell` is what it was running.

    Attributes:
        machine_lost: it went with its machine, which says nothing about the cell.
    """

    worker: int
    cell: str | None
    reason: str
    machine_lost: bool = False


class Pool(Protocol):
    """Workers, numbered from 0, each with its log. All calls come from the thread that made the pool.

    A cell belongs to one worker from `give` until its reply or its death is reported, and no process works on it
    afterwards: then its folder may be written, and the cell be given to another worker.
    """

    def idle(self) -> list[int]:
        """Return the workers that could be given a cell."""
        ...

    def running(self) -> dict[str, int]:
        """Return the running cells and their workers."""
        ...

    def give(self, index: int, folder: Path, out: Path) -> None:
        """Let an idle worker run a cell; should it be dead, that shows at the next `listen`."""
        ...

    def listen(self, timeout: float) -> Iterator[Reply | Death]:
        """Yield replies and deaths, waiting for them at most `timeout` seconds.

        Raises:
            StudyError: workers cannot run anything.
        """
        ...

    def news(self) -> list[str]:
        """Lines for the user on what cells wait for, each once."""
        ...

    def stop(self, index: int) -> None:
        """Kill a worker in the middle of its cell; another takes its place."""
        ...

    def close(self) -> None:
        """End all workers, whatever they do."""
        ...


class MakePool(Protocol):
    """Makes a pool of workers for a study.

    Args:
        size: number of workers.
        runner: module:function called with (cell folder, out) in a worker.
        logs: the folder of the workers' logs; it lies in the study's folder.
        processes: by which the runner has each cell run.
        lock: descriptor of the study's lock.
    """

    def __call__(self, size: int, *, runner: str, logs: Path, processes: int, lock: int) -> Pool:
        """Return the pool."""
        ...


@dataclass(frozen=True)
class Machines:
    """Where workers run: for how many there is room, and what makes them."""

    workers: int
    make_pool: MakePool


def log_of(logs: Path, index: int) -> Path:
    """Return the log of a worker's output."""
    return logs / f"worker-{index}.log"
