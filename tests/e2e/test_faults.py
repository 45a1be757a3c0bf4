"""A study whose worker, parent and tracking server are killed ends as one that nobody touched."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow_server import Server
from study_processes import CELLS, PATIENCE_S, Sweep, processes, until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    yield server
    server.kill()


@pytest.mark.e2e
@pytest.mark.long
def test_killing_worker_parent_and_server_changes_nothing(tmp_path: Path, server: Server) -> None:
    undisturbed = Sweep(tmp_path / "undisturbed")
    server.start()
    killed = Sweep(tmp_path / "killed", "--tracking-uri", server.uri)
    until(lambda: killed.rl_records() > 2)
    killed.workers()[0].kill()
    server.kill()
    until(lambda: killed.rl_records() > 12)
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.communicate(timeout=PATIENCE_S)
    until(
        lambda: (
            not any(
                "vcppo.studies.worker" in " ".join(p.cmdline()) and p.cwd() == str(tmp_path / "killed")
                for p in processes()
            )
        )
    )
    server.start()
    again = Sweep(tmp_path / "killed", "--tracking-uri", server.uri)
    again.wait()
    undisturbed.wait()
    assert [row["cell"] for row in again.runs()] == CELLS
    assert again.runs() == undisturbed.runs()
