"""A bench for studies whose cells are played, and their processes."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fake_cells import FAKE, PARENT, Bench

Parent = Callable[[dict[str, Any]], subprocess.Popen[bytes]]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    return Bench(tmp_path)


@pytest.fixture
def parent(bench: Bench) -> Iterator[Parent]:
    """Starts studies in processes of their own, none of which outlives the test."""
    with ExitStack() as stack:

        def start(tree: dict[str, Any]) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-c", PARENT, str(bench.out), json.dumps(tree)])
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start
