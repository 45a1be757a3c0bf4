"""One word changes the method, and what a file, a flag or a record said beside it stays or gives way."""

import itertools
import json
from pathlib import Path

import pytest
from setting_values import value_of

from vcppo.errors import ConfigError
from vcppo.settings.loading import load, load_settings, override
from vcppo.settings.methods import METHODS
from vcppo.settings.notes import lines
from vcppo.store.cache import addresses
from vcppo.studies.study import parse_study


def test_what_is_said_wins_over_the_method_wherever_it_stands() -> None:
    for order in itertools.permutations(["method=grpo", "kl.coefficient=0.2"]):
        settings = load_settings(assignments=order)
        assert (value_of(settings, "kl.coefficient"), settings.advantage.estimator) == (0.2, "grpo")


def test_a_flag_changes_the_method_of_a_file_and_keeps_what_the_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('method = "grpo"\nsteps = 7\n[policy]\nlearning_rate = 0.002\n')
    settings = load_settings(file, ["method=cispo"])
    assert settings == load_settings(assignments=["method=cispo", "steps=7", "policy.learning_rate=0.002"])


def file_of(folder: Path, *said: str) -> Path:
    file = folder / "mine.toml"
    file.write_text("\n".join(said))
    return file


# (what a file says, the method that a flag names after it, the setting that is to be the method's, its value)
GIVES_WAY = [
    (["pretrain.steps = 40"], "ppo", "pretrain.steps", 0),
    (["pretrain.steps = 0"], "vcppo", "pretrain.steps", "converge"),
    (["pretrain.steps = 0"], "vapo", "pretrain.steps", "converge"),
    (["pretrain.steps = 0"], "dvpo", "pretrain.steps", "converge"),
    (["gae.lambda_actor = 0.99", "gae.lambda_critic = 0.99"], "ppo", "gae.lambda_actor", 0.95),
    (["gae.lambda_critic = 0.95"], "vcppo", "gae.lambda_critic", 1.0),
    (["gae.length_adaptive_alpha = 0.05"], "ppo", "gae.length_adaptive_alpha", None),
    (["rollout.samples_per_prompt = 8", "advantage.estimator = 'grpo'"], "ppo", "advantage.estimator", "gae"),
    (["policy.loss = 'gspo'"], "dapo", "policy.loss", "clip"),
    (["critic.update_every = 'never'"], "vcppo", "critic.update_every", 1),
    (["token_reward.kind = 'rto'"], "ppo", "token_reward.kind", "none"),
    (["kl.placement = 'none'"], "grpo", "kl.placement", "loss"),
    (["kl.placement = 'loss'", "kl.coefficient = 0.5"], "grpo", "kl.coefficient", 0.04),
    (["method = 'grpo'", "policy.aggregation = 'token-mean'"], "dr-grpo", "policy.aggregation", "fixed-length"),
    (["method = 'ppo'", "gae.lambda_actor = 1.0"], "ppo", "gae.lambda_actor", 0.95),
]


@pytest.mark.parametrize(("said", "method", "name", "wanted"), GIVES_WAY, ids=lambda part: str(part)[:40])
def test_a_method_named_after_a_file_is_that_method(
    tmp_path: Path, said: list[str], method: str, name: str, wanted: object
) -> None:
    found = load(file_of(tmp_path, *said), [f"method={method}"])
    assert value_of(found.settings, name) == wanted
    told = [line for line in lines(found.notes) if line.startswith(f"{name} = ")]
    assert [f" gives way to {wanted!r} of method {method}, named after it; " in line for line in told] == [True]


def test_a_run_by_a_method_after_a_file_is_the_methods_own_run(tmp_path: Path) -> None:
    """All that the file says of its slots, and nothing else, is undone."""
    file = file_of(tmp_path, "steps = 7", "pretrain.steps = 40", "gae.lambda_actor = 1.0")
    assert load_settings(file, ["method=ppo"]) == load_settings(assignments=["method=ppo", "steps=7"])


@pytest.mark.parametrize("order", [("method=ppo", "pretrain.steps=40"), ("pretrain.steps=40", "method=ppo")])
def test_what_is_said_with_the_method_or_after_it_wins_over_the_file_and_the_method(
    tmp_path: Path, order: tuple[str, ...]
) -> None:
    found = load(file_of(tmp_path, "pretrain.steps = 20"), order)
    assert (found.settings.method, found.settings.pretrain.steps, found.notes) == ("ppo", 40, ())


def test_how_long_a_critic_is_pretrained_and_what_a_run_may_spend_stay(tmp_path: Path) -> None:
    file = file_of(tmp_path, "pretrain.steps = 40", "rollout.prompts = 64", "policy.epochs = 2")
    found = load(file, ["method=vapo"])
    settings = found.settings
    assert (settings.pretrain.steps, settings.rollout.prompts, settings.policy.epochs) == (40, 64, 2)
    assert lines(found.notes) == [
        f"rollout.prompts = 64 (from {file}) stays, instead of 12 of method vapo",
    ]


def test_a_slot_that_the_method_leaves_to_the_defaults_stays_and_is_told(tmp_path: Path) -> None:
    file = file_of(tmp_path, "policy.clip_high = 0.28", "policy.learning_rate = 0.5")
    found = load(file, ["method=grpo"])
    assert (value_of(found.settings, "policy.clip_high"), found.settings.policy.learning_rate) == (0.28, 0.5)
    assert lines(found.notes) == [f"policy.clip_high = 0.28 (from {file}) stays, instead of 0.2 of method grpo"]


SHARED = ("pretrain.steps = 40", "pretrain.batch = 32", "pretrain.learning_rate = 0.5", "steps = 7")


@pytest.mark.parametrize("flag", ["method=ppo", "pretrain.steps=0", "method=grpo"])
def test_one_file_serves_two_arms(tmp_path: Path, flag: str) -> None:
    """Settings of it that the second ignores are told, not refused."""
    file = file_of(tmp_path, *SHARED)
    assert load(file).notes == ()
    found = load(file, [flag])
    assert found.settings.steps == 7
    (line,) = [line for line in lines(found.notes) if "not used here" in line]
    assert "pretrain.batch, pretrain.learning_rate" in line
    assert f"(from {file}): not used here, for " in line


def test_it_does_so_though_what_a_flag_adds_is_what_makes_it_a_run(tmp_path: Path) -> None:
    file = file_of(tmp_path, *SHARED, "task.name = 'maths'")
    found = load(file, ["model.path=m", "pretrain.steps=0"])
    assert found.settings.pretrain.steps == 0
    assert lines(found.notes)[0].startswith("pretrain.batch, pretrain.learning_rate (from ")


@pytest.mark.parametrize(
    ("said", "flags"),
    [
        (["vine.samples = 3"], ["steps=3"]),
        (["pretrain.steps = 0", "pretrain.batch = 7"], ["method=grpo"]),
        (["steps = 7"], ["method=ppo", "pretrain.batch=7"]),
        ([*SHARED], ["pretrain.steps=0", "pretrain.batch=7"]),
    ],
)
def test_what_is_ignored_where_it_is_said_is_refused_still(tmp_path: Path, said: list[str], flags: list[str]) -> None:
    with pytest.raises(ConfigError, match="it would be ignored, for "):
        load_settings(file_of(tmp_path, *said), flags)


def test_a_method_after_a_record_is_that_method(tmp_path: Path) -> None:
    """Whatever the run had otherwise than its own method."""
    file = tmp_path / "settings.json"
    before = load_settings(assignments=["pretrain.steps=0", "gae.lambda_critic=0.95", "steps=7"])
    file.write_text(json.dumps(before.model_dump(mode="json")))
    assert load_settings(file, ["method=vapo"]) == load_settings(assignments=["method=vapo", "steps=7"])
    assert load_settings(file) == before
    assert override(before, {"method": "vapo"}) == load_settings(file, ["method=vapo"])


def test_another_method_keeps_what_was_set_and_drops_the_old_methods_own() -> None:
    before = load_settings(assignments=["method=espo", "steps=7", "policy.learning_rate=0.002", "policy.epochs=6"])
    after = override(before, {"method": "grpo"})
    assert after == load_settings(
        assignments=["method=grpo", "steps=7", "policy.learning_rate=0.002", "policy.epochs=6"]
    )
    assert (after.early_stop.deviation, after.advantage.whiten, after.arm) == ("none", "none", "grpo")
    assert override(after, {"method": "espo"}) == before


def test_a_name_of_ones_own_stays() -> None:
    before = load_settings(assignments=["method=grpo", "arm=mine"])
    assert override(before, {"method": "rloo"}).arm == "mine"


@pytest.mark.parametrize("first", ["vcppo", "grpo", "dpo", "espo"])
def test_from_any_method_to_any_other_is_that_other(first: str) -> None:
    before = load_settings(assignments=[f"method={first}"])
    for method in METHODS:
        assert override(before, {"method": method}) == load_settings(assignments=[f"method={method}"])


@pytest.mark.parametrize("method", METHODS)
def test_a_run_from_its_record_is_the_same_run(tmp_path: Path, method: str) -> None:
    settings = load_settings(assignments=[f"method={method}", "seed=4", "policy.learning_rate=0.002"])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    again = load_settings(file)
    assert again == settings
    assert again.digest() == settings.digest()
    assert {s: a.key for s, a in addresses(again).items()} == {s: a.key for s, a in addresses(settings).items()}


def test_the_name_of_a_method_is_no_part_of_a_run() -> None:
    """Settings that are a method's, said one by one, are its run."""
    said = [f"{name}={json.dumps(value)}" for name, value in METHODS["rloo"].settings.items()]
    by_hand, by_name = load_settings(assignments=said), load_settings(assignments=["method=rloo"])
    assert (by_hand.method, by_name.method) == ("vcppo", "rloo")
    assert by_hand.digest() == by_name.digest()
    assert addresses(by_hand)["rl"].key == addresses(by_name)["rl"].key


def test_methods_are_arms_of_a_study() -> None:
    arms = [{"name": method, "set": {"method": method}} for method in METHODS]
    study = parse_study({"name": "s", "title": "t", "seeds": 1, "base": {"steps": 9}, "arms": arms}, "s.toml")
    for cell, method in zip(study.cells(), METHODS, strict=True):
        assert cell.settings == load_settings(assignments=[f"method={method}", "steps=9"])
        assert (cell.arm, cell.swept) == (method, {"method": method})


@pytest.mark.parametrize(
    ("given", "hint"),
    [("vinepo", "did you mean vineppo?"), ("GRPO", "there are vcppo, ppo, "), ("dr_grpo", "did you mean dr-grpo?")],
)
def test_a_method_that_is_none_names_its_nearest(given: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(assignments=[f"method={given}"])
    assert str(caught.value).startswith(f"method = '{given}' (from --set): no such method; {hint}")
    file = tmp_path / "mine.toml"
    file.write_text(f'method = "{given}"')
    with pytest.raises(ConfigError, match=rf"\(from {file}\): no such method"):
        load_settings(file)
