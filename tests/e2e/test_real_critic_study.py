"""Study real-critic whole, as `make real` runs it, with a model of some thousand weights and sums of two digits."""

import subprocess
import sys
from pathlib import Path

import arithmetic
import pandas as pd
import pytest

from vcppo.analysis.real_critic import LOOKS
from vcppo.cli.exit_codes import NOT_DELIVERED

pytestmark = [pytest.mark.e2e, pytest.mark.long]

SMALL = (
    "task.options.terms=2",
    "task.options.digits=1",
    "task.options.size=50",
    "task.options.held_out=20",
    "micro_batch_tokens=4000",
    "cold_start.learning_rate=0.005",
    "cold_start.steps=60",
    "reward_model.responses=256",
    "reward_model.steps=4",
    "pretrain.steps=4",
    "pretrain.max_steps=4",
    "pretrain.evaluate_every=4",
    "pretrain.pool=64",
    "pretrain.held_out=48",
    "rollout.prompts=16",
)


def sweep(folder: Path, model: Path) -> str:
    sets = [word for text in (f"model.path={model}", *SMALL) for word in ("--set", text)]
    command = (sys.executable, "-m", "vcppo", "sweep", "real-critic", "--bases", "1", "--workers", "1", *sets)
    done = subprocess.run((*command, "--out", str(folder)), capture_output=True, text=True, check=False)
    assert done.returncode in (0, NOT_DELIVERED), done.stdout + done.stderr  # a busy machine's MLflow may lag behind
    return done.stdout + done.stderr


def test_the_study_ends_with_its_figure_and_a_second_call_runs_nothing(tmp_path: Path) -> None:
    model = arithmetic.make_model_folder(tmp_path / "model")
    said = sweep(tmp_path / "runs", model)
    assert "[2/2]" in said
    results = tmp_path / "runs" / "results"
    assert (results / "figures" / "real-critic.png").stat().st_size > 10_000
    captions = (results / "figures" / "captions.md").read_text()
    assert "not over bases" in captions
    assert "`vcppo sweep real-critic --set model.path=PATH/model --set task.options.terms=2 " in captions
    assert str(tmp_path) not in captions
    rows = pd.read_parquet(results / "real-critic" / "positions.parquet")
    measured = rows[rows["stage"] == "value-pretraining"]
    assert {*zip(measured["arm"], measured["step"], strict=True)} == {(arm, step) for arm in LOOKS for step in (0, 4)}
    curves = pd.read_parquet(results / "real-critic" / "curves.parquet")
    assert {*curves.loc[curves["metric"] == "policy/push", "arm"]} == {*LOOKS}, "sums say where a response stops"

    assert "2 cells, 2 ended before" in sweep(tmp_path / "runs", model)
