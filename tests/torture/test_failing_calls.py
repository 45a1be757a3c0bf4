"""The preloaded library sees what is written in C and Rust, which Python's audit hooks do not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torture.call_faults import built

SCRIPT = """
import errno, os, sqlite3, sys
from pathlib import Path
import numpy, safetensors, safetensors.numpy
from torture.call_faults import Calls

below, beside = Path(sys.argv[1]), Path(sys.argv[2])
weights = {"a": numpy.zeros(9000, numpy.float32)}

def sqlite(folder):
    with sqlite3.connect(folder / "a.db") as rows:
        rows.execute("create table t (x)")

for write in (lambda folder: safetensors.numpy.save_file(weights, folder / "a.safetensors"), sqlite):
    counted = Calls(below)
    write(beside)
    assert counted.count == 0
    write(below)
    assert counted.count > 0
    for file in below.iterdir():
        file.unlink()
    Calls(below, errno.ENOSPC, 1, beside / "begun")
    try:
        write(below)
        raise AssertionError("it was written to a full disk")
    except (safetensors.SafetensorError, sqlite3.OperationalError, OSError) as error:
        print(error)
    assert (beside / "begun").exists()
    (beside / "begun").unlink()
"""


def test_safetensors_and_sqlite_meet_a_full_disk(tmp_path: Path) -> None:
    library = built(tmp_path)
    if library is None:
        pytest.skip("no gcc")
    below, beside = tmp_path / "below", tmp_path / "below-this-not"
    below.mkdir()
    beside.mkdir()
    environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, str(below), str(beside)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    of_safetensors, of_sqlite = done.stdout.splitlines()
    assert "os error 28" in of_safetensors
    assert "full" in of_sqlite
