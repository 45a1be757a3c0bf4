"""`python -m vcppo.studies.worker`: a process that runs one cell after another, having imported torch once.

It reads one job per line from standard input, {"cell": folder, "out": folder}, and replies to each with one line on
standard output: {"cell", "state", "error", "traceback", "result"}, or {"cell", "disk": line} where the disk refused,
which is no failure of the cell. A first line {"ready": true} reports that it can begin. A cell's output goes to
standard error, which is the worker's log.

No worker outlives the process that started it.
"""

import argparse
import importlib
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, cast

from vcppo.store.cell_folders import CellFolder
from vcppo.studies.cell_run import Runner, run_and_record
from vcppo.system.disk import disk_error, is_disk_error
from vcppo.system.processes import die_with
from vcppo.system.redaction import redact_output

PIPELINE = "vcppo.stages.pipeline:run_cell"


def main() -> None:
    """Serve jobs until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m vcppo.studies.worker", description="a worker of `vcppo sweep`")
    parser.add_argument("--runner", default=PIPELINE, help="module:function that runs a cell")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="process whose end is this one's")
    arguments = parser.parse_args()
    die_with(arguments.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # born with it blocked, so that none came before
    replies = _take_standard_output()
    redact_output()
    runner = load_runner(arguments.runner)
    _send(replies, {"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        _send(replies, run_job(CellFolder(Path(job["cell"])), Path(job["out"]), runner))


def run_job(folder: CellFolder, out: Path, runner: Runner) -> dict[str, Any]:
    """Run one cell, from its folder to the reply."""
    _log(f"--- {folder.path.name}: begun {time.strftime('%Y-%m-%d %H:%M:%S')}")
    try:
        record = run_and_record(folder, out, runner)
    except OSError as error:
        if not is_disk_error(error):
            raise
        line = str(disk_error(error))
        _log(f"--- {folder.path.name}: {line}")
        return {"cell": folder.path.name, "disk": line}
    file = folder.path / "traceback.txt"
    trace = file.read_text(encoding="utf-8") if record.state == "failed" else None
    _log(trace or f"--- {folder.path.name}: {record.state}")
    reply = {"cell": record.cell, "state": record.state, "error": record.error}
    return reply | {"traceback": trace, "result": record.result}


def _log(text: str) -> None:
    with suppress(OSError):  # the disk may be full
        print(text, file=sys.stderr, flush=True)


def load_runner(name: str) -> Runner:
    """Import `package.module:function`."""
    module, _, function = name.partition(":")
    return cast(Runner, getattr(importlib.import_module(module), function))


def _take_standard_output() -> TextIO:
    """Take standard output for the protocol alone: what the process and its children print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _send(replies: TextIO, message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
