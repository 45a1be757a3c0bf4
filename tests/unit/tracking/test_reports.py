"""A report of `vcppo diagnose` in MLflow: its numbers, its verdicts, its files; and an MLflow that is away."""

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from diagnosis_report_example import report as example_report
from mlflow_server import free_port

from vcppo.cli.diagnose import EXPERIMENT
from vcppo.cli.main import main
from vcppo.cli.output import address_line
from vcppo.diagnosis.report.logged import as_logged
from vcppo.diagnosis.report.writing import NUMBERS, PAGE
from vcppo.errors import ConfigError
from vcppo.tracking.mlflow_client import MlflowStore
from vcppo.tracking.reports import log_report, report_address
from vcppo.tracking.uploader import default_tracking_uri


def responses(folder: Path) -> Path:
    """A dump with values that are 1 too low."""
    rows = [
        {
            "prompt": f"question {number // 4}",
            "response": "word " * (4 + number % 5),
            "score": float(number % 3 == 0),
            "values": [0.6 * float(number % 3 == 0) - 0.9] * (4 + number % 5),
        }
        for number in range(64)
    ]
    file = folder / "log.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_numbers_verdicts_and_files_are_one_finished_run(tmp_path: Path) -> None:
    report = example_report()
    for name in (NUMBERS, PAGE):
        (tmp_path / name).write_text(name)
    logged = as_logged(report, tmp_path, began=time.time())
    first = report.critics[0]
    assert first.regressor is not None
    assert logged.metrics[f"{first.name}/regressor/bias"] == first.regressor.bias.value
    assert logged.metrics[f"{first.name}/regressor/bias/low"] == first.regressor.bias.low
    assert logged.metrics["data/responses"] == report.data.responses
    for one in first.alignment:
        name = f"{first.name}/alignment/{one.method}/lambda_{one.gae_lambda:g}/with_reward"
        assert logged.metrics.get(name) == one.with_reward.value
    assert not [name for name in logged.metrics if "from_start" in name], "curves stay in the file"
    assert len(logged.tags) == len({(one.critic, one.code) for one in report.verdicts})
    address = report_address(None, tmp_path)
    assert address == default_tracking_uri(tmp_path)
    log_report(logged, address, experiment="reports", artifacts=tmp_path / "mlartifacts")
    store = MlflowStore(address, "reports", tmp_path / "mlartifacts")
    (run,) = store.find({"vcppo.kind": "report"})
    assert run.status == "FINISHED"
    assert run.params["answers"] == report.data.source
    assert len(run.metrics) == len(logged.metrics)
    assert {point.value for point in store.points(run, ["data/responses"])} == {report.data.responses}
    assert sum(name.startswith("verdict/") for name in run.tags) == len(logged.tags)
    assert (store.read(run, NUMBERS), store.read(run, PAGE)) == (NUMBERS, PAGE)


def test_the_command_logs_and_says_where(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["diagnose", "--answers", str(responses(tmp_path)), "--out", str(tmp_path), "--mlflow"]
    )
    assert done.exit_code == 0, done.output
    *_, last = done.output.strip().splitlines()
    assert last == address_line(default_tracking_uri(tmp_path))
    (run,) = MlflowStore(default_tracking_uri(tmp_path), EXPERIMENT, tmp_path / "mlartifacts").find(
        {"vcppo.kind": "report"}
    )
    assert run.status == "FINISHED"


def test_a_server_that_is_away_is_one_line_and_the_report_is_there(tmp_path: Path) -> None:
    out, server = tmp_path / "out", f"http://127.0.0.1:{free_port()}"
    done = CliRunner().invoke(
        main,
        ["diagnose", "--answers", str(responses(tmp_path)), "--out", str(out), "--mlflow", "--tracking-uri", server],
    )
    assert done.exit_code == 2
    *_, last = done.output.strip().splitlines()
    assert last.startswith(f"TrackingError: the report is written, and did not reach MLflow: {server}:")
    assert (out / NUMBERS).exists()
    assert (out / PAGE).exists()


@pytest.mark.parametrize("address", ["./mlruns", "mlruns", "file:///tmp/mlruns", "/tmp/mlruns"])
def test_a_folder_is_refused_before_anything_is_read(address: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        main, ["diagnose", "--answers", str(tmp_path / "none.jsonl"), "--tracking-uri", address, "--out", str(tmp_path)]
    )
    assert done.exit_code == 2
    assert done.output.startswith(f"ConfigError: --tracking-uri {address}: a folder, and MLflow takes no runs into")
    assert len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize("address", ["http://host:5000", "sqlite:///x.db", "postgresql://a/b", "databricks"])
def test_servers_and_databases_are_taken(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert report_address(address, tmp_path) == address
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert report_address(None, tmp_path) == address
    with pytest.raises(ConfigError, match="expected an address like"):
        report_address("sqlite:x", tmp_path)
