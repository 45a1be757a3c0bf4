"""Scores by `score_answer` of a reasoning-gym dataset, in a process of its own, within limits of time and memory.

Several datasets evaluate an answer as Python or by sympy: `9**9**9**9` would hold up a run for ever. Here an answer
that exceeds a limit costs no more than that limit; the child that was at it is killed, and another is forked that has
everything loaded. The limits are no sandbox: such an answer may do whatever the user of the process may.

`python -m vcppo.tasks.scorer` reads jobs from standard input, each as eight bytes of length and a pickle of (number,
options, answer, entry), without an entry to make the dataset of these options. It replies with lines of JSON:
{"ready": process id of the child}, {"number": ..., "score": ...}.
"""

import atexit
import contextlib
import functools
import json
import logging
import os
import pickle
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from vcppo.errors import VcppoError
from vcppo.settings.fixed import PROCESS_START_S
from vcppo.system.processes import die_with
from vcppo.tasks.verifier import worker_environment

_logger = logging.getLogger(__name__)


class Scorer:
    """Scores answers one after another; its process is started with the first. Safe to call from any thread."""

    def __init__(self, *, time_limit_s: float, memory_limit_mb: int) -> None:
        self.time_limit_s, self.memory_limit_mb = time_limit_s, memory_limit_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._child: int | None = None  # process id; None until it is ready
        self._made: set[str] = set()  # options whose dataset the child has
        self._number, self._unread = 0, b""
        self._lock = threading.Lock()

    def score(self, options: str, answer: str | None, entry: Mapping[str, Any]) -> float | str:
        """The score; or why there is none: `time`, `memory`, `crash`, `not scored` (the library raised an error).

        Args:
            options: those of ReasoningGymTask, as JSON.
            entry: the problem, as the dataset has it.
        Raises:
            VcppoError: its process cannot start, or cannot make the dataset.
        """
        with self._lock:
            process = self._ready()
            if options not in self._made:
                if isinstance(made := self._ask(process, PROCESS_START_S, options), str):
                    self.close()
                    raise VcppoError(f"the process that scores answers of reasoning-gym has no dataset ({made})")
                self._made.add(options)
            score = self._ask(process, self.time_limit_s, options, answer, dict(entry))
            if isinstance(score, str):
                _logger.warning("an answer has no score (%s): %.100r", score, answer)
            return score

    def _ask(self, process: subprocess.Popen[bytes], limit_s: float, *job: Any) -> float | str:
        self._number += 1
        content = pickle.dumps((self._number, *job))
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is received next
            process.stdin.write(len(content).to_bytes(8) + content)
            process.stdin.flush()
        deadline = time.monotonic() + limit_s
        while (message := self._receive(deadline)) is not None:
            if "ready" in message:  # the child before this one died of the job
                self._child, self._made = message["ready"], set()
                return "crash"
            if message["number"] == self._number:
                score: float | str = message["score"]
                return score
        ended = process.poll() is not None
        self._give_up()
        return "crash" if ended else "time"

    def close(self) -> None:
        """End the process."""
        process, self._process, self._child, self._unread = self._process, None, None, b""
        self._made = set()
        if process is not None:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _ready(self) -> subprocess.Popen[bytes]:
        """Return the process, with a child that waits for a job."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            command = [sys.executable, "-P", "-m", "vcppo.tasks.scorer", str(self.memory_limit_mb)]
            self._process = subprocess.Popen(
                [*command, str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=worker_environment(),
                start_new_session=True,  # Ctrl-C is not for it
            )
        deadline = time.monotonic() + PROCESS_START_S
        while self._child is None:
            message = self._receive(deadline)
            if message is None:
                self.close()
                raise VcppoError("the process that scores answers of reasoning-gym cannot start")
            self._child = message.get("ready")
        return self._process

    def _receive(self, deadline: float) -> dict[str, Any] | None:
        """Return the next reply; None at the deadline, or if the process has ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            pause = max(deadline - time.monotonic(), 0.0)
            if not select.select([self._process.stdout], [], [], pause)[0]:
                return None
            chunk = os.read(self._process.stdout.fileno(), 65536)
            if not chunk:
                self._process.wait()
                return None
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _give_up(self) -> None:
        """Kill the child that has run past its deadline; another takes its place."""
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)
        self._child, self._made = None, set()


def shared_scorer(*, time_limit_s: float, memory_limit_mb: int) -> Scorer:
    """Return the scorer of these limits in this process, closed when the process ends."""
    return _shared(os.getpid(), time_limit_s, memory_limit_mb)


@functools.cache
def _shared(process_id: int, time_limit_s: float, memory_limit_mb: int) -> Scorer:
    scorer = Scorer(time_limit_s=time_limit_s, memory_limit_mb=memory_limit_mb)

    def close() -> None:
        if os.getpid() == process_id:  # a forked child does not close its copy
            scorer.close()

    atexit.register(close)
    return scorer


def main() -> None:
    """Let a child score until standard input ends, and another after it if it dies."""
    import reasoning_gym  # noqa: F401  every child has it

    memory_mb, parent = map(int, sys.argv[1:])
    die_with(parent)
    replies = os.dup(1)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    logging.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    own, status = os.getpid(), -1
    while status:  # 0 when standard input has ended
        child = os.fork()
        if not child:
            _serve(replies, own, memory_mb * 2**20)
        _, status = os.waitpid(child, 0)


def _serve(replies: int, parent: int, limit: int) -> NoReturn:
    from vcppo.tasks.reasoning_gym_data import ReasoningGymOptions, dataset_of

    datasets: dict[str, Any] = {}
    die_with(parent)
    with contextlib.suppress(ValueError, OSError):  # a system that knows no such limit still has the parent's of time
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    _send(replies, {"ready": os.getpid()})
    while length := os.read(0, 8):
        number, options, *job = pickle.loads(_read(int.from_bytes(length)))
        score: float | str
        try:
            if options not in datasets:
                datasets[options] = dataset_of(ReasoningGymOptions.model_validate_json(options))
            score = float(datasets[options].score_answer(*job)) if job else 0.0
        except MemoryError:
            score = "memory"
        except Exception:  # noqa: BLE001  a hundred scorers of others, of whatever a policy may write
            score = "not scored"
        _send(replies, {"number": number, "score": score})
    os._exit(0)


def _read(length: int) -> bytes:
    content = b""
    while len(content) < length and (chunk := os.read(0, length - len(content))):
        content += chunk
    return content


def _send(replies: int, message: dict[str, Any]) -> None:
    os.write(replies, json.dumps(message).encode() + b"\n")  # short enough to be written whole or not at all


if __name__ == "__main__":
    main()
