"""Disk as it is planned, against files as they are written; and a study that would not fit."""

from pathlib import Path

import pytest
from tiny import new_policy, tiny

from vcppo.errors import ConfigError, StudyError
from vcppo.models.checkpoints import save_model, save_state
from vcppo.models.optimiser import Optimiser
from vcppo.planning.disk_estimate import StageDisk, StudyDisk, estimate_disk, together
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cache_contents import size_of
from vcppo.studies import room
from vcppo.studies.room import disk_of, notes_on_room, stages_on_disk
from vcppo.studies.study import Study, load_study
from vcppo.system import files
from vcppo.tasks import make_task

SHAPE = ("model.hidden_size=64", "model.intermediate_size=256", "model.layers=3", "model.heads=4")
CLOSE = 0.15


def of_stage(settings: RunSettings, stage: str, out: Path | None = None) -> StageDisk:
    return next(disk for disk in estimate_disk(settings, out) if disk.stage == stage)


def test_a_model_and_its_state_take_what_is_planned(tmp_path: Path) -> None:
    settings = tiny(*SHAPE)
    policy = new_policy(*SHAPE)
    optimiser = Optimiser(policy, settings.cold_start, 1)
    for parameter in policy.parameters():
        parameter.grad = parameter.detach().clone()
    optimiser.step()
    save_model(policy, make_task(settings.task).tokenizer(), tmp_path / "policy")
    save_state(tmp_path / "state.pt", {"policy": policy.state_dict(), "optimiser": optimiser.state_dict()})
    planned = of_stage(settings, "cold-start")
    assert planned.parts["policy"] == pytest.approx(size_of(tmp_path / "policy"), rel=CLOSE)
    two_states = planned.parts["policy"] + planned.running  # while one replaces the other
    assert two_states / 2 == pytest.approx(size_of(tmp_path / "state.pt"), rel=CLOSE)


def test_stages_take_at_their_fullest_moment_what_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every state is saved; folders are looked at whenever something has been written, before it replaces another."""
    settings = tiny(
        *SHAPE,
        *("record.checkpoint_every=1", "record.checkpoint_every_s=1e-9", "reward_model.steps=3"),
        *("pretrain.steps=6", "pretrain.max_steps=6", "pretrain.evaluate_every=3", "steps=2"),
    )
    most: dict[str, int] = {}
    sync = files.sync

    def look(path: Path) -> None:
        for stage in (tmp_path / "cache").glob("*"):
            most[stage.name] = max(most.get(stage.name, 0), size_of(stage))
        sync(path)

    monkeypatch.setattr(files, "sync", look)
    run_stages(settings, tmp_path)
    stages = ("cold-start", "reward-model", "value-pretraining", "rl")
    shares = {stage: of_stage(settings, stage).fullest / most[stage] for stage in stages}
    assert shares.pop("reward-model") == pytest.approx(1.0, abs=CLOSE)  # its state has responses too: 8 % of so little
    assert shares == pytest.approx(dict.fromkeys(shares, 1.0), abs=0.03)


def test_of_one_iteration_there_is_one_state_and_of_one_measurement_one_critic() -> None:
    once, twice = (of_stage(tiny(f"steps={steps}"), "rl") for steps in (1, 2))
    models = once.parts["policy"] + once.parts["critic"]
    assert twice.running - once.running == pytest.approx(once.running - models, abs=2)  # two states, no model yet
    every = ("pretrain.max_steps=20", "pretrain.steps=20")
    one, several, each = (
        of_stage(tiny(*every, f"pretrain.evaluate_every={count}"), "value-pretraining") for count in (20, 10, 1)
    )
    state, critic = one.parts["moments of the last critic"], one.parts["critic of 20"]
    assert (one.running, several.running, each.running) == (state, state + state + critic, state + critic)


def test_the_study_of_a_real_model_takes_what_was_measured(tmp_path: Path) -> None:
    """`make real` on two cores, its folder looked at every 5 s, without the model itself (541.6 MB) and its wheel."""
    planned = disk_of(load_study("real-critic").cells((0,)), tmp_path, workers=2)
    assert planned is not None
    assert planned.stays == pytest.approx(15.13e9, rel=0.02)
    assert planned.fullest == pytest.approx(21.59e9, rel=0.02)  # two RL stages with their state and both models


def test_states_of_a_pretraining_lie_beside_no_result_of_the_rl_after_it() -> None:
    def disk(stage: str, address: str, stays: int, running: int, *, cached: bool = False) -> StageDisk:
        return StageDisk(stage, address, cached, {"result": stays}, running)

    def runs(*, cached: bool = False) -> list[list[StageDisk]]:
        first = disk("value-pretraining", "a", 10, 50, cached=cached)
        return [[first, disk("rl", "b", 20, 30)], [first, disk("rl", "c", 20, 15)]]

    assert together(runs(), workers=1) == StudyDisk(50, 50 + 30)  # not 50 + 50: b and c come after it
    assert together(runs(), workers=2) == StudyDisk(50, 50 + 30 + 15)
    assert together(runs(cached=True), workers=2) == StudyDisk(40, 40 + 30 + 15)
    assert together([runs()[0]], workers=2) == StudyDisk(30, 10 + 50)  # of one run one stage at a time
    alone = [disk("value-pretraining", "d", 10, 60)]
    assert together([*runs(), alone], workers=2) == StudyDisk(60, 60 + 60 + 30)


def test_a_pretraining_leaves_what_is_requested_and_the_last_moments() -> None:
    """Of 100 measurements: the critic asked for, and three times as much to go on from it."""
    given = ("pretrain.evaluate_every=1", "pretrain.max_steps=100")
    model = of_stage(tiny("pretrain.steps=100"), "value-pretraining").parts["critic of 100"]
    fixed = of_stage(tiny("pretrain.steps=100", *given), "value-pretraining").parts
    assert [name for name in fixed if name.startswith("critic")] == ["critic of 100"]
    converge = of_stage(tiny("pretrain.steps=converge", *given), "value-pretraining").parts
    assert sum(size == model for size in converge.values()) == 2  # the best and the last
    measured = of_stage(tiny("pretrain.steps=100", "pretrain.checkpoints=measured", *given), "value-pretraining").parts
    assert sum(name.startswith("critic of") for name in measured) == 100
    assert fixed["moments of the last critic"] == converge["moments of the last critic"]


def test_runs_that_share_a_stage_add_what_each_wants_of_it(tmp_path: Path) -> None:
    runs = [tiny(f"pretrain.steps={steps}") for steps in ("2", "4", "4")]
    alone = together([estimate_disk(runs[1])], workers=1)
    shared = together([estimate_disk(settings) for settings in runs], workers=1)
    of_rl = sum(of_stage(runs[0], stage).stays for stage in ("rl", "evaluation"))
    assert shared.stays == alone.stays + of_stage(runs[0], "value-pretraining").parts["critic of 2"] + of_rl
    two = together([estimate_disk(settings) for settings in runs], workers=2)
    assert two.fullest > shared.fullest > shared.stays
    before = of_stage(runs[0], "cold-start", tmp_path)
    StageFolder(tmp_path, addresses(runs[0])["cold-start"]).finish({"steps": 1.0}, 1.0)
    assert of_stage(runs[0], "cold-start", tmp_path).cached
    assert together([[of_stage(runs[0], "cold-start", tmp_path)]], workers=1).fullest == 0 < before.fullest


def test_adapters_have_moments_and_the_whole_model_has_none() -> None:
    full, adapted = (
        of_stage(tiny("model.path=Qwen/Qwen2.5-7B", *more), "cold-start") for more in ((), ("lora.rank=16",))
    )
    assert full.stays == adapted.stays == pytest.approx(4 * 7.616e9, rel=0.01)
    assert full.running == pytest.approx((2 * 3 - 1) * full.stays, rel=0.01)
    assert adapted.running == pytest.approx(adapted.stays, rel=0.05)


def study() -> Study:
    base = {"steps": 2, "pretrain.steps": 2}
    return Study.model_validate({"name": "s", "title": "t", "base": base, "grid": {"gae.lambda_actor": [0.9, 1.0]}})


def test_a_study_that_would_not_fit_is_refused_and_a_close_one_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = disk_of(study().cells((0,)), tmp_path, workers=2)
    assert disk is not None
    monkeypatch.setattr(room, "free_bytes", lambda path: disk.fullest)
    assert notes_on_room(disk, tmp_path) == []
    monkeypatch.setattr(room, "free_bytes", lambda path: disk.fullest - 1)
    (note,) = notes_on_room(disk, tmp_path)
    assert "`vcppo cache gc` shows what can go" in note
    monkeypatch.setattr(room, "free_bytes", lambda path: disk.stays // 2)
    with pytest.raises(StudyError, match=r"are free, and this leaves about .* there; expected room for it"):
        notes_on_room(disk, tmp_path)


def test_nothing_is_refused_where_a_models_shapes_are_unknown(tmp_path: Path) -> None:
    unknown = study().model_copy(update={"base": {"model.path": "nobody/unheard-of", "task.name": "maths"}})
    with pytest.raises(ConfigError, match="no shapes known by that name"):
        estimate_disk(unknown.cells((0,))[0].settings)
    assert disk_of(unknown.cells((0,)), tmp_path, workers=1) is None
    assert notes_on_room(None, tmp_path) == []
    assert "unknown" in room.disk_words(None, tmp_path)


def test_of_a_command_its_stages_count_and_all_where_it_has_no_such_stage(tmp_path: Path) -> None:
    cold = stages_on_disk(tiny(), tmp_path, "cold-start")
    assert cold is not None
    assert [disk.stage for disk in cold] == ["cold-start"]
    of_policy = stages_on_disk(tiny("critic.init=policy"), tmp_path, "reward-model")
    assert of_policy is not None
    assert of_policy[-1].stage == "evaluation"


def test_forecast_responses_take_room_by_their_number() -> None:
    few, many = (of_stage(tiny(f"record.forecast_responses={count}"), "forecast-answers").stays for count in (64, 4096))
    assert 40 * few < many <= 64 * few  # a stage has small files too
    assert "samples" not in of_stage(tiny("record.forecast_responses=64"), "forecast").parts
