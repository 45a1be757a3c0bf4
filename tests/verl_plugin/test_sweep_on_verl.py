"""`vcppo sweep STUDY --runner verl` from the command line to MLflow, with a small program in verl's place."""

import csv
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient

from vcppo.cli.main import main
from vcppo.store.cell_folders import CellFolder

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("default")]

STUDY = """
name = "lambdas"
title = "two lambdas on a cluster"
seeds = 1

[base]
"model.path" = "models/policy"
"policy.schedule" = "constant"
"critic.schedule" = "constant"
"critic.init" = "policy"
"rollout.max_tokens" = 256
"record.checkpoint_every" = 1
"evaluation.samples" = 2
"pretrain.steps" = 3
steps = 4

[grid]
"gae.lambda_actor" = [0.9, 1.0]
"""
WORDS = ["--verl", "data.train_files=train.parquet", "--verl", "data.val_files=val.parquet"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root, fake = Path(__file__).parents[2], Path(__file__).parent / "fake"
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fake), str(root), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(fake))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lambdas.toml").write_text(STUDY)
    return tmp_path


def sweep(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sweep", "lambdas.toml", "--runner", "verl", "--out", "runs", *arguments])


@pytest.mark.long
def test_settings_that_verl_does_not_hear_of_are_named_in_a_real_run_too(place: Path) -> None:
    result = sweep(*WORDS, "--set", "guard.max_ratio=5", "--set", "reward.wrong=0")
    (line,) = [line for line in result.output.splitlines() if "verl does not hear of" in line]
    assert "guard.max_ratio" in line
    assert "reward.wrong" in line


def test_a_study_on_verl_is_a_study_like_any_other(place: Path) -> None:
    result = sweep(*WORDS)
    assert result.exit_code == 0, result.output
    client = MlflowClient(f"sqlite:///{place}/runs/mlflow.db")
    experiment = client.get_experiment_by_name("vcppo/lambdas")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.data.tags["vcppo.kind"] == "study"]
    children = [run for run in runs if run.data.tags["vcppo.kind"] == "cell"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    accuracies = {run.data.params["gae.lambda_actor"]: run.data.metrics["rollout/accuracy"] for run in children}
    assert accuracies == {"0.9": 0.9, "1.0": 1.0}  # the fake's accuracy is its algorithm.lam
    assert all(run.data.metrics["eval/aime24/avg_at_2"] == pytest.approx(0.4) for run in children)
    (pretraining,) = [run for run in runs if run.data.tags["vcppo.kind"] == "stage"]  # paid for once
    assert pretraining.data.tags["stage"] == "value-pretraining"
    assert pretraining.data.metrics["pretrain/held_out_loss"] == pytest.approx(1 / 3)
    with open(place / "runs" / "results" / "lambdas" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["gae.lambda_actor"]: row["final_accuracy"] for row in rows} == {"0.9": "0.9", "1.0": "1.0"}
    assert {row["pretrain_steps_done"] for row in rows} == {"3"}

    told = json.loads((place / "runs" / "studies" / "lambdas.verl.json").read_text())
    assert told == {"verl": ["data.train_files=train.parquet", "data.val_files=val.parquet"]}

    again = sweep(*WORDS)
    assert again.exit_code == 0, again.output
    cells = [CellFolder(path).read() for path in (place / "runs/studies/lambdas/cells").iterdir()]
    assert [cell.attempts for cell in cells] == [1, 1]
    other = sweep(*WORDS, "--verl", "trainer.n_gpus_per_node=8")
    assert other.exit_code == 2
    assert (
        "was begun with --verl data.train_files=train.parquet data.val_files=val.parquet: give the same" in other.output
    )


@pytest.mark.long
def test_a_failing_run_of_verl_fails_its_cell_alone(place: Path) -> None:
    result = sweep(*WORDS, "--set", "pretrain.steps=0", "--verl", "+fake.does='fail at 3'")
    assert result.exit_code == 1
    assert result.output.count("RuntimeError: CUDA out of memory; see ") >= 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "ConfigError: --runner verl: data.train_files is not given: expected --verl data.train_files=..."),
        ([*WORDS, "--set", "policy.schedule=linear"], "policy.schedule"),
        ([*WORDS, "--verl", "algorithm.gamma=0.9"], "--verl algorithm.gamma=0.9: vcppo says it; use gae.gamma"),
    ],
)
def test_what_verl_cannot_run_stops_before_anything_starts(place: Path, arguments: list[str], said: str) -> None:
    result = sweep(*arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not (place / "runs").exists()


def test_words_of_verl_need_verl(place: Path) -> None:
    result = CliRunner().invoke(main, ["sweep", "lambdas.toml", "--out", "runs", *WORDS])
    assert result.exit_code == 2
    assert (
        "--verl data.train_files=train.parquet: it would be ignored, expected --runner verl beside it" in result.output
    )


def test_a_dry_run_shows_what_verl_would_be_told(place: Path) -> None:
    result = sweep(*WORDS, "--dry-run", "--set", "task.chain_length=40")
    assert result.exit_code == 0, result.output
    assert "+algorithm.vcppo.lambda_actor=0.9" in result.output
    assert result.output.count("value-pretraining (") == 2
    assert "verl does not hear of task.chain_length" in result.output
    assert not (place / "runs").exists()
