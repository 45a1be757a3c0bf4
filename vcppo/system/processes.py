"""Processes: rank and GPUs, locks on folders, signals held back, ends that follow the parent's."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TextIO

from vcppo.errors import StudyError
from vcppo.system import disk, files
from vcppo.system.files import make_folder, signed_lock

PR_SET_PDEATHSIG = 1  # linux/prctl.h
INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it
STOPPED = "stopped; the same command goes on from where it was"
SHOW_CURSOR = "\x1b[?25h"  # which a live picture hides
PROCESSES = "VCPPO_PROCESSES"  # environment variable: how many processes run a cell for a worker of a sweep
MEETING_FILE = "VCPPO_MEETING_FILE"  # the file in which these processes find each other
LOCK = "VCPPO_LOCK"  # descriptor of the study's lock, which all that work on it hold
PREDECESSOR_S = 20.0  # for the workers of a killed process to be gone


def gpus() -> list[str]:
    """The accelerators that this process may use, as CUDA_VISIBLE_DEVICES names them; uses neither torch nor CUDA."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


def gpus_of_worker(index: int, each: int) -> list[str]:
    """The `each` accelerators of worker `index`: as many groups as there are, then the first again; none if too few."""
    available = gpus()
    groups = len(available) // each
    start = index % groups * each if groups else 0
    return available[start : start + each] if groups else []


def is_main() -> bool:
    """True for the process that writes files and prints messages: the first that torchrun started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def run_as_rank(main: Callable[[], object]) -> None:
    """Run `main`; end one of several processes right after it, without Python's finalisation.

    Threads of gloo outlive their process group. One that frees a finished collective after Python has ended aborts
    the process, whose work was done ("terminate called without an active exception").
    """
    if os.environ.get("WORLD_SIZE", "1") == "1":
        main()
        return
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 -- shown as Python would show it
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def locked(folder: Path, work: str = "this study") -> Iterator[int]:
    """Lock a folder, by a file `<folder>.lock` beside it that the kernel releases with the process.

    A process that is given the descriptor (`with_lock`) holds the lock too, until it ends: so nobody begins while one
    that a killed holder started is still there. They die with it; it is waited a little for them.

    Yields:
        The lock's descriptor.
    Raises:
        StudyError: another process holds it; the message names the process and the `work` it does.
        DiskError: the folder is read only, or another user's.
    """
    with ExitStack() as stack:
        with disk.writing(folder):
            make_folder(folder)
            file = _lock_patiently(stack, folder, work)
        yield file.fileno()


def _lock_patiently(stack: ExitStack, folder: Path, work: str) -> TextIO:
    deadline = time.monotonic() + PREDECESSOR_S
    while True:
        try:
            return stack.enter_context(signed_lock(_lock_of(folder)))
        except BlockingIOError as error:
            holder = str(error.filename)
        if _lives(holder):
            raise StudyError(f"{folder}: process {holder} is running {work}; wait for it, or stop it") from None
        if time.monotonic() > deadline:
            raise StudyError(
                f"{folder}: process {holder}, which ran {work}, is gone, or on another machine, and what it started "
                "still runs; wait for it, or stop it"
            ) from None
        time.sleep(0.05)


def _lives(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except ValueError:  # it has not signed yet
        return True
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def with_lock(descriptor: int) -> dict[str, str]:
    """Return what tells a process, in its environment, that it inherits this lock by `pass_fds`."""
    return {LOCK: str(descriptor)}


def inherited_lock() -> tuple[int, ...]:
    """Return the descriptor of the lock that this process inherited, for `pass_fds` of those that it starts in turn."""
    descriptor = os.environ.get(LOCK)
    return () if descriptor is None else (int(descriptor),)


def is_folder_locked(folder: Path) -> bool:
    """True if a process holds the folder now, by `locked`."""
    return files.is_locked(_lock_of(folder))


def holder_of(folder: Path) -> str | None:
    """The number of the process that holds the folder now, by `locked`; None if none does."""
    if not is_folder_locked(folder):
        return None
    return _lock_of(folder).read_text(encoding="utf-8").strip() or "unknown"


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, instead of ending the process where it stands; a second Ctrl-C ends it.

    Outside the main thread signals cannot be handled, and the event stays unset.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and event.is_set():
            os.write(2, f"{SHOW_CURSOR if os.isatty(2) else ''}{STOPPED}\n".encode())
            os._exit(INTERRUPTED)
        event.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM, which schedulers send before they kill, end the block as Ctrl-C does; a second one is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def shielded() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends. A process started within blocks it too, until it unblocks it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def call(command: Sequence[str]) -> int:
    """Run a program to its end; return its exit code. Ctrl-C reaches this process alone, which ends the program."""
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
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
