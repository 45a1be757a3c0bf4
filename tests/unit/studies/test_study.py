"""A study file becomes runs, or one line that says what is wrong with it."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from vcppo.errors import ConfigError
from vcppo.settings.loading import Layer, flatten, load_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.search_space import Dimension
from vcppo.settings.task import DigitsTaskSettings
from vcppo.settings.unused import unused
from vcppo.studies.study import Study, load_study, parse_study
from vcppo.studies.trials import distributions, grid_params
from vcppo.tasks.digits import DigitsTask

ABLATIONS = Path(__file__).parents[3] / "ablations"


def study(**parts: object) -> Study:
    return parse_study({"name": "x", "title": "a study", **parts}, "x.toml")


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


# ---- an arm's method is that method, whatever stands beneath it ----

PPO_ARM: dict[str, Any] = {"name": "ppo", "set": {"method": "ppo"}}
VCPPO_ARM: dict[str, Any] = {"name": "vcppo", "set": {"method": "vcppo"}}


def test_what_the_base_says_of_a_slot_of_an_arms_method_gives_way_and_is_told() -> None:
    """One base serves an arm with value pretraining and one without."""
    made = study(arms=[PPO_ARM, VCPPO_ARM], base={"pretrain.steps": 40, "pretrain.batch": 32})
    ppo, vcppo = made.cells([0])
    assert (ppo.settings.pretrain.steps, vcppo.settings.pretrain.steps) == (0, 40)
    assert made.notes([0]) == [
        "pretrain.steps = 40 (from study x, [base]) gives way to 0 of method ppo, named after it; say it with the "
        "method or later to keep it"
    ]


def test_what_a_file_and_flags_say_beneath_a_study_gives_way_too() -> None:
    file, flags = Layer("f.toml", {"pretrain": {"steps": 0}}), Layer("--set", {"gae": {"gamma": 0.5}})
    made = study(arms=[PPO_ARM, VCPPO_ARM]).with_base(file, flags)
    assert [(c.settings.pretrain.steps, c.settings.gae.gamma) for c in made.cells([0])] == [(0, 0.5), ("converge", 0.5)]
    assert [line.split(" (from ")[0] for line in made.notes([0])] == ["pretrain.steps = 0"]


def test_a_method_of_a_flag_holds_over_what_the_file_before_it_says() -> None:
    """As with one run; the arms that name none are that method."""
    file, flags = Layer("f.toml", {"pretrain": {"steps": 40}}), Layer("--set", {"method": "ppo"})
    arms = [{"name": "a", "set": {"policy.epochs": 2}}, {"name": "b", "set": {"pretrain.steps": 5}}]
    a, b = study(arms=arms).with_base(file, flags).cells([0])
    assert (a.settings.method, a.settings.pretrain.steps, b.settings.pretrain.steps) == ("ppo", 0, 5)


def test_a_base_that_gives_way_in_every_arm_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        study(arms=[PPO_ARM, {"name": "apa", "set": {"method": "apa"}}], base={"pretrain.steps": 40}).cells([0])
    assert str(caught.value) == (
        "pretrain.steps (from study x, [base]): every run would ignore it: method ppo, which its arm names, has a "
        "value of its own"
    )


def test_what_arms_have_otherwise_than_their_method_is_told_in_a_line_for_all() -> None:
    arms = [{"name": method, "set": {"method": method}} for method in ("grpo", "rloo", "dapo")]
    made = study(arms=arms, base={"rollout.prompts": 6})
    assert {cell.settings.rollout.prompts for cell in made.cells([0])} == {6}
    assert made.notes([0]) == [
        "rollout.prompts = 6 (from study x, [base]) stays, instead of 12 of method grpo, rloo, dapo"
    ]


def test_a_grid_wins_over_the_method_of_an_arm() -> None:
    made = study(arms=[PPO_ARM], grid={"pretrain.steps": [0, 5]})
    assert [cell.settings.pretrain.steps for cell in made.cells([0])] == [0, 5]
    assert made.notes([0]) == []


def test_a_search_tells_which_defaults_hold_because_a_model_is_given() -> None:
    space = {"policy.learning_rate": {"low": 1e-7, "high": 1e-5, "log": True}}
    made = study(search={"trials": 2, "space": space}, base={"model.path": "m"})
    (line,) = made.notes([0])
    assert line.startswith("model.path = m is given, so unless set cold_start.learning_rate = 1e-05, ")
    assert "policy.learning_rate" not in line
    (cell,) = made.trial_cells("t", {"policy.learning_rate": 3e-6}, [0])
    assert (cell.settings.policy.learning_rate, cell.settings.critic_model.learning_rate) == (3e-6, 1e-5)


def test_a_study_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('\ufeffname = "mine"\ntitle = "t"\ngrid = { "gae.gamma" = [0.9, 1.0] }', encoding="utf-8")
    assert load_study(str(file)).name == "mine"


GRID = {"gae.gamma": [0.9, 1.0]}
MISTAKES = {
    "misspelt setting": ({"grid": {"gae.lamda_actor": [1]}}, "gae.lamda_actor (from study x, [grid]): no such setting; "
                         "did you mean gae.lambda_actor?"),
    "value out of range": ({"grid": {"gae.lambda_actor": [0.9, 1.3]}}, "gae.lambda_actor = 1.3 (from study x, [grid])"),
    "value out of range in an arm": (
        {"arms": [{"name": "a", "set": {"gae.gamma": 2}}]}, "gae.gamma = 2 (from study x, arm a)"),
    "combination": ({"grid": {"rollout.prompts": [96, 3]}}, "policy.minibatches = 4: expected at most the 3 responses"),
    "misspelt key": ({"amrs": []}, "x.toml: amrs: no such key; did you mean arms?"),
    "misspelt key of an arm": (
        {"arms": [{"name": "a", "lable": "A"}]}, "arms.0.lable: no such key; did you mean label?"),
    "no name": ({"arms": [{"set": {}}]}, "x.toml: arms.0.name is missing"),
    "unsafe name": ({"arms": [{"name": "../a"}]}, "arms.0.name = '../a'"),
    "nothing varied": ({}, "nothing is varied"),
    "one name twice": ({"arms": [{"name": "a"}, {"name": "a"}]}, "2 arms are named a"),
    "one arm twice": ({"arms": [{"name": "a"}, {"name": "b"}]}, "a-s0 and b-s0 have the same settings"),
    "one value twice": ({"grid": {"gae.gamma": [1, 1.0]}}, "gae.gamma=1.0-s0 and gae.gamma=1.0-s0 have the same name"),
    "grid over base": ({"base": {"gae.gamma": 1}, "grid": GRID}, "said in [base] and in [grid]"),
    "grid over an arm": (
        {"arms": [{"name": "a", "set": {"gae.gamma": 1}}], "grid": GRID}, "said in arm a and in [grid]"),
    "an arm's grid over itself": (
        {"arms": [{"name": "a", "set": {"gae.gamma": 1}, "grid": GRID}]}, "said in arm a and in the grid of arm a"),
    "an arm's grid over base": (
        {"base": {"gae.gamma": 1}, "arms": [{"name": "a", "grid": GRID}]}, "said in [base] and in the grid of arm a"),
    "an arm's grid over the grid": (
        {"arms": [{"name": "a", "grid": GRID}], "grid": GRID}, "said in [grid] and in the grid of arm a"),
    "an arm's grid of what it ignores": (
        {"arms": [{"name": "a", "set": {"method": "grpo"}, "grid": {"critic.learning_rate": [1e-3]}}]},
        "critic.learning_rate = 0.001"),
    "grid without a list": ({"grid": {"gae.gamma": 1}}, "gae.gamma = 1 (from study x, [grid]): expected a list"),
    "seed swept": ({"grid": {"seed": [0, 1]}}, "seed (from study x, [grid]): a study sets it by `seeds`"),
    "no seed": ({"grid": GRID, "seeds": 0}, "seeds = 0: expected a count of 1 or more"),
    "no base": ({"grid": GRID, "bases": 0}, "bases = 0: expected a count of 1 or more"),
    "a base twice": ({"grid": GRID, "bases": [1, 1]}, "a list of different seeds"),
    "base swept and counted": (
        {"grid": {"base_seed": [0, 1]}, "bases": 2},
        "base_seed (from study x, [grid]): a study sets it by `bases`",
    ),
    "a seed twice": ({"grid": GRID, "seeds": [1, 1]}, "a list of different seeds"),
    "search and grid": ({"grid": GRID, "search": {"space": {"steps": [1]}}}, "[search] beside [[arms]] or [grid]"),
    "search out of range": (
        {"search": {"space": {"gae.gamma": {"low": 0.5, "high": 1.5}}}},
        "gae.gamma = 1.5 (from study x, [search.space])"),
    "search of nothing known": ({"search": {"space": {"gae.gamm": {"low": 0, "high": 1}}}}, "did you mean gae.gamma?"),
    "range upside down": (
        {"search": {"space": {"gae.gamma": {"low": 0.9, "high": 0.5}}}}, "range 0.9 to 0.5: expected low <= high"),
    "half a range": ({"search": {"space": {"gae.gamma": {"low": 0.9}}}}, "expected either low and high"),
    "logarithm of 0": (
        {"search": {"space": {"kl.coefficient": {"low": 0, "high": 1, "log": True}}}}, "with log, low > 0"),
}  # fmt: skip


LOW_HIGH = {"low": 1, "high": 9}
MISFITS = {
    "half a step between whole numbers": (
        "policy.epochs", LOW_HIGH | {"step": 0.5}, "step = 0.5: expected a whole number"),
    "one step and a half": ("policy.epochs", LOW_HIGH | {"step": 1.5}, "step = 1.5: expected a whole number"),
    "a low end between": ("policy.epochs", LOW_HIGH | {"low": 0.5}, "low = 0.5: expected a whole number"),
    "a high end between": ("rollout.prompts", LOW_HIGH | {"high": 8.5}, "high = 8.5: expected a whole number"),
    "both ends between": ("steps", {"low": 1.5, "high": 8.5}, "low = 1.5, high = 8.5: expected whole numbers"),
    "a step between, number or word": (
        "pretrain.steps", {"low": 0, "high": 80, "step": 2.5}, "step = 2.5: expected a whole number"),
    "a step between, number or none": (
        "engine.max_length", {"low": 2, "high": 80, "step": 0.5}, "step = 0.5: expected a whole number"),
    "a step of nothing": ("policy.epochs", LOW_HIGH | {"step": 0}, "step = 0: input should be greater than 0"),
    "a step backwards": ("policy.epochs", LOW_HIGH | {"step": -2}, "step = -2: input should be greater than 0"),
    "a step beyond the range": (
        "policy.epochs", LOW_HIGH | {"step": 9},
        "step = 9: expected no more than high - low, or low = 1 alone is tried"),
    "a real step beyond the range": (
        "gae.gamma", {"low": 0.5, "high": 1.0, "step": 0.6}, "step = 0.6: expected no more than high - low"),
    "an end that no step reaches": (
        "policy.epochs", LOW_HIGH | {"step": 3},
        "high = 9: steps of 3 from 1 end at 7; expected that, or another step"),
    "a real end that no step reaches": (
        "gae.gamma", {"low": 0.1, "high": 1.0, "step": 0.2}, "high = 1.0: steps of 0.2 from 0.1 end at 0.9"),
    "steps of a logarithm": ("policy.epochs", LOW_HIGH | {"step": 2, "log": True}, "with log, low > 0 and no step"),
    "upside down": ("policy.epochs", {"low": 9, "high": 1}, "range 9 to 1: expected low <= high"),
    "an end without number": ("policy.epochs", LOW_HIGH | {"high": "9"}, "high = '9': expected a finite number"),
    "an end that is true": ("policy.epochs", LOW_HIGH | {"low": True}, "low = True: expected a finite number"),
    "an end without end": (
        "critic.learning_rate", {"low": 1e-5, "high": math.inf}, "high = inf: expected a finite number"),
    "a step that is no number": ("gae.gamma", {"low": 0, "high": 1, "step": math.nan}, "step = nan: expected a finite"),
    "beyond all floats": ("critic.learning_rate", {"low": 1, "high": 10**400}, ": expected a finite number"),
    "a range of words": (
        "critic.value_loss", {"low": 0, "high": 1}, "low = 0, high = 1: the setting has no range, expected choices, "
        "each `mse` or `clipped`"),
    "a range of yes and no": ("model.tied", {"low": 0, "high": 1}, "expected choices, each true or false"),
    "a range of yes, no and none": (
        "engine.enforce_eager", {"low": 0, "high": 1}, "expected choices, each true or false or `none`"),
    "a range of texts": ("model.path", {"low": 0, "high": 1}, "expected choices, each a text or `none`"),
    "half an epoch": ("policy.epochs", {"choices": [1, 1.5]}, "choices has 1.5: expected a whole number"),
    "yes epochs": ("policy.epochs", [1, True], "choices has True: expected a whole number"),
    "an epoch in words": ("policy.epochs", {"choices": ["1", 2]}, "choices has '1': expected a whole number"),
    "no such word": ("pretrain.steps", [0, "convrge"], "choices has 'convrge': expected a whole number or `converge`"),
    "none where there is none": ("policy.epochs", ["none"], "choices has 'none': expected a whole number"),
    "a number where words are": ("model.tied", [0, 1], "choices has 0: expected true or false"),
    "one choice twice": ("policy.epochs", [1, 2, 1.0], "choices has 1.0 twice: expected each once"),
    "no choice": ("policy.epochs", {"choices": []}, "choices = []: expected a list of finite numbers, texts"),
    "no list of choices": ("policy.epochs", 3, "choices = 3: expected a list"),
    "a choice without end": ("critic.learning_rate", [1e-4, math.inf], "choices = [0.0001, inf]: expected a list"),
    "choices of choices": ("policy.epochs", [[1, 2], [3]], "choices = [[1, 2], [3]]: expected a list"),
    "a choice out of range": (
        "policy.epochs", [0, 1], "policy.epochs = 0 (from study x, [search.space]): input should"),
    "an end out of range": ("policy.epochs", {"low": 0, "high": 4}, "policy.epochs = 0 (from study x, [search.space])"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "dimension", "message"), MISFITS.values(), ids=MISFITS)
def test_a_search_that_its_setting_cannot_follow_is_refused_at_loading(
    name: str, dimension: object, message: str
) -> None:
    """Optuna would raise in the middle of a study, or try other values than the file says."""
    with pytest.raises(ConfigError) as caught:
        study(search={"space": {name: dimension}}, base=NEEDED.get(name, {}))
    told = str(caught.value)
    assert message in told
    assert told.startswith("x.toml: ")
    assert name in told
    assert "\n" not in told


# What a setting is read beside, so that nothing else is wrong with the study.
NEEDED = {"engine.max_length": {"engine.kind": "vllm"}, "engine.enforce_eager": {"engine.kind": "vllm"}}
FITS = {
    "whole steps": ("policy.epochs", LOW_HIGH | {"step": 2}, IntDistribution(1, 9, step=2)),
    "whole steps with a point": (
        "policy.epochs", {"low": 1.0, "high": 9.0, "step": 2.0}, IntDistribution(1, 9, step=2)),
    "a logarithm of whole numbers": (
        "rollout.prompts", {"low": 4, "high": 96, "log": True}, IntDistribution(4, 96, log=True)),
    "number or word": ("pretrain.steps", {"low": 0, "high": 80, "step": 10}, IntDistribution(0, 80, step=10)),
    "real steps that binary fractions miss": (
        "gae.gamma", {"low": 0.1, "high": 0.7, "step": 0.2}, FloatDistribution(0.1, 0.7, step=0.2)),
    "ends without a point": ("gae.gamma", {"low": 0.5, "high": 1}, FloatDistribution(0.5, 1.0)),
    "real number or word": (
        "critic.initial_value", {"low": -0.5, "high": 0.5}, FloatDistribution(-0.5, 0.5)),
    "number and word": ("pretrain.steps", [10, "converge"], CategoricalDistribution([10, "converge"])),
    "a single value": ("policy.epochs", {"low": 2, "high": 2}, IntDistribution(2, 2)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "dimension", "wanted"), FITS.values(), ids=FITS)
def test_optuna_is_told_what_the_file_says(name: str, dimension: object, wanted: BaseDistribution) -> None:
    base = {"critic.init": "policy"} if name == "critic.initial_value" else {}
    assert distributions(study(search={"space": {name: dimension}}, base=base)) == {name: wanted}


@pytest.mark.parametrize(("parts", "message"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_in_a_study_is_told_in_one_line(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        study(**parts)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_that_is_not_there_is_told_with_those_that_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"no ablations/lambda-gird\.toml; did you mean lambda-grid\?"):
        load_study("lambda-gird")
    with pytest.raises(ConfigError, match=r"mine\.toml: no such file"):
        load_study("mine.toml")


def test_a_study_in_the_working_folder_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "mine.toml").write_text('name = "mine"\ntitle = "t"\ngrid = { "gae.gamma" = [0.9, 1.0] }')
    assert load_study("mine").name == "mine"


def test_a_search_space_has_the_types_of_its_settings() -> None:
    space = {
        "gae.lambda_actor": {"low": 0, "high": 1},
        "pretrain.steps": {"low": 0, "high": 80, "step": 10},
        "policy.dual_clip": {"choices": ["none", 3.0]},
    }
    kinds = {name: type(kind).__name__ for name, kind in distributions(study(search={"space": space})).items()}
    assert kinds == {
        "gae.lambda_actor": "FloatDistribution",
        "pretrain.steps": "IntDistribution",
        "policy.dual_clip": "CategoricalDistribution",
    }
    assert study(search={"space": space}).space()["policy.dual_clip"] == Dimension(choices=(None, 3.0))


def test_the_cells_of_a_trial_have_its_parameters_and_a_seed_each() -> None:
    search = study(search={"space": {"gae.lambda_actor": {"low": 0.5, "high": 1.0}}}, base={"steps": 7})
    cells = search.trial_cells("trial-0004", {"gae.lambda_actor": 0.75}, [1, 2])
    assert [(cell.name, cell.seed, cell.settings.gae.lambda_actor, cell.settings.steps) for cell in cells] == [
        ("trial-0004-s1", 1, 0.75, 7),
        ("trial-0004-s2", 2, 0.75, 7),
    ]


def test_settings_of_a_cell_survive_their_file(tmp_path: Path) -> None:
    for cell in load_study("components").cells([0]):
        path = tmp_path / f"{cell.name}.json"
        path.write_text(json.dumps(cell.settings.model_dump(mode="json")))
        again = load_settings(path)
        assert again == cell.settings
        assert again.digest() == cell.settings.digest()
