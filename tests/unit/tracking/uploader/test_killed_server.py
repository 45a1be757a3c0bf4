"""A real tracking server that is killed in the middle of a study."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_study import STARTED, FakeStage, FakeStudy, iterate
from mlflow_server import Server

from vcppo.tracking.mlflow_client import MlflowStore
from vcppo.tracking.uploader import Uploader


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.kill()


@pytest.mark.long
@pytest.mark.e2e
def test_a_server_killed_in_the_middle_hears_everything_once_when_it_is_back(study: FakeStudy, server: Server) -> None:
    server.start()
    cell = study.cell("ppo-s0")
    stage: FakeStage = study.enter(cell, "rl", "a")
    journal = stage.journal
    uploader = Uploader(study.out, study.name, server.uri, "killed")
    uploader.start()

    def wait_until(said: str) -> None:
        deadline = time.monotonic() + 60
        while said not in uploader.status and time.monotonic() < deadline:
            time.sleep(0.1)
        assert said in uploader.status

    for step in range(30):
        iterate(journal, step)
    wait_until("delivered")
    server.kill()
    for step in range(30, 60):
        iterate(journal, step)
        journal.table("samples", step, {"problem": ["1"], "verdict": ["correct"]})
    wait_until("not delivered since")
    server.start()
    cell.update(state="done", finished=STARTED + 60)
    wait_until("delivered")
    assert uploader.close(60) == 0

    store = MlflowStore(server.uri, "killed")
    (child,) = store.find({"vcppo.kind": "cell"})
    assert child.status == "FINISHED"
    for metric in child.metrics:
        assert [point.step for point in store.points(child, [metric])] == list(range(60))
    assert sorted(store.tables(child, "samples")) == list(range(30, 60))
