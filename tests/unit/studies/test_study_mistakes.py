"""What is wrong with a study file is one line; a search is given to Optuna as the file says."""

import json
import math
from pathlib import Path

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from study_trees import study

from vcppo.errors import ConfigError
from vcppo.settings.loading import load_settings
from vcppo.settings.search_space import Dimension
from vcppo.studies.runners import PipelineRunner
from vcppo.studies.study import Study, load_study
from vcppo.studies.trials import distributions

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
        {"arms": [{"name": "a", "grids": {}}]}, "arms.0.grids: no such key; did you mean grid?"),
    "a label, which nobody read": (
        {"arms": [{"name": "a", "label": "A"}]},
        "x.toml: arms.0.label: no such key; figures call an arm by its name; expected a comment"),
    "one bracket": (
        {"arms": {"name": "a"}},
        "arms = {'name': 'a'}: [arms] is one table; expected [[arms]], with two brackets, for each arm"),
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


@pytest.mark.parametrize("objective", ["final_acuracy", "eval/digits/avg_at_3", "policy/loss"])
def test_an_objective_that_no_run_has_is_refused_before_the_first(objective: str) -> None:
    runner = PipelineRunner(processes=None, verl_settings=())
    with pytest.raises(
        ConfigError, match=rf"objective = {objective}: no run has such a result; expected one of final_a"
    ):
        runner.check(search_by(objective), [0])
    for known in ("final_accuracy", "min_length_fraction", "eval/digits/pass_at_2"):
        runner.check(search_by(known), [0])


def search_by(objective: str) -> Study:
    space = {"gae.lambda_actor": {"low": 0.9, "high": 1.0}}
    search = {"objective": objective, "space": space}
    return Study.model_validate({"name": "s", "title": "t", "base": {"evaluation.samples": 2}, "search": search})
