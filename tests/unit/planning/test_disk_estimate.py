"""Disk as it is planned, against files as they are written; and a study that would not fit."""

from pathlib import Path

import pytest
from tiny import new_policy, tiny

from vcppo.errors import ConfigError, StudyError
from vcppo.models.checkpoints import save_model, save_state
from vcppo.models.optimiser import Optimiser
from vcppo.planning.disk_estimate import StageDisk, estimate_disk, together
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cache_contents import size_of
from vcppo.studies import room
from vcppo.studies.room import disk_of, notes_on_room, stages_on_disk
from vcppo.studies.study import Study
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
    assert planned.running / 2 == pytest.approx(size_of(tmp_path / "state.pt"), rel=CLOSE)


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
    alone = together(estimate_disk(runs[1]), workers=1)
    shared = together((disk for settings in runs for disk in estimate_disk(settings)), workers=1)
    of_rl = sum(of_stage(runs[0], stage).stays for stage in ("rl", "evaluation"))
    assert shared.stays == alone.stays + of_stage(runs[0], "value-pretraining").parts["critic of 2"] + of_rl
    two = together((disk for settings in runs for disk in estimate_disk(settings)), workers=2)
    assert two.fullest > shared.fullest > shared.stays
    before = of_stage(runs[0], "cold-start", tmp_path)
    StageFolder(tmp_path, addresses(runs[0])["cold-start"]).finish({"steps": 1.0}, 1.0)
    assert of_stage(runs[0], "cold-start", tmp_path).cached
    assert together([of_stage(runs[0], "cold-start", tmp_path)], workers=1).fullest == 0 < before.fullest


def test_adapters_have_moments_and_the_whole_model_has_none() -> None:
    full, adapted = (
        of_stage(tiny("model.path=Qwen/Qwen2.5-7B", *more), "cold-start") for more in ((), ("lora.rank=16",))
    )
    assert full.stays == adapted.stays == pytest.approx(4 * 7.616e9, rel=0.01)
    assert full.running == pytest.approx(2 * 3 * full.stays, rel=0.01)
    assert adapted.running == pytest.approx(2 * adapted.stays, rel=0.05)


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
