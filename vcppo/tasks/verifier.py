"""Verdicts on answers that may be anything: compared in worker processes, within limits of time and memory.

An answer that exceeds a limit costs no more than that limit and its process: it is UNREADABLE with a note, the process
is killed and another takes its place in milliseconds, and the answers after it are judged as if nothing had been.
"""

import atexit
import functools
import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from vcppo.errors import VcppoError
from vcppo.settings.fixed import FAILED_STARTS, PROCESS_START_S
from vcppo.settings.known_sets import Form
from vcppo.types import Judgement, Verdict

REMEMBERED = 100_000  # judgements
COSTLY = ("time", "memory", "crash")
_logger = logging.getLogger(__name__)


class Comparison(NamedTuple):
    """An answer and its reference; if not `boxed`, the answer is a text to extract it from."""

    answer: str
    reference: str
    boxed: bool
    form: Form = "expression"  # that the answer must have, boxed or not; see vcppo/tasks/forms.py


@dataclass
class _Grader:
    """A process with the child that works for it, what that is at, and until when."""

    process: subprocess.Popen[bytes]
    deadline: float  # of a child to be ready, or of its job
    child: int | None = None  # process id; None until it is ready
    job: Comparison | None = None
    number: int = 0  # of the job: a reply to an earlier one comes too late
    unread: bytes = field(default=b"", repr=False)


class Verifier:
    """A pool of processes, started when the first answer needs one and used again. Safe to call from any thread."""

    def __init__(self, *, workers: int, time_limit_s: float, memory_limit_mb: int) -> None:
        self.workers, self.time_limit_s, self.memory_limit_mb = workers, time_limit_s, memory_limit_mb
        self._graders: list[_Grader] = []
        self._selector = selectors.DefaultSelector()
        self._judged: dict[Comparison, Judgement] = {}
        self._failed_starts = 0
        self._stderr: IO[bytes] | None = None  # of processes that cannot start
        self._lock = threading.Lock()

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Return judgements in order; equal comparisons are made once, and remembered.

        Raises:
            VcppoError: the processes cannot start.
        """
        with self._lock:
            if len(self._judged) > REMEMBERED:
                self._judged.clear()
            judgements = {job: self._judged[job] for job in comparisons if job in self._judged}
            try:
                self._run(deque(dict.fromkeys(job for job in comparisons if job not in judgements)), judgements)
            finally:
                for grader in [grader for grader in self._graders if grader.job is not None]:
                    self._end(grader)  # interrupted: nobody waits for its reply
            self._judged |= {job: judgement for job, judgement in judgements.items() if judgement.note != "crash"}
            return [judgements[job] for job in comparisons]

    def pids(self) -> list[int]:
        """Return the ids of the running processes."""
        return [grader.process.pid for grader in self._graders]

    def close(self) -> None:
        """End all processes; the next answer starts new ones."""
        for grader in list(self._graders):
            self._end(grader)
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    def _run(self, waiting: deque[Comparison], judgements: dict[Comparison, Judgement]) -> None:
        for grader in [grader for grader in self._graders if grader.process.poll() is not None]:
            self._end(grader)  # it died while it had nothing to do, which is no answer's fault
        for key, _ in self._selector.select(0):
            self._receive(key.data, judgements)  # or its child did, and there is another
        for grader in self._graders:
            if grader.child is None:
                grader.deadline = time.monotonic() + PROCESS_START_S
        while waiting or any(grader.job is not None for grader in self._graders):
            busy = sum(grader.job is not None for grader in self._graders)
            for _ in range(min(self.workers, busy + len(waiting)) - len(self._graders)):
                self._graders.append(self._start())
            for grader in self._graders:
                if waiting and grader.child is not None and grader.job is None:
                    self._give(grader, waiting.popleft())
            watched = [grader for grader in self._graders if grader.job is not None or grader.child is None]
            pause = max(min(grader.deadline for grader in watched) - time.monotonic(), 0.0)
            for key, _ in self._selector.select(pause):
                self._receive(key.data, judgements)
            for grader in [grader for grader in self._graders if grader in watched]:
                if grader.deadline <= time.monotonic():
                    self._give_up(grader, judgements)

    def _give(self, grader: _Grader, job: Comparison) -> None:
        grader.job, grader.deadline = job, time.monotonic() + self.time_limit_s
        grader.number += 1
        assert grader.process.stdin is not None
        with suppress(BrokenPipeError):  # its end is received next
            grader.process.stdin.write(json.dumps({**job._asdict(), "number": grader.number}).encode() + b"\n")
            grader.process.stdin.flush()

    def _receive(self, grader: _Grader, judgements: dict[Comparison, Judgement]) -> None:
        assert grader.process.stdout is not None
        chunk = os.read(grader.process.stdout.fileno(), 65536)
        if not chunk:
            self._settle(grader, "crash", judgements)
            ready = grader.child is not None
            self._end(grader)
            if not ready:
                self._fail(f"exit code {grader.process.returncode}")
            return
        *lines, grader.unread = (grader.unread + chunk).split(b"\n")
        for line in lines:
            message: dict[str, Any] = json.loads(line)
            if "ready" in message:
                self._settle(grader, "crash", judgements)  # the child before this one died of its job
                grader.child, self._failed_starts = message["ready"], 0
            else:
                if message["number"] == grader.number:
                    self._settle(grader, message["note"], judgements, Verdict(message["verdict"]))
                if message["worn"]:
                    self._await_another(grader)

    def _give_up(self, grader: _Grader, judgements: dict[Comparison, Judgement]) -> None:
        """End what has run past its deadline."""
        if grader.child is None:
            self._end(grader)
            self._fail(f"it was not ready after {PROCESS_START_S:g} s")
        elif grader.job is not None:
            self._settle(grader, "time", judgements)
            with suppress(ProcessLookupError):
                os.kill(grader.child, signal.SIGKILL)
            self._await_another(grader)

    def _await_another(self, grader: _Grader) -> None:
        grader.child, grader.deadline = None, time.monotonic() + PROCESS_START_S

    def _settle(
        self, grader: _Grader, note: str, judgements: dict[Comparison, Judgement], verdict: Verdict = Verdict.UNREADABLE
    ) -> None:
        """Record the judgement of its job, if it has one."""
        if grader.job is None:
            return
        if note in COSTLY:
            _logger.warning("an answer is unreadable (%s): %.100r", note, grader.job.answer[:100])
        judgements[grader.job] = Judgement(verdict, note)
        grader.job = None

    def _fail(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= FAILED_STARTS:
            self._failed_starts = 0
            raise VcppoError(f"the verifier cannot start: {self._last_error_line() or reason}")

    def _last_error_line(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def _start(self) -> _Grader:
        command = [sys.executable, "-P", "-m", "vcppo.tasks.grader", "--parent", str(os.getpid())]
        self._stderr = self._stderr or tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            [*command, "--memory-mb", str(self.memory_limit_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=worker_environment(),
            start_new_session=True,  # Ctrl-C is not for it
        )
        assert process.stdout is not None
        grader = _Grader(process, time.monotonic() + PROCESS_START_S)
        self._selector.register(process.stdout, selectors.EVENT_READ, grader)
        return grader

    def _end(self, grader: _Grader) -> None:
        self._graders.remove(grader)
        process = grader.process
        assert process.stdin is not None
        assert process.stdout is not None
        self._selector.unregister(process.stdout)
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()


def shared_verifier(*, workers: int | None, time_limit_s: float, memory_limit_mb: int) -> Verifier:
    """Return the verifier of these limits in this process, closed when the process ends."""
    count = workers or max(min((os.cpu_count() or 2) // 2, 8), 1)
    return _shared(os.getpid(), count, time_limit_s, memory_limit_mb)


@functools.cache
def _shared(process_id: int, workers: int, time_limit_s: float, memory_limit_mb: int) -> Verifier:
    verifier = Verifier(workers=workers, time_limit_s=time_limit_s, memory_limit_mb=memory_limit_mb)

    def close() -> None:
        if os.getpid() == process_id:  # a forked child does not close its copy
            verifier.close()

    atexit.register(close)
    return verifier


def worker_environment() -> dict[str, str]:
    """Return the parent's, with the path it imports from, one thread, and a reproducible order of sets."""
    path = os.pathsep.join(part or os.getcwd() for part in sys.path)
    return {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
