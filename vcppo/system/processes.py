"""Processes: their part among several, alone in a folder, deaf to Ctrl-C for a while, gone with their parent."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vcppo.errors import StudyError
from vcppo.system import files
from vcppo.system.files import signed_lock

PR_SET_PDEATHSIG = 1  # linux/prctl.h
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
STOPPED = "stopped; the same command goes on from where it was"
PROCESSES = "VCPPO_PROCESSES"  # environment variable: by how many processes a worker of a sweep has a cell run


def gpus() -> list[str]:
    """The accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them; asks neither torch nor CUDA."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name for name in told.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def gpus_of_worker(index: int, each: int) -> list[str]:
    """The `each` accelerators of worker `index`: as many groups as there are, then the first again; none if too few."""
    found = gpus()
    groups = len(found) // each
    start = index % groups * each if groups else 0
    return found[start : start + each] if groups else []


def is_main() -> bool:
    """Whether this process writes files and speaks to people: the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def locked(folder: Path, work: str = "this study") -> Iterator[None]:
    """Hold a folder, by a file `<folder>.lock` beside it that the kernel lets go of with the process.

    Raises:
        StudyError: another process holds it; the message names the process and the `work` it is at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with signed_lock(_lock_of(folder)):
            yield
    except BlockingIOError as error:
        raise StudyError(f"{folder}: process {error.filename} is running {work}; wait for it, or stop it") from None


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder now, by `locked`."""
    return files.is_locked(_lock_of(folder))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process where it stands.

    Outside the main thread signals are not ours to take, and the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def take(number: int, frame: FrameType | None) -> None:
        event.set()

    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Ctrl-C waits until the block ends. A process started within is born deaf to it, until it says otherwise."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def call(command: Sequence[str]) -> int:
    """Run a program to its end; its exit code. Ctrl-C is for this process alone, which then ends the program."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        return process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def die_with(parent: int) -> None:
    """Be killed when the parent ends, however it ends: by the kernel on Linux, by a watching thread elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
