"""Faults at the k-th write of a process: it is killed there, the disk refuses, the power goes, or the clock jumps.

A write is what changes a folder: opening a file to write, syncing, renaming, removing, making a folder. Python's audit
hooks see them whoever asks (PEP 578), but for what libraries in C do by themselves.
"""

import errno
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

Fault = Callable[[str], None]  # receives the path that is written to
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Writes:
    """Counts this process's writes below a folder from now on; at the `at`-th it touches `begun` and has the fault."""

    def __init__(self, below: Path, fault: Fault | None = None, at: int = 0, begun: Path | None = None) -> None:
        self.below, self.fault, self.at, self.begun, self.count = f"{below}/", fault, at, begun, 0
        self._counting = threading.Lock()
        self._sync = os.fsync
        os.fsync = self._fsync  # which no event tells of
        sys.addaudithook(self._hook)

    def _fsync(self, fd: "FileDescriptorLike") -> None:
        descriptor = fd if isinstance(fd, int) else fd.fileno()
        self._see(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._sync(descriptor)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & _TO_WRITE):
                self._see(path)
        elif event in _EVENTS:
            self._see(arguments[0])

    def _see(self, path: Any) -> None:
        if not isinstance(path, (str, os.PathLike)) or not f"{os.fspath(path)}/".startswith(self.below):
            return
        with self._counting:
            self.count += 1
            if self.fault is None or self.count != self.at:
                return
        if self.begun is not None:
            self.begun.touch()
        self.fault(os.fspath(path))


def killed(path: str) -> NoReturn:
    """SIGKILL of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process that was killed goes on")


def refusing(number: int) -> Fault:
    """Return the fault of a disk that refuses with this error, once."""

    def refuse(path: str) -> NoReturn:
        raise OSError(number, os.strerror(number), path)

    return refuse


NO_SPACE, BAD_DISK = refusing(errno.ENOSPC), refusing(errno.EIO)


def jumping(seconds: float) -> Fault:
    """Return the fault of a clock that is set by so many seconds, as Python sees it: `time.time` of this process."""

    def jump(path: str) -> None:
        before = time.time
        time.time = lambda: before() + seconds

    return jump


CLOCK_BACK, CLOCK_ON = jumping(-7200.0), jumping(7200.0)
