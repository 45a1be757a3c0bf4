"""The lock of a stage's folder: it says who holds it, and who waits for it learns that at once."""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from vcppo.system.files import file_lock, is_locked, make_folder, sync

NAME = "lock"
LOOK_S = 0.25  # between tries to lock what another process holds


@dataclass(frozen=True)
class Holder:
    """The process that holds a stage's lock, and the cell that it computes the stage for, as STUDY/CELL."""

    process: int
    host: str
    cell: str

    @classmethod
    def of(cls, lock: Path) -> Self | None:
        """Return who signed a lock last, which need not be held; None where nobody did."""
        try:
            signature = json.loads(lock.read_bytes())
            return cls(int(signature["process"]), str(signature["host"]), str(signature["cell"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def __str__(self) -> str:
        for_whom = f" for {self.cell}" if self.cell else ""
        return f"process {self.process} on {self.host} computes{for_whom}"


UNKNOWN = "another process holds"  # one that signs nothing: `vcppo cache gc`, or an earlier version of vcppo


@contextmanager
def stage_lock(folder: Path, cell: str, on_wait: Callable[[str], object]) -> Iterator[None]:
    """Hold the lock of a stage's folder, signed; wait for it while another process does.

    Args:
        cell: for which the stage is computed.
        on_wait: receives who holds it and why, if it is not let go of at once, and again when it is somebody else.
    Raises:
        DiskError: the file system keeps no locks.
    """
    path, told, refused = folder / NAME, None, False
    with ExitStack() as stack:
        while True:
            try:
                file = stack.enter_context(file_lock(path, wait=False))
                break
            except BlockingIOError:
                if refused:  # the first time it may be one who only looked whether it is held
                    holder = str(Holder.of(path) or UNKNOWN)
                    if holder != told:
                        on_wait(holder)
                    told = holder
                refused = True
                time.sleep(LOOK_S)
            except FileNotFoundError:  # `vcppo cache gc` removed the folder meanwhile
                make_folder(folder)
        file.truncate(0)
        file.write(json.dumps(asdict(Holder(os.getpid(), socket.gethostname(), cell))))
        file.flush()
        sync(path)  # for other machines too: a file that stays open is not sent to its server otherwise
        yield


def holder_of_stage(folder: Path) -> Holder | None:
    """Return who holds a stage's lock now; None where nobody does, or did not say so."""
    return Holder.of(folder / NAME) if is_locked(folder / NAME) else None
