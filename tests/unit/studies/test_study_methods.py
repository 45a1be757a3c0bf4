"""An arm's method is that method, whatever stands beneath it."""

from pathlib import Path
from typing import Any

import pytest
from study_trees import PPO_ARM, study

from vcppo.errors import ConfigError
from vcppo.settings.loading import Layer
from vcppo.studies.study import load_study

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
