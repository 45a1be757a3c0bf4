"""One of several processes ends right after its work, with its exit code and all that it printed."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import atexit, sys
from vcppo.system.processes import run_as_rank
atexit.register(lambda: print("finalised"))
def main():
    print("worked")
    {end}
run_as_rank(main)
print("went on")
"""


@pytest.mark.parametrize(
    ("end", "code", "error"),
    [
        ("pass", 0, ""),
        ("sys.exit(2)", 2, ""),
        ("sys.exit('no')", 1, "no\n"),
        ("sys.exit()", 0, ""),
        ("raise ValueError('x')", 1, "ValueError: x\n"),
    ],
)
def test_one_of_several_ends_without_finalisation(end: str, code: int, error: str) -> None:
    done = _run(end, processes=2)
    assert (done.returncode, done.stdout) == (code, "worked\n")
    assert done.stderr.endswith(error)
    assert bool(done.stderr) == bool(error)


def test_one_alone_goes_on_as_ever() -> None:
    assert _run("pass", processes=1).stdout == "worked\nwent on\nfinalised\n"


def _run(end: str, *, processes: int) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", SCRIPT.format(end=end)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
