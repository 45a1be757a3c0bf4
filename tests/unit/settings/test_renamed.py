"""A setting that has been renamed is read under its old name, which is said, and hashed under it."""

import json
from pathlib import Path

import pytest
from tiny import tiny

from vcppo.settings.added import ADDED
from vcppo.settings.kinds import layout
from vcppo.settings.loading import known_names, load, load_settings, override
from vcppo.settings.notes import lines
from vcppo.settings.renamed import RENAMED, with_current_names, with_hashed_names
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses
from vcppo.studies.study import parse_study


def test_a_new_name_is_a_setting_and_the_old_one_is_none() -> None:
    assert RENAMED.keys() <= set(known_names())
    assert not set(RENAMED.values()) & set(known_names())


@pytest.mark.parametrize(("new", "old"), RENAMED.items())
def test_a_flag_with_the_old_name_sets_the_new_one_and_says_so(new: str, old: str) -> None:
    on = ["record.truth_every=1"] if "truth" in new else []
    value = 0.5 if new == "pretrain.min_delta" else 7
    former, present = load(assignments=[*on, f"{old}={value}"]), load(assignments=[*on, f"{new}={value}"])
    assert former.settings == present.settings
    assert lines(former.notes) == [f"{old} (from --set) is called {new} now"]
    assert not present.notes


def test_a_file_and_a_study_may_have_old_names(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[reward_model]\nanswers = 32\n")
    resolved = load(file)
    assert resolved.settings.reward_model.responses == 32
    assert lines(resolved.notes) == [f"reward_model.answers (from {file}) is called reward_model.responses now"]
    study = {"name": "s", "title": "t", "why": "w", "base": {"reward_model.answers": 32}, "arms": [{"name": "ppo"}]}
    (cell,) = parse_study(study, "s.toml").cells([0])
    assert cell.settings.reward_model.responses == 32


def test_a_record_of_before_is_read_without_a_word(tmp_path: Path) -> None:
    of_then = "pretrain.held_out_prompts=shared"
    settings = tiny("reward_model.responses=99", "evaluation.responses_at_once=9", of_then)
    record = tmp_path / "settings.json"
    record.write_text(json.dumps(with_hashed_names(settings.model_dump(mode="json"))))
    assert "answers" in json.loads(record.read_text())["reward_model"]
    assert load_settings(record) == settings
    assert not load(record).notes
    assert RunSettings.model_validate(json.loads(record.read_text())) == settings


def test_digests_and_addresses_are_of_the_old_names() -> None:
    settings = tiny("reward_model.responses=99")
    stages = addresses(settings)
    assert stages["reward-model"].settings["reward_model"]["answers"] == 99
    assert "truth_answers" in stages["rl"].settings["record"]
    assert "answers_at_once" not in stages["evaluation"].settings["evaluation"]
    assert override(settings, {"reward_model.answers": 99}).digest() == settings.digest()


def test_names_go_there_and_back() -> None:
    tree = {"record": {"truth_answers": 3, "samples": 1}, "steps": 4, "reward_model": "a mistake"}
    assert with_current_names(tree) == {
        "record": {"truth_responses": 3, "samples": 1},
        "steps": 4,
        "reward_model": "a mistake",
    }
    assert with_hashed_names(with_current_names(tree)) == tree


def test_a_new_setting_is_hashed_only_where_it_is_not_at_its_default() -> None:
    changed = {"pretrain.held_out_prompts"}  # the default is not what was done before
    assert {name for name in ADDED if layout()[name].default != ADDED[name]} == changed
    of_then = tiny("pretrain.held_out_prompts=shared")
    hashed = with_hashed_names(of_then.model_dump(mode="json"))
    assert not {name for name in ADDED if name.split(".")[1] in hashed[name.split(".")[0]]}
    moved = tiny("critic.offset=-1")
    assert with_hashed_names(moved.model_dump(mode="json"))["critic"]["offset"] == -1
    assert moved.digest() != tiny().digest()
