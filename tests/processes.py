"""Several processes on one machine: as torchrun starts them, and forked from one that has loaded everything."""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from vcppo.system.processes import MEETING_FILE

ROOT = Path(__file__).parents[1]
PATIENCE_S, GRACE_S = 600.0, 15.0  # for all; for the others, once one has failed
LOADED = ["vcppo.stages.pipeline", "vcppo.evaluation.evaluate"]


def torchrun(count: int, *arguments: str, fails: bool = False) -> str:
    """Run `python -m MODULE ...` or a script as `count` processes; what they printed."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(count),
        *arguments,
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=PATIENCE_S)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def forked(count: int, *arguments: str) -> str:
    """Run the same without torchrun, and without loading torch once more in each process.

    That takes longer than what a test has them do. They meet in a file, as the processes of a sweep's cell.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(LOADED)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [context.Process(target=_run, args=(rank, count, folder, arguments)) for rank in range(count)]
        for rank in ranks:
            rank.start()
        codes = _wait(ranks)
        printed = "".join((Path(folder) / str(rank)).read_text() for rank in range(count))
    assert codes == [0] * count, printed
    return printed


def _run(rank: int, count: int, folder: str, arguments: tuple[str, ...]) -> None:
    """One of the processes."""
    output = os.open(f"{folder}/{rank}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(ROOT)
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count}
    os.environ.update({name: str(number) for name, number in places.items()}, **{MEETING_FILE: f"{folder}/meeting"})
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")


def _wait(ranks: list[ForkServerProcess]) -> list[int | None]:
    """Exit codes; where one fails the others are ended soon."""
    deadline = time.monotonic() + PATIENCE_S
    failed = False
    while any(rank.is_alive() for rank in ranks) and time.monotonic() < deadline:
        if not failed and any(rank.exitcode for rank in ranks):
            failed, deadline = True, time.monotonic() + GRACE_S
        time.sleep(0.05)
    for rank in ranks:
        rank.kill()
        rank.join()
    return [rank.exitcode for rank in ranks]
