"""A study file becomes runs: its arms, grid, bases and seeds, and the studies that come with vcppo."""

from pathlib import Path

import pytest
import torch
from optuna.distributions import CategoricalDistribution
from study_trees import PPO_ARM, study

from vcppo.errors import ConfigError
from vcppo.settings.loading import Layer, flatten
from vcppo.settings.run import RunSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.settings.unused import unused
from vcppo.studies.study import load_study
from vcppo.studies.trials import distributions, grid_params
from vcppo.tasks.digits import DigitsTask

ABLATIONS = Path(__file__).parents[3] / "ablations"


@pytest.mark.parametrize("file", sorted(ABLATIONS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_study_file_loads_under_its_own_name(file: Path) -> None:
    assert load_study(str(file)).name == file.stem


@pytest.mark.parametrize(
    ("name", "cells_a_seed"), [("components", 11), ("pretrain-steps", 6), ("lambda-actor", 4), ("lambda-grid", 16)]
)
def test_cells_of_a_seed_come_before_those_of_the_next(name: str, cells_a_seed: int) -> None:
    cells = load_study(name).cells([0, 1, 2])
    assert [cell.seed for cell in cells] == [0] * cells_a_seed + [1] * cells_a_seed + [2] * cells_a_seed
    assert len({cell.name for cell in cells}) == len(cells)
    assert all(cell.settings.seed == cell.seed and cell.settings.arm == cell.arm for cell in cells)


def test_the_arms_of_components_differ_in_what_the_paper_says_they_differ_in() -> None:
    arms = {cell.arm: cell.settings for cell in load_study("components").cells([0])}

    def lambdas(arm: str) -> tuple[float, float]:
        return arms[arm].gae.lambda_actor, arms[arm].gae.lambda_critic

    assert lambdas("ppo") == lambdas("vcppo-no-decouple-0.95") == (0.95, 0.95)
    assert lambdas("vcppo") == lambdas("vcppo-no-pretrain") == (0.95, 1.0)
    assert lambdas("ppo-mc") == lambdas("vcppo-no-decouple-1.0") == (1.0, 1.0)
    starts = {"ppo-bounded", "ppo-recentred", "ppo-constant", "ppo-pessimist"}
    assert {arm for arm in arms if arms[arm].pretrain.steps == 0} == {"ppo", "ppo-mc", "vcppo-no-pretrain", *starts}
    of_ppo = arms["ppo"].model_dump(mode="json")
    for arm in starts:  # PPO but for the start of its critic
        differs = {name for name, value in arms[arm].model_dump(mode="json").items() if value != of_ppo[name]}
        assert differs == {"arm", "critic"}


def test_grpo_samples_as_many_responses_an_iteration_as_the_other_arms() -> None:
    responses = {
        cell.arm: cell.settings.rollout.prompts * cell.settings.rollout.samples_per_prompt
        for cell in load_study("components").cells([0])
    }
    assert set(responses.values()) == {responses["ppo"]}


RATES = ("policy.learning_rate", "critic.learning_rate")
OF_A_SEARCH = {*RATES, "steps", "arm", "seed", "evaluation.every", "evaluation.problems", "evaluation.samples_during"}


def searched_and_run() -> tuple[dict[str, list[RunSettings]], dict[str, RunSettings]]:
    """The cells of `methods-search` by the arm they are of, and those of `methods`, a seed of each."""
    searched: dict[str, list[RunSettings]] = {}
    for cell in load_study("methods-search").cells([0]):
        searched.setdefault(cell.arm.split(",")[0], []).append(cell.settings)
    return searched, {cell.arm: cell.settings for cell in load_study("methods").cells([10])}


def test_learning_rates_are_chosen_on_problems_that_nobody_trains_or_reports_on() -> None:
    searched, run = searched_and_run()
    every = [*(settings for cells in searched.values() for settings in cells), *run.values()]
    assert {settings.task for settings in every} == {every[0].task}  # one split for all
    assert isinstance(every[0].task, DigitsTaskSettings)
    task = DigitsTask(every[0].task)
    asked = {
        problems: {prompt.name for prompt in task.held_out_prompts(problems)}
        for problems in {settings.evaluation.problems for settings in every}
    }
    assert {settings.evaluation.problems for cells in searched.values() for settings in cells} == {"search"}
    assert {settings.evaluation.problems for settings in run.values()} == {"report"}
    assert len(asked["search"]) == len(asked["report"]) == 200
    assert not asked["search"] & asked["report"]
    trained = {prompt.name for prompt in task.training_prompts(20000, torch.Generator().manual_seed(0))}
    assert not trained & (asked["search"] | asked["report"])
    assert asked["report"] == {prompt.name for prompt in DigitsTask(DigitsTaskSettings()).held_out_prompts()}


def test_seeds_that_rates_are_chosen_by_are_not_those_of_the_comparison() -> None:
    assert not {*load_study("methods-search").seed_list()} & {*load_study("methods").seed_list()}


def test_a_method_is_searched_as_it_is_run_but_for_its_rates() -> None:
    searched, run = searched_and_run()
    assert run.keys() - searched.keys() == {"ppo-fresh-critic", "rto-calibrated"}  # that nobody published
    for arm, cells in searched.items():
        for settings in cells:
            tried, ran = (flatten(each.model_dump(mode="json")) for each in (settings, run[arm]))
            assert {name for name in tried if tried[name] != ran[name]} <= OF_A_SEARCH, arm
            assert (settings.rollout.prompts, settings.responses_per_iteration) == (
                run[arm].rollout.prompts,
                run[arm].responses_per_iteration,
            )


def test_every_method_is_tried_at_the_same_rates_the_critics_too_where_it_trains_one() -> None:
    for arm, cells in searched_and_run()[0].items():
        policy = {settings.policy.learning_rate for settings in cells}
        critic = {settings.critic_model.learning_rate for settings in cells}
        assert policy == {1e-4, 3e-4, 1e-3, 3e-3}, arm
        trains_a_critic = unused(cells[0], "critic.learning_rate") is None
        assert critic == ({2e-4, 6e-4, 2e-3} if trains_a_critic else {6e-4}), arm
        assert len(cells) == len(policy) * len(critic)


def test_an_arm_may_go_through_values_of_its_own() -> None:
    of_a = {"name": "a", "grid": {"critic.learning_rate": [1e-3, 2e-3]}}
    arms = [of_a, {"name": "b"}, {"name": "c", "set": {"pretrain.steps": 5}}]
    cells = study(arms=arms, grid={"gae.gamma": [0.9, 1.0]}).cells([0])
    assert [cell.arm for cell in cells] == [
        "a,gae.gamma=0.9,critic.learning_rate=0.001",
        "a,gae.gamma=0.9,critic.learning_rate=0.002",
        "a,gae.gamma=1.0,critic.learning_rate=0.001",
        "a,gae.gamma=1.0,critic.learning_rate=0.002",
        "b,gae.gamma=0.9",
        "b,gae.gamma=1.0",
        "c,gae.gamma=0.9",
        "c,gae.gamma=1.0",
    ]
    assert [cell.settings.critic_model.learning_rate for cell in cells[:2]] == [1e-3, 2e-3]
    assert cells[4].swept == {"pretrain.steps": "converge", "gae.gamma": 0.9, "critic.learning_rate": 6e-4}


def test_arms_and_grid_multiply_and_the_name_says_which() -> None:
    cells = study(
        arms=[{"name": "a"}, {"name": "b", "set": {"pretrain.steps": 5}}], grid={"gae.lambda_actor": [0.9, 1]}
    ).cells([3])
    assert [cell.name for cell in cells] == [
        "a,gae.lambda_actor=0.9-s3",
        "a,gae.lambda_actor=1.0-s3",
        "b,gae.lambda_actor=0.9-s3",
        "b,gae.lambda_actor=1.0-s3",
    ]
    assert cells[0].swept == {"pretrain.steps": "converge", "gae.lambda_actor": 0.9}
    assert cells[3].swept == {"pretrain.steps": 5, "gae.lambda_actor": 1.0}


def test_what_an_arm_sets_of_another_kind_is_none_elsewhere() -> None:
    cells = study(arms=[{"name": "a"}, {"name": "b", "set": {"critic.init": "exact", "critic.sight": 0.5}}]).cells([0])
    assert cells[0].swept == {"critic.init": "reward-model", "critic.sight": None}
    assert cells[1].swept == {"critic.init": "exact", "critic.sight": 0.5}


def test_quoted_dotted_and_nested_names_are_the_same() -> None:
    quoted = study(grid={"gae.lambda_actor": [0.9, 0.95]}, base={"policy.epochs": 2})
    nested = study(grid={"gae": {"lambda_actor": [0.9, 0.95]}}, base={"policy": {"epochs": 2}})
    assert quoted.cells() == nested.cells()


def test_an_arm_overrides_the_base() -> None:
    cells = study(base={"policy.epochs": 2}, arms=[{"name": "a"}, {"name": "b", "set": {"policy.epochs": 3}}]).cells(
        [0]
    )
    assert [cell.settings.policy.epochs for cell in cells] == [2, 3]


def test_none_is_no_value_only_where_a_setting_may_have_none() -> None:
    cells = study(grid={"policy.dual_clip": ["none", 3.0], "kl.placement": ["none", "loss"]}).cells([0])
    assert [(cell.settings.policy.bounds["dual_clip"], cell.settings.kl.placement) for cell in cells] == [
        (None, "none"),
        (None, "loss"),
        (3.0, "none"),
        (3.0, "loss"),
    ]


def test_a_value_with_a_slash_makes_no_folder_below() -> None:
    (cell,) = study(grid={"model.path": ["org/some model"]}).cells([0])
    assert cell.name == "model.path=org_some_model-s0"
    assert cell.settings.model.path == "org/some model"


def test_the_name_of_a_cell_fits_a_file_system() -> None:
    grid = {"model.path": ["a" * 300, "a" * 301]}
    names = [cell.name for cell in study(grid=grid).cells([0])]
    assert all(len(name) < 200 for name in names)
    assert len(set(names)) == 2


def test_seeds_are_a_count_or_a_list() -> None:
    grid = {"gae.gamma": [0.9, 1.0]}
    assert study(grid=grid, seeds=3, first_seed=100).seed_list() == (100, 101, 102)
    assert study(grid=grid, seeds=3).seed_list(5) == (0, 1, 2, 3, 4)
    assert study(grid=grid, seeds=[7, 3]).seed_list(1) == (7,)
    assert study(grid=grid, seeds=[7, 3]).seed_list(None, 50) == (50, 51)
    with pytest.raises(ConfigError, match="3 seeds asked for, study x lists 2"):
        study(grid=grid, seeds=[7, 3]).seed_list(3)


def test_bases_cross_with_seeds_and_base_0_keeps_the_names_of_a_study_without_bases() -> None:
    grid = {"gae.gamma": [0.9, 1.0]}
    before, crossed = study(grid=grid, seeds=2), study(grid=grid, seeds=2, bases=[0, 4])
    cells = crossed.cells()
    assert [(cell.base_seed, cell.seed) for cell in cells[::2]] == [(0, 0), (0, 1), (4, 0), (4, 1)]
    assert [cell.name for cell in cells[4:6]] == ["gae.gamma=0.9-b4-s0", "gae.gamma=1.0-b4-s0"]
    assert {cell.arm for cell in cells} == {"gae.gamma=0.9", "gae.gamma=1.0"}
    old = {cell.name: cell.settings for cell in before.cells()}
    assert old == {cell.name: cell.settings for cell in cells[:4]}


def test_without_bases_a_base_seed_is_a_setting_as_others() -> None:
    made = study(arms=[PPO_ARM], base={"base_seed": 3}, seeds=1)
    assert [(cell.name, cell.base_seed) for cell in made.cells()] == [("ppo-s0", 3)]
    swept = study(grid={"base_seed": [1, 2]}, seeds=1).cells()
    assert [(cell.name, cell.base_seed) for cell in swept] == [("base_seed=1-s0", 1), ("base_seed=2-s0", 2)]


def test_bases_are_a_count_or_a_list_and_a_command_may_ask_for_others() -> None:
    grid = {"gae.gamma": [0.9, 1.0]}
    plain, listed = study(grid=grid), study(grid=grid, bases=[7, 3])
    assert plain.base_list() == (None,)
    assert plain.with_bases().base_list() == (None,)
    assert plain.with_bases(3).base_list() == (0, 1, 2)
    assert plain.with_bases(2, 5).base_list() == (5, 6)
    assert study(grid=grid, bases=3, first_base=1).base_list() == (1, 2, 3)
    assert listed.with_bases(1).base_list() == (7,)
    with pytest.raises(ConfigError, match="3 bases asked for, study x lists 2"):
        listed.with_bases(3)


def test_the_trial_of_a_search_is_scored_on_every_base_and_seed() -> None:
    search = study(search={"space": {"gae.lambda_actor": [0.5, 1.0]}}, bases=2)
    cells = search.trial_cells("trial-0004", {"gae.lambda_actor": 0.5}, [5, 6])
    assert [cell.name for cell in cells] == ["trial-0004-s5", "trial-0004-s6", "trial-0004-b1-s5", "trial-0004-b1-s6"]
    assert [cell.base_seed for cell in cells] == [0, 0, 1, 1]


def test_a_trial_tells_its_base_only_where_a_study_gives_bases() -> None:
    grid = {"gae.gamma": [0.9, 1.0]}
    (first, _), (*_, last) = study(grid=grid).cells([3]), study(grid=grid, bases=2).cells([3])
    space = distributions(study(grid=grid))
    assert set(space) == {"arm", "seed", "gae.gamma"}
    assert grid_params(first, space) == {"arm": "gae.gamma=0.9", "seed": 3, "gae.gamma": 0.9}
    space = distributions(study(grid=grid, bases=2))
    assert space["arm"] == CategoricalDistribution(["gae.gamma=0.9", "gae.gamma=1.0"])
    assert grid_params(last, space) == {"arm": "gae.gamma=1.0", "base_seed": 1, "seed": 3, "gae.gamma": 1.0}


def test_what_the_bases_set_is_refused_elsewhere_whichever_came_first() -> None:
    flag = Layer("--set", {"base_seed": 3})
    wanted = r"base_seed \(from --set\): a study sets it by `bases` and `first_base`"
    with pytest.raises(ConfigError, match=wanted):
        study(grid={"gae.gamma": [0.9, 1.0]}, bases=2).with_base(flag)
    with pytest.raises(ConfigError, match=wanted):
        study(grid={"gae.gamma": [0.9, 1.0]}).with_base(flag).with_bases(2).cells()


def test_more_base_settings_reach_every_cell() -> None:
    file, flags = Layer("f.toml", {"steps": 5, "policy": {"epochs": 2}}), Layer("--set", {"steps": 3})
    cells = study(grid={"gae.gamma": [0.9, 1.0]}, base={"steps": 9}).with_base(file, flags).cells()
    assert {(cell.settings.steps, cell.settings.policy.epochs) for cell in cells} == {(3, 2)}


@pytest.mark.parametrize("name", ["arm", "seed"])
def test_what_is_the_studys_to_say_is_refused_from_a_flag_too(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} \(from --set\): a study sets it by"):
        study(grid={"gae.gamma": [0.9, 1.0]}).with_base(Layer("--set", {name: 3}))


def test_a_setting_is_said_once_by_study_and_flags() -> None:
    with pytest.raises(ConfigError, match=r"gae.gamma \(from study x\): said in --set and in \[grid\]; expected once"):
        study(grid={"gae.gamma": [0.9, 1.0]}).with_base(Layer("--set", {"gae": {"gamma": 0.5}})).cells()
