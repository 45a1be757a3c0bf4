"""Text becomes settings, or one line that says where the mistake is."""

import json
import typing
from pathlib import Path

import pytest

from vcppo.config import EVALUATION_OF_TASK, EvaluationSettings, RunSettings, TaskSettings
from vcppo.errors import ConfigError
from vcppo.loading import (
    _differences,
    flatten,
    known_names,
    load_settings,
    may_be_none,
    nest,
    override,
    parse_assignment,
)


def refused(*assignments: str, config: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, assignments)
    return str(caught.value)


def value_of(settings: RunSettings, name: str) -> object:
    for part in name.split("."):
        settings = getattr(settings, part)
    return settings


def test_the_defaults_given_as_text_are_the_defaults():
    plain = RunSettings()
    texts = []
    for name in known_names():
        value = value_of(plain, name)
        texts.append(f"{name}={'none' if value is None else json.dumps(value)}")
    assert load_settings(assignments=texts) == plain


def test_every_setting_says_what_it_does():
    def walk(model: type, prefix: str = "") -> list[str]:
        mute = []
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                mute += walk(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                mute.append(prefix + name)
        return mute

    assert walk(RunSettings) == []


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("gae.lamda_actor=1", "gae.lamda_actor (from --set): no such setting; did you mean gae.lambda_actor?"),
        ("lambda_actor=1", "lambda_actor (from --set): no such setting; did you mean gae.lambda_actor?"),
        ("zzz=1", "zzz (from --set): no such setting; `vcppo settings` lists them all"),
        ("gae.lambda_actor=1.3", "gae.lambda_actor = 1.3 (from --set): input should be less than or equal to 1"),
        ("gae.gamma=0", "gae.gamma = 0 (from --set): input should be greater than 0"),
        ("gae.gamma=nan", "gae.gamma = nan (from --set): input should be a finite number"),
        ("policy.learning_rate=fast", "policy.learning_rate = 'fast' (from --set): input should be a valid number"),
        ("pretrain.steps=-1", "pretrain.steps = -1 (from --set): expected 0 or more, or `converge`"),
        ("steps=none", "steps = 'none' (from --set): input should be a valid integer"),
        ("gae.gamma", "--set gae.gamma: expected key=value"),
        ("task.spread=30", "task.spread = 30: expected less than task.chain_length = 30"),
        ("policy.minibatches=97", "policy.minibatches = 97: expected at most the 96 answers"),
        ("advantage.estimator=grpo", "rollout.samples_per_prompt = 1: advantage.estimator = grpo"),
        ("model.heads=3", "hidden_size 64, heads 3, kv_heads 4: expected hidden_size an even multiple of heads"),
    ],
)
def test_a_mistake_names_setting_value_source_and_what_was_wanted(assignment: str, message: str):
    said = refused("task.chain_length=30", "rollout.prompts=96", assignment)
    assert said.startswith(message)
    assert "\n" not in said


def test_pretraining_to_a_wrong_word_is_told_once_for_each_thing_it_could_be():
    said = refused("pretrain.steps=later")
    assert "pretrain.steps = 'later' (from --set): input should be 'converge'" in said


def test_later_layers_win_and_a_mistake_names_its_own(tmp_path: Path):
    file = tmp_path / "base.toml"
    file.write_text("steps = 7\n[gae]\nlambda_actor = 0.5\nlambda_critic = 0.25\n")
    settings = load_settings(file, ["gae.lambda_actor=0.75"])
    assert (settings.steps, settings.gae.lambda_actor, settings.gae.lambda_critic) == (7, 0.75, 0.25)
    file.write_text("[gae]\nlambda_actor = 2\n")
    assert f"gae.lambda_actor = 2 (from {file})" in refused(config=file)
    assert load_settings(file, ["gae.lambda_actor=1"]).gae.lambda_actor == 1.0
    assert "gae.lambda_actor = 3 (from --set)" in refused("gae.lambda_actor=3", config=file)
    file.write_text("[gae]\nlambda_aktor = 1\n")
    assert refused(config=file) == (f"gae.lambda_aktor (from {file}): no such setting; did you mean gae.lambda_actor?")


def test_none_is_no_value_only_where_there_may_be_none():
    assert load_settings(assignments=["gae.length_adaptive_alpha=none"]).gae.length_adaptive_alpha is None
    assert load_settings(assignments=["kl.placement=none"]).kl.placement == "none"
    assert may_be_none("model.path")
    assert not may_be_none("steps")


def test_values_are_toml_and_bare_words_are_text():
    assert parse_assignment("a = 'x=y'") == ("a", "x=y")
    assert parse_assignment("gae.bootstrap_truncated=true") == ("gae.bootstrap_truncated", True)
    assert parse_assignment("model.path=./runs/policy") == ("model.path", "./runs/policy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", None, "no such file"),
        ("a.toml", b"x = ", "not valid TOML"),
        ("a.toml", b"\xff\xfe", "cannot be read"),
        ("a.toml", "steps = 7".encode("utf-16"), "cannot be read (it is UTF-16, UTF-32 or no text; expected UTF-8"),
        ("a.toml", b"steps = 7 # \xe9", "cannot be read ('utf-8' codec can't decode byte 0xe9"),
        ("a.json", None, "no such file"),
        ("a.json", b"{", "not valid JSON"),
        ("a.json", b"[1]", "expected an object of settings, found list"),
    ],
)
def test_a_file_that_is_no_settings_is_told_by_name(tmp_path: Path, name: str, content: bytes | None, message: str):
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    said = refused(config=file)
    assert said.startswith(f"{file}: ")
    assert message in said


@pytest.mark.parametrize(("name", "text"), [("a.toml", "steps = 7\n"), ("a.json", '{"steps": 7}')])
def test_a_byte_order_mark_before_settings_means_nothing(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert load_settings(tmp_path / name).steps == 7


def test_settings_written_as_json_are_the_same_run(tmp_path: Path):
    settings = load_settings(assignments=["gae.length_adaptive_alpha=0.05", "policy.learning_rate=3e-4", "seed=5"])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    again = load_settings(file)
    assert again == settings
    assert again.digest() == settings.digest()


def asked(settings: RunSettings) -> tuple[int, float, float]:
    return settings.evaluation.samples, settings.evaluation.temperature, settings.evaluation.top_p


def test_every_task_says_how_it_is_evaluated():
    names = typing.get_args(TaskSettings.model_fields["name"].annotation)
    assert set(names) <= set(EVALUATION_OF_TASK)
    for own in EVALUATION_OF_TASK.values():
        assert own.keys() == {"samples", "temperature", "top_p"}
        EvaluationSettings(**own)
    assert asked(RunSettings()) == asked(load_settings()) == (8, 1.0, 1.0)
    assert EvaluationSettings() == RunSettings().evaluation


def test_evaluation_is_as_the_task_has_it_unless_something_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(EVALUATION_OF_TASK, "digits", {"samples": 3, "temperature": 0.6, "top_p": 0.9})
    settings = load_settings(assignments=["evaluation.top_p=0.5"])
    assert asked(settings) == (3, 0.6, 0.5)
    assert RunSettings(task=TaskSettings(digits=2), evaluation=EvaluationSettings(top_p=0.5)).evaluation == (
        settings.evaluation
    )
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    monkeypatch.undo()
    assert load_settings(file) == settings, "a record says what the task had then"
    assert asked(override(settings, {"evaluation.samples": 8, "evaluation.temperature": 1})) == (8, 1.0, 0.5)


def test_what_a_record_has_from_its_task_is_not_said_by_it():
    """So that a run of maths overridden to another task is evaluated as that one has it."""
    record = flatten(RunSettings().model_dump(mode="json"))
    of_maths = {f"evaluation.{name}": value for name, value in EVALUATION_OF_TASK["maths"].items()}
    changed = nest(record | {"task.name": "maths", **of_maths, "evaluation.seed": 4}, "the test")
    said = flatten(_differences(changed))
    assert said == {"task.name": "maths", "evaluation.seed": 4, "method": "vcppo"}
    assert flatten(_differences(nest(record | of_maths, "the test"))).keys() == {
        "evaluation.samples", "evaluation.top_p", "method",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["task=3", "evaluation=3", "task.name=3"])
def test_a_task_or_an_evaluation_that_is_none_is_told(tmp_path: Path, text: str):
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{text.split('=')[0]} = 3 \(from "):
        load_settings(tmp_path / "settings.toml")


def test_the_digest_knows_every_setting_but_the_arm():
    plain = RunSettings()
    assert override(plain, {"arm": "other"}).digest() == plain.digest()
    assert override(plain, {"record.samples": 5}).digest() != plain.digest()
    assert override(plain, {"gae.gamma": 1}).digest() == plain.digest()  # 1 and 1.0 are one number


def test_overrides_are_validated_and_leave_the_original():
    plain = RunSettings()
    changed = override(plain, {"model.path": "x", "gae.lambda_actor": 0.5})
    assert (changed.model.path, changed.gae.lambda_actor, plain.gae.lambda_actor) == ("x", 0.5, 0.95)
    assert override(changed, {"model.path": "none"}) == override(plain, {"gae.lambda_actor": 0.5})
    with pytest.raises(ConfigError, match=r"gae.lambda_actor = 9 \(from trial 3\)"):
        override(plain, {"gae.lambda_actor": 9}, source="trial 3")
