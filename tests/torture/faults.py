"""Faults at the k-th write of a process: it is killed there, or the disk refuses.

A write is what changes a folder: opening a file to write, syncing, renaming, removing, making a folder. Python's audit
hooks see them whoever asks (PEP 578), but for what libraries in C do by themselves.
"""

import errno
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

KINDS = ("kill", "ENOSPC", "EIO")
_EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod"}
_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Writes:
    """Counts this process's writes below a folder from now on; at the `at`-th it does what `kind` says."""

    def __init__(self, below: Path, kind: str | None = None, at: int = 0) -> None:
        self.below, self.kind, self.at, self.count = str(below), kind, at, 0
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
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(self.below):
            return
        self.count += 1
        if self.kind is None or self.count != self.at:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        number = getattr(errno, self.kind)
        raise OSError(number, os.strerror(number), os.fspath(path))
