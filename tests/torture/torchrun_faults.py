"""`torchrun -m vcppo train` of two processes, one of which, or torchrun itself, is killed at random."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from study_processes import until
from torture import oracle
from torture.kinds import Case, Extent, Result
from torture.stage_faults import end_of, settings

from vcppo.system.files import write_json

PATIENCE_S = 600.0
DONE = (0, 1)  # exit codes: torchrun makes 1 of that for records which MLflow lacks
COMMAND = (
    *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
    *("-m", "vcppo", "train", "--config", "settings.json", "--out", "runs"),
)


class Torchruns:
    """Runs below a folder, and the undisturbed one that they are compared with."""

    def __init__(self, place: Path) -> None:
        self.place, self.out, self.log = place, place / "runs", place / "log.txt"
        write_json(place / "settings.json", settings().model_dump(mode="json") | {"steps": 6})
        began = time.monotonic()
        if wrong := self._ends():
            raise RuntimeError(f"the undisturbed run {wrong}")
        self.seconds, self.expected = time.monotonic() - began, oracle.measured(self.out)

    def killed(self, draw: random.Random) -> Result:
        """SIGKILL of torchrun or of a process that it started; then the same command."""
        shutil.rmtree(self.out)
        self.log.unlink()
        began = time.monotonic()
        process = self._start()
        time.sleep(draw.uniform(0.0, self.seconds))
        killed = 0
        with suppress(psutil.NoSuchProcess, ProcessLookupError):  # it has ended
            tree = [process.pid, *(p.pid for p in psutil.Process(process.pid).children(recursive=True))]
            os.kill(draw.choice(tree), signal.SIGKILL)
            killed = 1
        process.wait(PATIENCE_S)
        try:
            until(lambda: not oracle.processes_in(self.place))
        except AssertionError:
            return Result(f"left a process: {oracle.processes_in(self.place)[:1]}", killed)
        wrong = self._ends() or oracle.first(
            lambda: oracle.temporary_in(self.out),
            lambda: oracle.differing(oracle.measured(self.out), self.expected),
        )
        return Result(wrong, killed, time.monotonic() - began - self.seconds)

    def _start(self) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with open(self.log, "ab") as log:
            return subprocess.Popen(COMMAND, cwd=self.place, env=environment, stdout=log, stderr=log)

    def _ends(self) -> str | None:
        code = self._start().wait(PATIENCE_S)
        done = set(oracle.states(self.out / "studies" / "train").values()) == {"done"}
        return None if done and code in DONE else f"ended with {code}: {end_of(self.log)}"


def kills(place: Path, extent: Extent) -> Iterator[Case]:
    """One kill a round."""
    runs = Torchruns(place)
    for name, draw in extent.draws("torchrun"):
        yield name, partial(runs.killed, draw)
