"""The studies of a real model: what the first one computes the second one takes, and another model is another path."""

from pathlib import Path

import arithmetic
import pytest

from vcppo.cli.sweep import with_settings
from vcppo.settings.plugin import PluginTaskSettings
from vcppo.store.cache import addresses
from vcppo.studies.cells import Cell
from vcppo.studies.study import load_study
from vcppo.tasks.sums import NAME

FIRST, SECOND = "real-critic", "real-small"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return arithmetic.make_model_folder(tmp_path_factory.mktemp("model") / "tiny")


def cells_of(name: str, model: Path) -> dict[tuple[str, int], Cell]:
    study = with_settings(load_study(name), None, [f"model.path={model}"])
    return {(cell.resolved.settings.arm, cell.settings.base_seed): cell for cell in study.cells()}


def test_both_ask_the_same_sums_of_the_model_that_is_given(model: Path) -> None:
    for name in (FIRST, SECOND):
        for cell in cells_of(name, model).values():
            assert cell.settings.model.path == str(model)
            assert isinstance(cell.settings.task, PluginTaskSettings)
            assert cell.settings.task.name == NAME


def test_the_long_study_takes_every_stage_before_rl_from_the_short_one(model: Path) -> None:
    first, second = cells_of(FIRST, model), cells_of(SECOND, model)
    for base in (0, 1):
        done = addresses(first["reward-model", base].settings)
        for arm in ("ppo", "ppo-bounded", "vcppo", "grpo"):
            wanted = addresses(second[arm, base].settings)
            shared = [stage for stage in wanted if stage not in ("rl", "evaluation")]
            assert [wanted[stage].key for stage in shared] == [done[stage].key for stage in shared], arm
            assert wanted["rl"].key != done["rl"].key
        assert "value-pretraining" in addresses(second["vcppo", base].settings)


def test_the_arms_of_the_short_study_differ_in_the_scale_of_the_reward_model_alone(model: Path) -> None:
    cells = cells_of(FIRST, model)
    raw, fitted = (cells[arm, 0].settings.model_dump(mode="json") for arm in ("reward-model", "fitted"))
    assert {name for name in raw if raw[name] != fitted[name]} == {"arm", "critic"}
    assert raw["critic"] | {"scores": "fitted"} == fitted["critic"]
    assert raw["steps"] == 1


def test_every_arm_of_the_long_study_samples_as_many_responses_an_iteration(model: Path) -> None:
    cells = cells_of(SECOND, model)
    assert {arm for arm, _ in cells} == {"ppo", "ppo-bounded", "vcppo", "grpo"}
    assert len(cells) == 12
    assert len({cell.settings.responses_per_iteration for cell in cells.values()}) == 1
    lambdas = {arm: (cells[arm, 0].settings.gae.lambda_actor, cells[arm, 0].settings.gae.lambda_critic)
               for arm in ("ppo", "ppo-bounded", "vcppo")}  # fmt: skip
    assert lambdas == {"ppo": (0.95, 0.95), "ppo-bounded": (0.95, 0.95), "vcppo": (0.95, 1.0)}
