"""A study whose trials and runs are in PostgreSQL, by an MLflow server; both are killed, and the study ends as ever."""

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from mlflow import MlflowClient
from mlflow_server import Server
from optuna.trial import TrialState
from postgresql_server import MISSING, PostgreSQL, running
from study_processes import CELLS, PATIENCE_S, Sweep, until

pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]


@pytest.fixture
def database() -> Iterator[PostgreSQL]:
    with running() as server:
        yield server


@pytest.fixture
def tracking(tmp_path: Path, database: PostgreSQL) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", database.database("mlflow"))
    server.start()
    yield server
    server.kill()


def test_database_and_tracking_server_die_and_come_back(tmp_path: Path, database: PostgreSQL, tracking: Server) -> None:
    undisturbed = Sweep(tmp_path / "undisturbed")
    undisturbed.wait()
    trials = database.database("optuna")
    disturbed = Sweep(tmp_path / "disturbed", "--tracking-uri", tracking.uri, "--storage", trials)
    until(lambda: disturbed.rl_records() > 2)
    tracking.kill()
    database.kill()
    until(lambda: disturbed.rl_records() > 20)
    database.start()
    tracking.start()
    disturbed.process.communicate(timeout=PATIENCE_S)
    assert disturbed.process.returncode in (0, 4)  # 4: it ended before all was delivered, which waits on the disk
    again = Sweep(tmp_path / "disturbed", "--tracking-uri", tracking.uri, "--storage", trials)
    again.wait()
    assert [row["cell"] for row in again.runs()] == CELLS
    assert again.runs() == undisturbed.runs()

    client = MlflowClient(tracking.uri)
    experiment = client.get_experiment_by_name("vcppo/faults")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    cells = [run for run in runs if run.data.tags["vcppo.kind"] == "cell"]
    assert sorted(run.data.tags["cell"] for run in cells) == CELLS
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in cells:
        points = client.get_metric_history(run.info.run_id, "rollout/accuracy")
        assert [point.step for point in points] == list(range(12))
    (name,) = optuna.get_all_study_names(trials)
    stored = optuna.load_study(study_name=name, storage=trials).get_trials()
    assert sorted(trial.user_attrs["name"] for trial in stored) == CELLS
    assert {trial.state for trial in stored} == {TrialState.COMPLETE}
