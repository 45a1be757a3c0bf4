"""A cell on verl, with a small program in verl's place that logs, saves, fails and resumes as verl does."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from vcppo.errors import StudyError
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.journal import Journal, read_journal
from vcppo.studies.cell_run import run_and_record
from vcppo.studies.verl.cells import run_cell, runs_of
from vcppo.studies.verl.launching import launch_file, read_words
from vcppo.studies.verl.metrics import step_in_verl, translated
from vcppo.studies.verl.records import cut_after

pytestmark = pytest.mark.e2e

FAKE = Path(__file__).parent / "fake"
WORDS = ["data.train_files=train.parquet", "data.val_files=val.parquet"]
SETTINGS = {
    "model.path": "models/policy",
    "policy.schedule": "constant",
    "critic.schedule": "constant",
    "critic.init": "policy",
    "steps": 4,
    "evaluation.samples": 2,
    "pretrain.steps": 3,
    "record.checkpoint_every": 1,
}


@pytest.fixture(autouse=True)
def fake_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKE), root, os.environ.get("PYTHONPATH", "")]))
    monkeypatch.delenv("FAKE_VERL", raising=False)


def cell(out: Path, name: str = "cell", words: list[str] = WORDS, **changes: Any) -> CellFolder:
    study = out / "studies" / "test"
    study.mkdir(parents=True, exist_ok=True)
    launch_file(study).write_text(json.dumps({"verl": words}))
    settings = override(override(RunSettings(), SETTINGS), changes)
    record = CellRecord(study="test", cell=name, arm="vcppo", seed=0)
    return CellFolder.create(study / "cells" / name, record, settings)


def stages(out: Path, folder: CellFolder, words: list[str] = WORDS) -> dict[str, StageFolder]:
    return {run.stage: StageFolder(out, run.address) for run in runs_of(folder.settings(), words)}


def scalars(journal: Path, name: str) -> list[tuple[int, float | None]]:
    told = [r for r in read_journal(journal) if r["kind"] == "metrics" and name in r["values"]]
    return [(r["step"], r["values"][name]) for r in told]


def test_a_cell_pretrains_merges_and_trains(tmp_path: Path) -> None:
    folder = cell(tmp_path)
    result = run_cell(folder.path, tmp_path)
    assert result["pretrain_steps_done"] == 3
    assert result["final_accuracy"] == 0.95  # the fake's accuracy is its algorithm.lam
    assert result["start_length_tokens"] == 101
    assert result["eval/aime24/avg_at_2"] == pytest.approx(0.4)
    assert [(stage.stage, stage.ran) for stage in folder.read().stages] == [("value-pretraining", True), ("rl", True)]
    told = json.loads((folder.path / "verl.json").read_text())
    assert "+algorithm.vcppo.lambda_critic=1.0" in told["rl"]
    assert told["rl"][-2:] == WORDS
    found = stages(tmp_path, folder)
    line = (found["rl"].path / "verl" / "verl.log").read_text().splitlines()[0]
    assert f"critic.model.path={found['value-pretraining'].path / 'critic'}" in line
    journal = found["rl"].path / "journal.jsonl"
    assert scalars(journal, "rollout/accuracy") == [(step, 0.95) for step in range(4)]
    assert scalars(journal, "value/explained_variance") == [(0, None), (1, 0.25), (2, 0.25), (3, 0.25)]
    assert scalars(journal, "eval/aime24/avg_at_2") == [(0, 0.0), (4, pytest.approx(0.4))]
    tables = [(r["name"], r["step"]) for r in read_journal(journal) if r["kind"] == "table"]
    assert tables == [("critic_by_position", step) for step in range(4)]
    assert scalars(found["value-pretraining"].path / "journal.jsonl", "pretrain/held_out_loss")[-1] == (2, 1 / 3)


def test_a_second_cell_takes_the_critic_of_the_first(tmp_path: Path) -> None:
    run_cell(cell(tmp_path).path, tmp_path)
    changes: dict[str, Any] = {"gae.lambda_actor": 0.9}
    other = cell(tmp_path, "other", **changes)
    assert run_cell(other.path, tmp_path)["final_accuracy"] == 0.9
    assert [(stage.stage, stage.ran) for stage in other.read().stages] == [("value-pretraining", False), ("rl", True)]


@pytest.mark.parametrize(
    ("fails", "uncarried", "error"),
    [
        ("fail at 4", 2, r"verl ended with exit code 1: .*RuntimeError: CUDA out of memory; see .*verl\.log"),
        ("kill at 4", 0, r"verl ended with signal 9 \(SIGKILL\): .*fake verl goes on from step 0"),
    ],
)
def test_a_run_that_failed_is_one_line_and_goes_on_from_its_checkpoint(
    tmp_path: Path, fails: str, uncarried: int, error: str
) -> None:
    words = [*WORDS, f"+fake.does='{fails}'"]
    changes: dict[str, Any] = {"pretrain.steps": 0, "record.checkpoint_every": 2}
    folder = cell(tmp_path, words=words, **changes)
    record = run_and_record(folder, tmp_path, run_cell)
    assert record.state == "failed"
    assert re.match(error, record.error or "")
    journal = stages(tmp_path, folder, words)["rl"].path / "journal.jsonl"
    assert scalars(journal, "rollout/accuracy") == [(step, 0.95) for step in range(3)]  # the checkpoint is of two
    if uncarried:  # the worker was killed before it had read what verl said last
        Journal(journal).truncate(uncarried)
    again = run_and_record(folder, tmp_path, run_cell)
    assert (again.state, again.error) == ("done", None)
    assert scalars(journal, "rollout/accuracy") == [(step, 0.95) for step in range(4)]
    assert scalars(journal, "eval/aime24/avg_at_2")[0] == (0, 0.0)
    tables = [r["step"] for r in read_journal(journal) if r["kind"] == "table"]
    assert tables == [0, 1, 2, 3]  # none is said twice


@pytest.mark.parametrize(
    ("does", "error"),
    [
        ("no plugin", "verl fake has not loaded our trainer: expected vcppo.verl_plugin.trainer by its entry point"),
        ("silent", "verl ended well and had logged nothing: fake verl goes on from step 0"),
        ("no merge", "verl.model_merger of"),
    ],
)
def test_what_else_goes_wrong_is_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, does: str, error: str
) -> None:
    monkeypatch.setenv("FAKE_VERL", does)
    record = run_and_record(cell(tmp_path), tmp_path, run_cell)
    assert record.state == "failed"
    assert error in (record.error or "")
    assert "\n" not in (record.error or "")


def test_verl_dies_with_its_worker(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pretrain.steps": 0}
    folder = cell(tmp_path, words=[*WORDS, "+fake.does=wait"], **changes)
    code = "import sys; from pathlib import Path; from vcppo.studies.verl.cells import run_cell; "
    code += "run_cell(Path(sys.argv[1]), Path(sys.argv[2]))"
    worker = subprocess.Popen([sys.executable, "-c", code, str(folder.path), str(tmp_path)])
    try:
        log = (
            tmp_path / "cache" / "rl" / runs_of(folder.settings(), read_words(folder.path.parent.parent))[0].address.key
        )
        log = log / "verl" / "verl.log"
        deadline = time.monotonic() + 60
        while not (log.exists() and "goes on" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        (verl,) = [
            child for child in psutil.Process(worker.pid).children() if "vcppo.studies.verl.launch" in child.cmdline()
        ]
    finally:
        worker.kill()
        worker.wait()
    gone, alive = psutil.wait_procs([verl], timeout=10)
    assert (gone, alive) == ([verl], [])


def test_steps_of_verl_are_iterations_of_ours() -> None:
    data = {
        "response_length/mean": 7,
        "actor/ppo_kl": 0.1,
        "actor/pg_clipfrac_lower": 0.25,
        "critic/vf_loss": None,
        "val-core/aime 24/acc/mean@16": 0.5,
        "val-aux/aime 24/reward/mean@16": -0.5,
        "val-core/aime 24/acc/best@16/mean": 0.9,
        "table": [1],
    }
    training, evaluation = translated(3, data, pretraining=False)
    assert training[0] == 2
    assert training[1] == {
        "rollout/length_tokens": 7,
        "verl/actor/ppo_kl": 0.1,
        "policy/dual_clip_fraction": 0.25,
        "value/loss": pytest.approx(float("nan"), nan_ok=True),
    }
    assert evaluation == (3, {"eval/aime 24/avg_at_16": 0.5, "verl/val-core/aime 24/acc/best_at_16/mean": 0.9})
    assert translated(0, {"critic/vf_loss": 1.0}, pretraining=False) == []
    assert translated(1, {"critic/vf_loss": 1.0}, pretraining=True) == [(0, {"pretrain/loss": 1.0})]


def test_a_reward_stands_in_for_an_accuracy_that_is_not_there() -> None:
    (record,) = translated(2, {"val-core/x/reward/mean@4": 0.25}, pretraining=False)
    assert record == (2, {"eval/x/avg_at_4": 0.25})


def test_what_wset_values_after_the_checkpoint_is_taken_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.metrics(0, {"eval/x/avg_at_2": 0.1})
    for step in range(3):
        journal.table("critic_by_position", step, {"n": [1]})
        journal.metrics(step, {"rollout/accuracy": 0.5})
    journal.metrics(3, {"eval/x/avg_at_2": 0.2})
    cut_after(journal.path, 3, step_of=step_in_verl)
    assert len(read_journal(journal.path)) == 8
    cut_after(journal.path, 2, step_of=step_in_verl)
    assert [record["step"] for record in read_journal(journal.path)] == [0, 0, 0, 1, 1]
    cut_after(journal.path, 0, step_of=step_in_verl)
    assert [record["values"] for record in read_journal(journal.path)] == [{"eval/x/avg_at_2": 0.1}]


def test_a_cell_without_its_study_s_words_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"test\.verl\.json: missing or broken; `vcppo sweep"):
        read_words(tmp_path / "test")
