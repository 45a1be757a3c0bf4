"""Every stage of a small run, disturbed: at each of its writes, by signals, by a power cut.

The oracle is an undisturbed run: the same journals (times aside), the same results and weights to the bit, no temporary
left, and no traceback. Children are forked, so that torch is imported once.
"""

import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import FrameType

from disks import PowerCut
from tiny import tiny
from torture import oracle
from torture.faults import Fault, Writes, killed
from torture.kinds import Case, Cases, Counted, Extent, Result

from vcppo.errors import DiskError
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages

REFUSED = 2  # exit code of a child whose disk refused
SIGNALS_EVERY_S = 0.001
SETTINGS = (
    "cold_start.steps=2",
    "critic.init=policy",
    "pretrain.steps=2",
    "pretrain.batch=2",
    "pretrain.pool=4",
    "pretrain.held_out=2",
    "pretrain.evaluate_every=1",
    "rollout.prompts=2",
    "rollout.max_tokens=8",
    "policy.minibatches=1",
    "steps=2",
    "record.checkpoint_every=1",
    "evaluation.samples=1",
    "evaluation.every=0",
    "task.held_out=2",
)


@cache
def settings() -> RunSettings:
    """A run of every stage but the reward model's, in a second."""
    return tiny(*SETTINGS)


def in_child(work: Callable[[], object], log: Path) -> int:
    """Run work in a forked process; return its exit code, negative for a signal. What it says is added to the log."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        with open(log, "ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except DiskError as error:
        print(f"DiskError: {error}", file=sys.stderr)
        code = REFUSED
    except BaseException:  # noqa: BLE001 -- shown, as the command line would
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end_of(log: Path) -> str:
    """Return the end of what was said, in one line."""
    return re.sub(r"\s+", " ", log.read_text(errors="replace"))[-400:]


class StageRuns:
    """Runs below a folder, and the undisturbed one that they are compared with."""

    def __init__(self, place: Path, counting: Callable[[Path], Counted] = Writes) -> None:
        self.place, self.out, self.log, self.begun = place, place / "out", place / "log.txt", place / "begun"
        counted, whole = place / "count.txt", place / "whole"

        def undisturbed() -> None:
            writes = counting(whole)
            run_stages(settings(), whole)
            counted.write_text(str(writes.count))

        began = time.monotonic()
        if in_child(undisturbed, self.log):
            raise RuntimeError(f"the undisturbed run failed: {self.log.read_text()}")
        self.seconds = time.monotonic() - began
        self.expected, self.count = oracle.measured(whole), int(counted.read_text())

    def clean(self) -> None:
        """Remove what the case before has left."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.begun.unlink(missing_ok=True)

    def disturbed(self, prepare: Callable[[], object], codes: tuple[int, ...]) -> str | None:
        """Run after `prepare`, which disturbs; return what is wrong unless it ends with one of these codes."""

        def work() -> None:
            prepare()
            run_stages(settings(), self.out)

        code = in_child(work, self.log)
        return None if code in codes else f"ended with {code}: {end_of(self.log)}"

    def goes_on(self) -> str | None:
        """Run the same command undisturbed; return what is wrong after it."""
        if code := in_child(lambda: run_stages(settings(), self.out), self.log):
            return f"could not be gone on with, {code}: {end_of(self.log)}"
        if "Traceback" in self.log.read_text():
            return f"a traceback: {end_of(self.log)}"
        return oracle.first(
            lambda: oracle.temporary_in(self.out),
            lambda: oracle.differing(oracle.measured(self.out), self.expected),
        )


def at_writes(fault: Fault, *codes: int) -> Cases:
    """Return the cases of a fault at each write; the run then ends with one of these codes."""
    return at_each(partial(Writes, fault=fault), Writes, codes)


def at_each(disturb: Callable[..., Counted], counting: Callable[[Path], Counted], codes: tuple[int, ...]) -> Cases:
    """Return the cases of a run of which each write that is counted is disturbed, by its number."""

    def cases(place: Path, extent: Extent) -> Iterator[Case]:
        runs = StageRuns(place, counting)

        def case(at: int) -> Result:
            runs.clean()
            began = time.monotonic()
            wrong = runs.disturbed(lambda: disturb(runs.out, at=at, begun=runs.begun), codes) or runs.goes_on()
            return Result(wrong, int(runs.begun.exists()), time.monotonic() - began - runs.seconds)

        for at in extent.writes(runs.count):
            yield f"write {at}", partial(case, at)

    return cases


def power_cuts(place: Path, extent: Extent) -> Iterator[Case]:
    """The power goes at a write: what was not synced is lost. The disk is an ext4 in a file."""
    runs, disk = StageRuns(place), PowerCut(place)
    runs.out = disk.folder / "out"

    def cut(path: str) -> None:
        disk.cut()
        killed(path)

    def case(at: int) -> Result:
        runs.clean()
        disk.make()
        try:
            began = time.monotonic()
            wrong = runs.disturbed(lambda: Writes(runs.out, cut, at, runs.begun), (-signal.SIGKILL,))
            disk.unmount()
            disk.mount()
            wrong = wrong or runs.goes_on()
            return Result(wrong, int(runs.begun.exists()), time.monotonic() - began - runs.seconds)
        finally:
            disk.unmount()

    for at in extent.writes(runs.count):
        yield f"write {at}", partial(case, at)


def signals(place: Path, extent: Extent) -> Iterator[Case]:
    """A run whose system calls are interrupted by a signal every millisecond (EINTR), a fault being such a run."""
    runs = StageRuns(place)

    def handle(number: int, frame: FrameType | None) -> None:
        runs.begun.touch()

    def interrupt(after_s: float) -> None:
        signal.signal(signal.SIGALRM, handle)
        signal.siginterrupt(signal.SIGALRM, True)
        signal.setitimer(signal.ITIMER_REAL, after_s, SIGNALS_EVERY_S)

    for name, draw in extent.draws("signals"):

        def case(after_s: float = draw.uniform(0.001, 0.01)) -> Result:
            runs.clean()
            began = time.monotonic()
            wrong = runs.disturbed(lambda: interrupt(after_s), (0,)) or runs.goes_on()
            return Result(wrong, int(runs.begun.exists()), time.monotonic() - began - runs.seconds)

        yield name, case
