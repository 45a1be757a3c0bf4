"""Locks of workers on other machines, which cannot inherit the study's: each holds one of its own while it lives.

It is `worker-N.lock` beside the worker's log, in the folder that all machines share. The worker inherits it from what
started it there and passes it on to what it starts, so that it is free only when none of them is left. It holds a line
that says who they are.
"""

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vcppo.errors import StudyError
from vcppo.system.files import file_lock, is_locked, sync
from vcppo.system.processes import PREDECESSOR_S

LOOK_S = 0.05


def lock_of(logs: Path, index: int) -> Path:
    """Return the lock of a worker."""
    return logs / f"worker-{index}.lock"


@contextmanager
def worker_lock(logs: Path, index: int, node: str) -> Iterator[int]:
    """Hold a worker's lock, from this machine, which its cluster calls `node`; yield its descriptor.

    Raises:
        StudyError: an earlier worker of that number still lives.
    """
    path = lock_of(logs, index)
    await_free([path])
    with file_lock(path) as file:
        file.truncate(0)
        file.write(f"{node} {socket.gethostname()}")
        file.flush()
        sync(path)  # for the other machines: a file that stays open is not sent to its server otherwise
        yield file.fileno()


def node_and_host(logs: Path, index: int) -> tuple[str, str]:
    """Return where a worker was last, as `worker_lock` wrote it; empty where it was nowhere yet."""
    try:
        node, _, host = lock_of(logs, index).read_text(encoding="utf-8").partition(" ")
    except FileNotFoundError:
        return "", ""
    return node, host


def await_free(locks: Iterable[Path], interrupted: threading.Event | None = None) -> None:
    """Wait a little until nobody holds any of these locks.

    Raises:
        StudyError: somebody still does.
        KeyboardInterrupt: `interrupted` was set meanwhile.
    """
    deadline = time.monotonic() + PREDECESSOR_S
    for lock in locks:
        while is_locked(lock):
            if interrupted is not None and interrupted.is_set():
                raise KeyboardInterrupt
            if time.monotonic() > deadline:
                raise StudyError(held(lock))
            time.sleep(LOOK_S)


def held(lock: Path) -> str:
    """Say who holds a worker's lock, and what can be done."""
    host = lock.read_text(encoding="utf-8").partition(" ")[2] or "another machine"
    return (
        f"{lock}: a worker of this study, which nobody waits for any more, still runs on {host}; wait for its end, or "
        "stop it. If that machine is gone for good and the file server does not know it, remove this file"
    )


def await_workers(logs: Path, interrupted: threading.Event | None = None) -> None:
    """Wait a little until no worker of a study is left on another machine, now that the process it served is gone.

    The caller holds the study's lock.

    Raises:
        StudyError: one still runs.
        KeyboardInterrupt: `interrupted` was set meanwhile.
    """
    await_free(sorted(logs.glob("worker-*.lock")), interrupted)
