"""Workers on this machine as their parent sees them: started, given a cell, read, killed, started again."""

import json
import os
import selectors
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vcppo.errors import StudyError
from vcppo.settings.fixed import FAILED_STARTS, GOODBYE_S
from vcppo.studies.pool import Death, Reply, log_of
from vcppo.system.processes import PROCESSES, gpus_of_worker, shielded, with_lock

THREADS = {"OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1"}  # of each worker, unless the environment has others


@dataclass
class _Worker:
    index: int
    process: subprocess.Popen[bytes]
    ready: bool = False
    cell: str | None = None
    failed_starts: int = 0
    unread: bytes = field(default=b"", repr=False)


class WorkerPool:
    """`size` worker processes, which die with the thread that made the pool; see `Pool`.

    Args:
        lock: descriptor of a lock, which each worker inherits and holds until it ends.
        first: number of the first worker.
    """

    def __init__(
        self, size: int, *, runner: str, logs: Path, processes: int = 1, lock: int | None = None, first: int = 0
    ) -> None:
        self.runner, self.logs, self.processes, self.lock = runner, logs, processes, lock
        logs.mkdir(parents=True, exist_ok=True)
        self._selector = selectors.DefaultSelector()
        self._workers = {index: _Worker(index, self._start(index)) for index in range(first, first + size)}

    def idle(self) -> list[int]:
        """See Pool: those that are ready and have no cell."""
        return [worker.index for worker in self._workers.values() if worker.ready and worker.cell is None]

    def running(self) -> dict[str, int]:
        """See Pool."""
        return {worker.cell: worker.index for worker in self._workers.values() if worker.cell is not None}

    def give(self, index: int, folder: Path, out: Path) -> None:
        """See Pool."""
        worker = self._workers[index]
        worker.cell = folder.name
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):
            worker.process.stdin.write(json.dumps({"cell": str(folder), "out": str(out)}).encode() + b"\n")
            worker.process.stdin.flush()

    def listen(self, timeout: float) -> Iterator[Reply | Death]:
        """See Pool.

        Raises:
            StudyError: workers end before they can run anything.
        """
        for key, _ in self._selector.select(timeout):
            worker = self._workers[key.data]
            chunk = os.read(key.fd, 65536)
            if not chunk:
                yield self._restart(worker)
                continue
            *lines, worker.unread = (worker.unread + chunk).split(b"\n")
            for line in lines:
                message: dict[str, Any] = json.loads(line)
                worker.ready, worker.failed_starts = True, 0
                if "cell" in message:
                    worker.cell = None
                    yield Reply(worker.index, message["cell"], message.get("disk"))

    def news(self) -> list[str]:
        """See Pool: workers here wait for nothing but each other."""
        return []

    def stop(self, index: int) -> None:
        """See Pool."""
        worker = self._workers[index]
        self._kill(worker)
        worker.ready, worker.cell, worker.unread = False, None, b""
        worker.process = self._start(index)

    def close(self) -> None:
        """See Pool: idle ones may end by themselves."""
        for worker in self._workers.values():
            if worker.cell is None and worker.process.stdin is not None:
                worker.process.stdin.close()
        for worker in self._workers.values():
            if worker.cell is None and worker.ready:
                with suppress(subprocess.TimeoutExpired):
                    worker.process.wait(GOODBYE_S)
            self._kill(worker)
        self._selector.close()

    def _start(self, index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "vcppo.studies.worker", "--runner", self.runner, "--parent", str(os.getpid())]
        with open(log_of(self.logs, index), "ab") as log, shielded():
            try:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(index, self.processes) | ({} if self.lock is None else with_lock(self.lock)),
                    pass_fds=() if self.lock is None else (self.lock,),
                    start_new_session=True,
                )
            except OSError as error:
                raise StudyError(
                    f"worker {index} cannot be started ({error.strerror or error}); where there is room for another "
                    "process, the same command goes on"
                ) from error
        assert process.stdout is not None
        self._selector.register(process.stdout, selectors.EVENT_READ, index)
        return process

    def _kill(self, worker: _Worker) -> None:
        process = worker.process
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.closed:  # it was ended, and no other could be started
            return
        self._selector.unregister(process.stdout)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # with whatever it started
        process.wait()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()

    def _restart(self, worker: _Worker) -> Death:
        was_ready, cell = worker.ready, worker.cell
        code = worker.process.wait()
        if not was_ready:
            worker.failed_starts += 1
            if code > 0 or worker.failed_starts >= FAILED_STARTS:
                raise StudyError(f"worker {worker.index} cannot start: {self._last_line(worker)}")
        reason = _reason(code)
        self.stop(worker.index)
        return Death(worker.index, cell, reason)

    def _last_line(self, worker: _Worker) -> str:
        log = log_of(self.logs, worker.index)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (see {log})"


def _reason(code: int) -> str:
    """Describe how a process ended."""
    if code >= 0:
        return f"exit code {code}"
    hint = ", often for want of memory" if code == -signal.SIGKILL else ""
    return f"signal {-code} ({signal.Signals(-code).name}{hint})"


def _environment(index: int, processes: int) -> dict[str, str]:
    """Return the parent's, with threads that wait passively, and of several GPUs the worker's share.

    One thread per worker, whatever the number of workers: the number of threads changes the last bit of a sum, and
    spinning OpenMP threads slow a busy machine down tenfold. Variables that are set already take precedence.
    """
    devices = gpus_of_worker(index, processes)
    chosen = {PROCESSES: str(processes)} | ({"CUDA_VISIBLE_DEVICES": ",".join(devices)} if devices else {})
    return THREADS | dict(os.environ) | chosen
