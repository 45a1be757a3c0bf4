"""Faults at the k-th system call of a process that writes: those of libraries in C and Rust are among them.

The library of failing_calls.c has to be there when a process starts, so the harness starts itself again with it.
"""

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from torture import stage_faults
from torture.kinds import Case, Cases, Extent

SOURCE = Path(__file__).with_name("failing_calls.c")
LIBRARY = "failing_calls.so"


class Calls:
    """Counts this process's calls that write below a folder from now on; the `at`-th fails with an errno."""

    def __init__(self, below: Path, error: int = 0, at: int = 0, begun: Path = Path(os.devnull)) -> None:
        self._library = ctypes.CDLL(None)
        self._library.torture_arm(os.fsencode(below), ctypes.c_long(at), error, os.fsencode(begun))

    @property
    def count(self) -> int:
        """The calls so far."""
        self._library.torture_count.restype = ctypes.c_long
        return int(self._library.torture_count())


def is_loaded() -> bool:
    """True if this process was started with the library."""
    return hasattr(ctypes.CDLL(None), "torture_arm")


def built(folder: Path) -> Path | None:
    """Have gcc make the library in a folder; None where there is no gcc."""
    if shutil.which("gcc") is None:
        return None
    library = folder / LIBRARY
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, SOURCE, "-ldl"], check=True)
    return library


def start_again_with_library(module: str, arguments: Sequence[str]) -> None:
    """Replace this process by `python -m module arguments` with the library; return where that is so or cannot be."""
    library = Path(os.environ.get("LD_PRELOAD", ""))
    if library.name == LIBRARY:
        del os.environ["LD_PRELOAD"]  # of what this process starts
        shutil.rmtree(library.parent)
    elif (library_made := built(Path(tempfile.mkdtemp(prefix="torture-calls-")))) is not None:
        sys.stdout.flush()
        os.environ["LD_PRELOAD"] = str(library_made)
        os.execv(sys.executable, [sys.executable, "-m", module, *arguments])


def at_calls(error: int, *codes: int) -> Cases:
    """Return the cases of a run of which one call fails with this errno; the run then ends with one of these codes."""

    def cases(place: Path, extent: Extent) -> Iterator[Case]:
        if not is_loaded():
            pytest.skip("failing_calls.c is not preloaded: no gcc")
        yield from stage_faults.at_each(partial(Calls, error=error), Calls, codes)(place, extent)

    return cases
