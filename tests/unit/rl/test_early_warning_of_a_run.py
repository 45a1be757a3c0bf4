"""A run measures where its gradient points without being changed by it, warns in one line, and may end at a warning."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny

from vcppo.rl import early_warning
from vcppo.settings.run import RunSettings
from vcppo.stages import rl as rl_stage
from vcppo.stages.pipeline import rl_result, run_stages
from vcppo.store.cache import StageFolder
from vcppo.store.journal import read_journal
from vcppo.store.summary import curves_of, warned_since
from vcppo.types import Generation, Prompt, Rollout, Verdict

FAST = ("pretrain.steps=0", "evaluation.every=0", "steps=3", "cold_start.steps=60")


def run(out: Path, *more: str) -> StageFolder:
    return run_stages(settings(*more), out, until="rl")["rl"].folder


def settings(*more: str) -> RunSettings:
    return tiny(*FAST, *more)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


def test_measuring_changes_neither_weights_nor_samples(out: Path) -> None:
    off, on = run(out, "record.alignment_every=0"), run(out, "record.alignment_every=2")
    for model in ("policy", "critic"):
        before, after = (load_file(folder.path / model / "model.safetensors") for folder in (off, on))
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
    curves = [curves_of(read_journal(folder.path / "journal.jsonl")) for folder in (off, on)]
    assert not [name for name in curves[0] if name.startswith("alignment/")]
    assert sorted(curves[1]["alignment/score_z"]) == [0, 2]
    assert sorted(curves[1]["early_warning/length_falls"]) == [0, 1, 2]
    same = ("rollout/length_tokens", "policy/grad_norm", "value/grad_norm", "policy/entropy")
    assert all(curves[0][name] == curves[1][name] for name in same)


STOP = ("guard.on_warning=stop", "record.alignment_every=0", "steps=4", "record.checkpoint_every=1")


@pytest.fixture
def falls_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warn in the second iteration of every run."""
    monkeypatch.setattr(early_warning, "warnings_of", lambda run: ("length_falls",) if len(run) > 1 else ())


def test_a_warning_may_end_a_run_which_is_then_whole(
    out: Path, falls_at_one: None, capsys: pytest.CaptureFixture[str]
) -> None:
    uses = run_stages(settings(*STOP), out)
    rl = uses["rl"].folder
    assert rl_result(rl) == rl_result(rl) | {"steps": 2.0, "early_warning_at": 1.0}
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith(("iteration", "RL ends"))]
    assert [line.split(":")[0] for line in said] == ["iteration 1", "RL ends after iteration 1"]
    assert "gae.lambda_actor = 1 (it is 0.95)" in said[0]
    records = read_journal(rl.path / "journal.jsonl")
    assert [record["step"] for record in records if record["kind"] == "metrics"] == [0, 1]
    assert {record["step"] for record in records if record.get("name") == "samples"} == {0, 1}
    evaluated = read_journal(uses["evaluation"].folder.path / "journal.jsonl")
    assert {record["step"] for record in evaluated} == {2}
    assert not any(use.ran for use in run_stages(settings(*STOP), out).values())


def test_killed_after_its_warning_it_ends_where_it_would_have(
    tmp_path: Path, falls_at_one: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rl_stage, "save_model", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, *STOP)
    ended = run(tmp_path, *STOP)
    assert (ended.result or {})["steps"] == 2.0
    curves = curves_of(read_journal(ended.path / "journal.jsonl"))
    assert warned_since(curves) == {"length_falls": 1}
    assert sorted(curves["rollout/accuracy"]) == [0, 1]


def test_a_warning_is_said_once_and_remembered_by_who_resumes(
    falls_at_one: None, capsys: pytest.CaptureFixture[str]
) -> None:
    generation = Generation((1, 2), (-1.0, -1.0), "stop")
    rollout = Rollout(Prompt("one", "1+1", "2"), (1,), generation, "2", Verdict.CORRECT)
    now = early_warning.observed([rollout], math.nan)
    assert dataclasses.astuple(now) == pytest.approx((1, 2.0, 0.0, 0.0, 1.0, math.nan), rel=0, abs=0, nan_ok=True)
    first, again, earlier = (early_warning.EarlyWarning() for _ in range(3))
    metrics = [first.watch(now, step=step, advice=lambda rule: "do this") for step in range(3)]
    assert [one["early_warning/length_falls"] for one in metrics] == [0.0, 1.0, 1.0]
    again.load(first.state(), 3)
    assert again.since == {"length_falls": 1}
    again.watch(now, step=3, advice=lambda rule: "do this")
    said = capsys.readouterr().err
    assert said.count("early warning") == 1
    assert said.endswith("; do this\n")
    earlier.load(again.state(), 1)
    assert (earlier.since, len(earlier.state()["run"]), len(again.state()["run"])) == ({}, 1, 4)
