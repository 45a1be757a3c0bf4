"""Temporary files and folders: named by the process that writes them, and swept once that process is gone.

A name is `.NAME~HOST~PID~STARTED.tmp`, STARTED being what the kernel says of the process's start: a number of a process
is given again, and a folder may be shared by several machines.
"""

import functools
import os
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_NAME = re.compile(r"\.(?P<of>.+)~(?P<host>[^~]*)~(?P<pid>\d+)~(?P<started>\d+)\.tmp")
_EARLIER = re.compile(r"\.(?P<of>.+)\.(?P<pid>\d+)")  # as earlier versions named them
_ENDED = (b"Z", b"X")  # states of a process
ABANDONED_S = 24 * 3600.0  # without a change: then a temporary of a process on another machine is nobody's


def temporary_for(path: Path) -> Path:
    """Return the name beside `path` under which this process writes it."""
    return path.with_name(f".{path.name}~{_host()}~{os.getpid()}~{_own_start(os.getpid())}.tmp")


def is_temporary(path: Path) -> bool:
    """True if a path has the name of a temporary."""
    return _NAME.fullmatch(path.name) is not None


def sweep(folder: Path, *, below: bool = False, exclusive: Callable[[Path], bool] = lambda path: False) -> list[Path]:
    """Remove temporaries of processes that are gone; return what was removed.

    Those of a process that lives stay; those of another machine, whose processes cannot be seen from here, stay until
    nothing has changed in them for `ABANDONED_S`. The caller holds the folder's lock, so no such process works there.

    Args:
        below: in every folder below it, too.
        exclusive: true of what nobody writes without the lock, on whatever machine: of that, what another machine left
            goes at once. A pod that starts again has another name, and would add the rest of a state at each start.
    """
    removed = [path for path in _candidates(folder, below=below) if _is_abandoned(path, exclusive=exclusive(path))]
    for path in removed:
        remove(path)
    return removed


def sweep_beside(path: Path) -> None:
    """Remove temporaries of `path` that processes which are gone have left, nothing else: it may be anybody's."""
    for candidate in _candidates(path.parent, below=False):
        named = _NAME.fullmatch(candidate.name)
        if named is not None and named["of"] == path.name and _is_abandoned(candidate):
            remove(candidate)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there and if that is allowed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a file system that is read only: what cannot be removed harms nothing
        return


def _candidates(folder: Path, *, below: bool) -> Iterator[Path]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith("."):
            yield Path(entry.path)
        elif below and entry.is_dir(follow_symlinks=False):
            yield from _candidates(Path(entry.path), below=True)


def _is_abandoned(path: Path, *, exclusive: bool = False) -> bool:
    if (named := _NAME.fullmatch(path.name)) is not None:
        if named["host"] == _host():
            return _started(int(named["pid"])) != int(named["started"])
        return exclusive or _age_s(path) > ABANDONED_S
    if (earlier := _EARLIER.fullmatch(path.name)) is not None:
        return _started(int(earlier["pid"])) == 0 and _age_s(path) > ABANDONED_S
    return False


def _age_s(path: Path) -> float:
    """Seconds since the latest change of a file, or of anything in a folder."""
    try:
        latest = max(entry.stat().st_mtime for entry in (path, *path.rglob("*")))
    except OSError:
        return 0.0
    return time.time() - latest


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:64]


@functools.cache
def _own_start(pid: int) -> int:
    """Start of this process; a child that was forked asks with its own number."""
    return _started(pid)


def _started(pid: int) -> int:
    """Start of a process, in the kernel's ticks since the machine's; 0 if there is none, 1 if nothing says when.

    One that has ended and whose parent has not asked how is none: in a container nobody may ever ask.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()  # from field 3 on; the name before it may have spaces
        return 0 if fields[0] in _ENDED else int(fields[19])
    except (OSError, IndexError, ValueError):
        pass
    if os.path.isdir("/proc/self"):
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return 0
    except PermissionError:
        return 1
    return 1
