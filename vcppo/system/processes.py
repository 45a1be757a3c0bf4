"""What a process sees to before it works on a folder for long: its part, that it is alone, that Ctrl-C waits."""

import fcntl
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from vcppo.errors import StudyError

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
    with open(folder.with_name(f"{folder.name}.lock"), "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise StudyError(f"{folder}: process {holder} is running {work}; wait for it, or stop it") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool:
    """Whether a process holds the folder now, by `locked`."""
    try:
        with open(folder.with_name(f"{folder.name}.lock"), encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


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


def move_aside(folder: Path) -> None:
    """components -> components.old-1, or the next number that is free, leaving an empty folder."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    folder.rename(aside)
    folder.mkdir()
