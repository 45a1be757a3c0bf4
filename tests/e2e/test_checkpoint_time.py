"""States are saved by time too, in every stage, and how far a stage is stands in its folder from its first tokens."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from journals import metrics
from tiny import tiny

from vcppo.engines.torch.engine import TorchEngine
from vcppo.models.checkpoint_clock import CheckpointClock
from vcppo.models.checkpoints import load_state
from vcppo.models.optimiser import Optimiser
from vcppo.rl.trainer import Trainer
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.stages.shared import token_progress
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.stage_progress import Progress, read_progress, write_progress
from vcppo.studies.progress import describe
from vcppo.studies.watch import CellWatch, Glance

pytestmark = pytest.mark.e2e

SELDOM = "record.checkpoint_every=100"
ALWAYS = "record.checkpoint_every_s=1e-9"


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("straight")
    run_stages(tiny(SELDOM), out)
    return out


def folder(out: Path, stage: str, settings: RunSettings) -> Path:
    return StageFolder(out, addresses(settings)[stage]).path


def assert_same(one: Path, other: Path, *stages: str, settings: RunSettings) -> None:
    """Every number in their journals, and every weight they have saved."""
    numbers = [{key: x for key, x in metrics(out).items() if key[0] in stages} for out in (one, other)]
    assert numbers[0] == numbers[1]
    for stage in stages:
        first, second = (folder(out, stage, settings) for out in (one, other))
        files = [file.relative_to(first) for file in sorted(first.rglob("*.safetensors"))]
        assert [file for file in files if (first / file).read_bytes() != (second / file).read_bytes()] == []


class KilledError(Exception):
    """Stands for a kill."""


def killed_in(
    call: int, owner: type, name: str, monkeypatch: pytest.MonkeyPatch, settings: RunSettings, out: Path
) -> None:
    """Run until the given call of a method, counted from 1, and stop there."""
    whole, calls = getattr(owner, name), []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise KilledError
        return whole(*given, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, counted)
        with pytest.raises(KilledError):
            run_stages(settings, out)


def test_a_clock_says_yes_for_steps_and_for_seconds_since_the_last() -> None:
    now = [0.0]
    clock = CheckpointClock(10.0, lambda: now[0])
    said = []
    for moment, by_steps in ((1.0, False), (2.0, True), (11.0, False), (12.0, False), (13.0, False), (22.5, False)):
        now[0] = moment
        said.append(clock.is_due(by_steps))
    assert said == [False, True, False, True, False, True]


def test_a_cold_start_a_reward_model_and_rl_go_on_from_the_step_before(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the clock all of them would begin anew: their steps ask for no state before the 50th or the 100th."""
    settings = tiny(SELDOM, ALWAYS)
    assert addresses(settings)["rl"].key == addresses(tiny(SELDOM))["rl"].key
    killed_in(31, Optimiser, "step", monkeypatch, settings, tmp_path)
    state = load_state(folder(tmp_path, "cold-start", settings) / "state.pt")
    assert state is not None
    assert state["optimiser"]["taken"] == 30
    killed_in(130 + 3, Optimiser, "step", monkeypatch, settings, tmp_path)  # what is left of 160, then 2 of 6
    state = load_state(folder(tmp_path, "reward-model", settings) / "state.pt")
    assert state is not None
    assert state["optimiser"]["taken"] == 2
    killed_in(3, Trainer, "iterate", monkeypatch, settings, tmp_path)
    state = load_state(folder(tmp_path, "rl", settings) / "state.pt")
    assert state is not None
    assert state["step"] == 2
    run_stages(settings, tmp_path)
    assert_same(straight, tmp_path, "cold-start", "reward-model", "answers", "rl", "evaluation", settings=settings)


@pytest.mark.parametrize("fault", ["", "torn", "short journal"])
def test_value_pretraining_goes_on_between_two_critics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Of a state that cannot be used, it goes on from the critic before."""
    length = ("pretrain.steps=12", "pretrain.evaluate_every=5", SELDOM)
    settings = tiny(*length, ALWAYS)
    assert addresses(settings)["value-pretraining"].key == addresses(tiny(*length))["value-pretraining"].key
    run_stages(settings, tmp_path / "killed", until="answers")
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    killed_in(9, Optimiser, "step", monkeypatch, settings, tmp_path / "killed")
    here = folder(tmp_path / "killed", "value-pretraining", settings)
    state = load_state(here / "state.pt")
    assert state is not None
    assert state["optimiser"]["taken"] == 8
    if fault == "torn":
        (here / "state.pt").write_bytes((here / "state.pt").read_bytes()[:100])
    if fault == "short journal":
        lines = (here / "journal.jsonl").read_bytes().splitlines(keepends=True)
        (here / "journal.jsonl").write_bytes(b"".join(lines[: state["records"] - 1]))
    killed_in(6 if fault else 3, Optimiser, "step", monkeypatch, settings, tmp_path / "killed")  # in the 11th update
    run_stages(settings, tmp_path / "killed", until="value-pretraining")
    run_stages(tiny(*length), tmp_path / "whole", until="value-pretraining")
    assert_same(tmp_path / "killed", tmp_path / "whole", "value-pretraining", settings=settings)
    assert not (here / "state.pt").exists()


def test_a_value_pretraining_that_another_run_cut_short_goes_on_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed on the way to 12 updates, asked for 3, then for 12 again: the journal and both critics are as ever."""
    shared = ("pretrain.evaluate_every=5", SELDOM, ALWAYS)
    many, few = (tiny(*shared, f"pretrain.steps={steps}") for steps in (12, 3))
    run_stages(many, tmp_path / "killed", until="answers")
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    killed_in(9, Optimiser, "step", monkeypatch, many, tmp_path / "killed")
    killed_in(3, Optimiser, "step", monkeypatch, few, tmp_path / "killed")  # the way to 3 from the start
    for out in (tmp_path / "killed", tmp_path / "whole"):
        for settings in (few, many) if out.name == "killed" else (many, few):
            run_stages(settings, out, until="value-pretraining")
    assert_same(tmp_path / "killed", tmp_path / "whole", "value-pretraining", settings=many)


def test_responses_of_a_forecast_are_sampled_part_by_part_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcppo.stages.forecast.RESPONSES_AT_ONCE", 8)
    settings = tiny(SELDOM, ALWAYS, "record.forecast_responses=24")
    run_stages(settings, tmp_path / "killed", until="value-pretraining")
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    killed_in(2, TorchEngine, "generate", monkeypatch, settings, tmp_path / "killed")
    partial = folder(tmp_path / "killed", "forecast-answers", settings) / "sampled.pt"
    assert len((load_state(partial) or {})["rollouts"]) == 8
    for out in (tmp_path / "killed", tmp_path / "whole"):
        run_stages(settings, out, until="forecast-answers")
    assert_same(tmp_path / "killed", tmp_path / "whole", "forecast-answers", settings=settings)
    assert not partial.exists()


@pytest.mark.parametrize("fault", ["", "torn"])
def test_responses_that_were_sampled_before_a_kill_are_not_sampled_again(
    straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Of a file that cannot be read, they are, and nothing else is lost."""
    monkeypatch.setattr("vcppo.stages.reward_model.PAIRED_PROMPTS_AT_ONCE", 4)
    settings = tiny(SELDOM, ALWAYS, "reward_model.responses_per_prompt=8")
    plain, asked = TorchEngine.generate, []
    killed_in(3, TorchEngine, "generate", monkeypatch, settings, tmp_path / "killed")
    partial = folder(tmp_path / "killed", "reward-model", settings) / "sampled.pt"
    assert len((load_state(partial) or {})["rollouts"]) == 2 * 4 * 8
    if fault:
        partial.write_bytes(partial.read_bytes()[:100])

    def note(engine: TorchEngine, prompts: Any, *given: Any, **named: Any) -> Any:
        asked.append(len(prompts))
        return plain(engine, prompts, *given, **named)

    monkeypatch.setattr(TorchEngine, "generate", note)
    run_stages(settings, tmp_path / "killed", until="reward-model")
    assert asked == [32] * (16 if fault else 14)
    run_stages(settings, tmp_path / "whole", until="reward-model")
    assert_same(tmp_path / "killed", tmp_path / "whole", "reward-model", settings=settings)
    assert not partial.exists()


def test_every_stage_says_how_many_tokens_it_has_gone_through_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_progress, "EVERY_S", 0.0)
    settings = tiny(SELDOM)
    run_stages(settings, tmp_path)
    for stage in addresses(settings):
        progress = read_progress(folder(tmp_path, stage, settings))
        assert progress is not None, stage
        # demonstrations come 16 at a time, here more than an update asks for; responses end before their limit
        assert 0.2 * progress.expected < progress.tokens < 2.5 * progress.expected, (stage, progress)
        assert progress.seconds > 0


def test_a_rate_and_the_time_left_follow_from_tokens(tmp_path: Path) -> None:
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, tokens=300, expected=1200, seconds=2.0)
    progress = read_progress(tmp_path)
    assert progress == Progress(300, 1200, 2.0)
    assert (progress.tokens_per_s, progress.seconds_left) == (150.0, 6.0)
    assert (Progress(0, 9, 0.0).tokens_per_s, Progress(0, 9, 0.0).seconds_left) == (None, None)
    assert Progress(20, 9, 1.0).seconds_left == 0.0
    (tmp_path / "progress.json").write_text(json.dumps({"tokens": 1}))
    assert read_progress(tmp_path) is None


def test_a_watcher_sees_the_rate_of_the_stage_that_runs(tmp_path: Path) -> None:
    settings, cell = tiny(), tmp_path / "studies" / "train" / "cells" / "one"
    CellFolder.create(cell, CellRecord(study="train", cell="one", arm="vcppo", seed=0), settings)
    address = addresses(settings)["cold-start"]
    CellFolder(cell).add_stage("cold-start", address.key, ran=True)
    where = StageFolder(tmp_path, address).path
    where.mkdir(parents=True)
    assert CellWatch(CellFolder(cell), tmp_path).look() == Glance("cold-start", 0, settings.cold_start.steps)
    write_progress(where, tokens=3000, expected=12000, seconds=2.0)
    glance = CellWatch(CellFolder(cell), tmp_path).look()
    assert describe(glance) == "cold-start 0/160 1,500 tokens/s at most 6 s left in it"
