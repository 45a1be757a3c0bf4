"""A cell of a study run by several processes on this machine; the first one replies for all.

`vcppo sweep --processes N` has its workers run cells with `run_cell` here, instead of by themselves. The worker starts
the processes itself, without an agent between: the kernel ends each with it. They meet in a file, and their connections
are those of the loopback interface; nothing listens on the machine's other interfaces.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vcppo import errors
from vcppo.errors import DiskError, StudyError, VcppoError
from vcppo.system.disk import disk_error, is_disk_error
from vcppo.system.files import read_json, write_json
from vcppo.system.processes import MEETING_FILE, PROCESSES, die_with, inherited_lock, run_as_rank
from vcppo.system.redaction import redact_output, redacted
from vcppo.system.temporaries import remove, temporary_for

RUNNER = "vcppo.studies.launch:run_cell"
REPLY = ".answer.json"  # in the cell's folder, while its processes run
DISK_REFUSED = 74  # exit code of the first process, EX_IOERR of sysexits.h
LOOK_S = 0.1
GRACE_S = 15.0  # for the others to end by themselves, once one has failed
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


def run_cell(cell: Path, out: Path) -> Mapping[str, float]:
    """Run a cell's settings by as many processes as the environment gives; return what the last stage reported.

    Raises:
        VcppoError: as the first process raised it.
        StudyError: the processes ended without a reply.
    """
    file = cell / REPLY
    file.unlink(missing_ok=True)
    code = _run_processes([str(cell), str(out)], int(os.environ[PROCESSES]), temporary_for(cell / "meeting"))
    if not file.exists() and code == DISK_REFUSED:
        raise DiskError(f"{cell}: cannot be written; make room, then the same command goes on")
    if not file.exists() and code == -signal.SIGKILL:  # as a worker of one process would end, and be started again
        os.kill(os.getpid(), signal.SIGKILL)
    if not file.exists():
        raise StudyError(f"the processes of cell {cell.name} ended with exit code {code} and without a word")
    reply = read_json(file)
    file.unlink()
    if "error" in reply:
        raise getattr(errors, reply["error"], RuntimeError)(reply["words"])
    result: dict[str, float] = reply["result"]
    return result


def _run_processes(words: list[str], count: int, meeting: Path) -> int:
    """Run `main` in so many processes to their end; return 0, or the exit code of the first that failed."""
    command = [sys.executable, "-m", "vcppo.studies.launch", "--parent", str(os.getpid()), *words]
    common = {**os.environ, **LOOPBACK, "WORLD_SIZE": str(count), MEETING_FILE: str(meeting)}
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(
                subprocess.Popen(command, stdout=sys.stderr, env={**common, **place}, pass_fds=inherited_lock())
            )
        return _wait(processes)
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
        remove(meeting)


def _wait(processes: list[subprocess.Popen[bytes]]) -> int:
    failed, since = 0, 0.0
    while any(process.poll() is None for process in processes):
        failed = failed or next((process.returncode for process in processes if process.returncode), 0)
        since = since or (time.monotonic() if failed else 0.0)
        if failed and time.monotonic() - since > GRACE_S:
            break
        time.sleep(LOOK_S)
    codes = [process.returncode for process in processes]
    for telling in (DISK_REFUSED, -signal.SIGKILL):  # the others only fail because of that one
        if telling in codes:
            return telling
    return failed or next((code for code in codes if code), 0)


def main() -> None:
    """One of the processes; it ends with the worker that started it."""
    parser = argparse.ArgumentParser(prog="python -m vcppo.studies.launch", description="one of a cell's processes")
    parser.add_argument("--parent", type=int, required=True, help="process whose end is this one's")
    parser.add_argument("cell", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    die_with(arguments.parent)
    redact_output()
    run_as_rank(lambda: _run_here(arguments.cell, arguments.out))


def _run_here(cell: Path, out: Path) -> None:
    from vcppo.models.distributed import together
    from vcppo.settings.loading import load_settings
    from vcppo.stages.pipeline import run_cell as run_here
    from vcppo.stages.pipeline import run_stages

    with together() as world:
        if not world.is_main:
            run_stages(load_settings(cell / "settings.json"), out)
            return
        reply: dict[str, Any]
        try:
            reply = {"result": run_here(cell, out)}
        except Exception as error:
            if is_disk_error(error):
                _reply_error(cell, disk_error(error))
                sys.exit(DISK_REFUSED)
            if isinstance(error, VcppoError):
                _reply_error(cell, error)
            raise
        write_json(cell / REPLY, reply)


def _reply_error(cell: Path, error: VcppoError) -> None:
    with suppress(DiskError):  # then the exit code says so
        write_json(cell / REPLY, {"error": type(error).__name__, "words": redacted(str(error))})


if __name__ == "__main__":
    main()
