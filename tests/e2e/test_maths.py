"""A run on problems from files, from a model's folder: the same stages as the embedded task's, on sums."""

import subprocess
import sys
from pathlib import Path

import arithmetic
import pytest
from tiny import ASSIGNMENTS

from vcppo.settings.loading import Layer, build_settings, nest, parse_assignment
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal

pytestmark = pytest.mark.e2e

OWN = (
    "task.name=maths",
    "task.maths.max_tokens=40",
    "task.maths.workers=1",
    "cold_start.steps=60",
    "cold_start.batch_tokens=600",
    "cold_start.learning_rate=0.003",
    "micro_batch_tokens=2000",
    "steps=2",
)


def test_a_run_goes_through_all_stages(tmp_path: Path) -> None:
    model = arithmetic.make_model_folder(tmp_path / "model")
    train, evaluate = (
        arithmetic.make_problems(tmp_path / f"{name}.jsonl", count, seed=count, terms=2)
        for name, count in (("train", 60), ("sums", 8))
    )
    paths = (f"model.path={model}", f"task.maths.train={train}", f"task.maths.evaluate={evaluate}")
    small = [text for text in ASSIGNMENTS if not text.startswith(("task.", "model.", "cold_start", "steps", "micro"))]
    assignments = [*small, *OWN, *paths]
    command = [sys.executable, "-m", "vcppo", "train", "--out", str(tmp_path / "out")]
    command += [part for text in assignments for part in ("--set", text)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "eval/sums/avg_at_2" in done.stdout
    assert f"of 60 problems left out of training, for they are in {evaluate} too" in done.stdout + done.stderr

    settings = build_settings([Layer("test", nest(dict(map(parse_assignment, assignments)), "test"))])
    found = {stage: StageFolder(tmp_path / "out", address).path for stage, address in addresses(settings).items()}
    assert list(found) == ["cold-start", "reward-model", "answers", "value-pretraining", "rl", "evaluation"]
    losses = [r["values"]["cold_start/loss"] for r in read_journal(found["cold-start"] / "journal.jsonl")]
    assert losses[0] > 4.0  # log of 328 tokens is 5.8
    assert losses[-1] < 0.6
    records = read_journal(found["rl"] / "journal.jsonl")
    steps = [r["values"] for r in records if r["kind"] == "metrics" and "rollout/accuracy" in r["values"]]
    assert len(steps) == 2
    for values in steps:
        reasons = sum(value for name, value in values.items() if name.startswith("verify/"))
        assert reasons == pytest.approx(values["rollout/unreadable_rate"])
    samples = next(r["columns"] for r in records if r["kind"] == "table" and r["name"] == "samples")
    assert all(text.startswith("What is ") for text in samples["problem"])
    problems = next(r for r in read_journal(found["evaluation"] / "journal.jsonl") if r["kind"] == "table")
    assert problems["columns"]["problem"] == [row["id"] for row in arithmetic.problems(8, seed=8, terms=2)]
