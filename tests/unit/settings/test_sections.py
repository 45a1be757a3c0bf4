"""Text becomes settings, or one line that says where the mistake is."""

import json
import typing
from pathlib import Path
from typing import Any

import pytest

from vcppo.errors import ConfigError
from vcppo.settings.defaults import EVALUATION_OF_TASK, OF_A_GIVEN_MODEL
from vcppo.settings.evaluation import EvaluationSettings
from vcppo.settings.kinds import KINDS, layout, recorded_names
from vcppo.settings.loading import (
    _differences,
    flatten,
    known_names,
    load,
    load_settings,
    may_be_none,
    nest,
    override,
    parse_assignment,
)
from vcppo.settings.model import LoraSettings, ModelSettings
from vcppo.settings.notes import lines
from vcppo.settings.optimiser import OptimiserSettings
from vcppo.settings.policy import ClippedPolicySettings
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.store.cache import addresses


def refused(*assignments: str, config: Path | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(config, assignments)
    return str(caught.value)


def value_of(settings: RunSettings, name: str) -> Any:
    return flatten(settings.model_dump(mode="json"))[name]


def test_the_defaults_given_as_text_are_the_defaults() -> None:
    plain = RunSettings()
    texts = []
    for name in filter(recorded_names().__contains__, known_names()):
        value = value_of(plain, name)
        texts.append(f"{name}={'none' if value is None else json.dumps(value)}")
    assert load_settings(assignments=texts) == plain


def test_every_setting_says_what_it_does() -> None:
    assert [name for name, setting in layout().items() if not setting.description] == []


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
        ("policy.minibatches=97", "policy.minibatches = 97: expected at most the 96 responses"),
        ("advantage.estimator=grpo", "rollout.samples_per_prompt = 1: advantage.estimator = grpo"),
        ("model.heads=3", "hidden_size 64, heads 3, kv_heads 4: expected hidden_size an even multiple of heads"),
    ],
)
def test_a_mistake_names_setting_value_source_and_what_was_wanted(assignment: str, message: str) -> None:
    said = refused("task.chain_length=30", "rollout.prompts=96", assignment)
    assert said.startswith(message)
    assert "\n" not in said


def test_pretraining_to_a_wrong_word_is_told_once_for_each_thing_it_could_be() -> None:
    said = refused("pretrain.steps=later")
    assert "pretrain.steps = 'later' (from --set): input should be 'converge'" in said


def test_later_layers_win_and_a_mistake_names_its_own(tmp_path: Path) -> None:
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


def test_none_is_no_value_only_where_there_may_be_none() -> None:
    assert load_settings(assignments=["gae.length_adaptive_alpha=none"]).gae.length_adaptive_alpha is None
    assert load_settings(assignments=["kl.placement=none"]).kl.placement == "none"
    assert may_be_none("model.path")
    assert not may_be_none("steps")


def test_values_are_toml_and_bare_words_are_text() -> None:
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
def test_a_file_that_is_no_settings_is_told_by_name(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    said = refused(config=file)
    assert said.startswith(f"{file}: ")
    assert message in said


RECORD = json.dumps({"steps": 7, "gae": {"gamma": 0.5}})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "steps = 7\n[gae]\ngamma = 0.5\n"),
        ("a.toml", "[gae]\r\ngamma = 0.5\r\n[task]\r\nname = 'digits'\r\n"),
        ("a.toml", "# as Notepad saves it\ngae.gamma = 0.5\n"),
        ("a.toml", '"gae" = { gamma = 0.5 }'),
        ("a.json", RECORD),
        ("a.json", RECORD.replace(" ", "\r\n")),
    ],
)
def test_a_byte_order_mark_is_no_part_of_the_settings(tmp_path: Path, name: str, text: str) -> None:
    """Some editors write one before UTF-8."""
    file = tmp_path / name
    file.write_bytes(text.encode())
    plain = load_settings(file)
    file.write_bytes(text.encode("utf-8-sig"))
    assert load_settings(file) == plain
    assert plain.gae.gamma == 0.5


def test_a_file_with_a_byte_order_mark_alone_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"\xef\xbb\xbf")
    assert load_settings(file) == RunSettings()


def test_settings_written_as_json_are_the_same_run(tmp_path: Path) -> None:
    settings = load_settings(assignments=["gae.length_adaptive_alpha=0.05", "policy.learning_rate=3e-4", "seed=5"])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    again = load_settings(file)
    assert again == settings
    assert again.digest() == settings.digest()


def test_no_two_runs_draw_alike_and_base_0_draws_as_it_always_has() -> None:
    seeds = {(base, seed): RunSettings(base_seed=base, seed=seed).run_seed for base in range(20) for seed in range(20)}
    assert len(set(seeds.values())) == 400
    assert all(seeds[0, seed] == seed for seed in range(20))


def asked(settings: RunSettings) -> tuple[int, float, float]:
    return settings.evaluation.samples, settings.evaluation.temperature, settings.evaluation.top_p


def test_every_task_says_how_it_is_evaluated() -> None:
    assert set(KINDS["task"].models) <= set(EVALUATION_OF_TASK)
    for own in EVALUATION_OF_TASK.values():
        assert own.keys() == {"samples", "temperature", "top_p"}
        EvaluationSettings(**own)
    assert asked(RunSettings()) == asked(load_settings()) == (8, 1.0, 1.0)
    assert EvaluationSettings() == RunSettings().evaluation


def test_evaluation_is_as_the_task_has_it_unless_something_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(EVALUATION_OF_TASK, "digits", {"samples": 3, "temperature": 0.6, "top_p": 0.9})
    settings = load_settings(assignments=["evaluation.top_p=0.5"])
    assert asked(settings) == (3, 0.6, 0.5)
    assert RunSettings(task=DigitsTaskSettings(digits=2), evaluation=EvaluationSettings(top_p=0.5)).evaluation == (
        settings.evaluation
    )
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    monkeypatch.undo()
    assert load_settings(file) == settings, "a record says what the task had then"
    assert asked(override(settings, {"evaluation.samples": 8, "evaluation.temperature": 1})) == (8, 1.0, 0.5)


@pytest.mark.parametrize("said", ["evaluation.temperature=0", "evaluation.temperature=0.0"])
def test_greedy_decoding_responses_each_problem_once(said: str, tmp_path: Path) -> None:
    settings = load_settings(assignments=[said])
    assert asked(settings) == (1, 0.0, 1.0)
    assert asked(override(settings, {"evaluation.temperature": 1.0})) == (8, 1.0, 1.0)
    assert asked(override(RunSettings(), {"evaluation.temperature": 0})) == (1, 0.0, 1.0)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    assert load_settings(file) == settings


def test_what_a_record_has_from_its_task_is_not_said_by_it() -> None:
    """So that a run of maths overridden to another task is evaluated as that one has it."""
    record = flatten(RunSettings().model_dump(mode="json"))
    of_maths = {f"evaluation.{name}": value for name, value in EVALUATION_OF_TASK["maths"].items()}
    changed = nest(record | {"task.name": "maths", **of_maths, "evaluation.seed": 4}, "the test")
    said = flatten(_differences(changed))
    assert said == {"task.name": "maths", "evaluation.seed": 4, "method": "vcppo"}
    assert flatten(_differences(nest(record | of_maths, "the test"))).keys() == {
        "evaluation.samples", "evaluation.top_p", "method",
    }  # fmt: skip


# ---- a model that is given ----

GENTLE = {
    "cold_start.learning_rate": 1e-5,
    "reward_model.learning_rate": 1e-5,
    "pretrain.learning_rate": 1e-5,
    "policy.learning_rate": 1e-6,
    "critic.learning_rate": 1e-5,
}


def values(settings: RunSettings, names: typing.Iterable[str]) -> dict[str, object]:
    return {name: value_of(settings, name) for name in names}


def test_every_optimiser_has_a_rate_and_a_warm_up_of_its_own_for_a_model_that_is_given() -> None:
    sections = [name for name, f in RunSettings.model_fields.items() if isinstance(f.default, OptimiserSettings)]
    wanted = {f"{section}.{leaf}" for section in sections for leaf in ("learning_rate", "warmup_steps")}
    assert wanted <= OF_A_GIVEN_MODEL.keys()
    assert sections == ["cold_start", "reward_model", "pretrain", "policy", "critic"]


def test_a_model_that_is_given_is_trained_gently_unless_something_is_said() -> None:
    given = load_settings(assignments=["model.path=m"])
    assert values(given, GENTLE) == GENTLE
    assert min(value_of(given, name) for name in OF_A_GIVEN_MODEL if name.endswith("warmup_steps")) > 0
    assert given.cold_start.steps == 100
    fresh = load_settings()
    assert (fresh.cold_start.learning_rate, fresh.cold_start.steps, fresh.cold_start.warmup_steps) == (1e-2, 800, 30)
    assert (fresh.policy.learning_rate, fresh.critic_model.learning_rate) == (3e-4, 6e-4)
    assert (fresh.pretrain.learning_rate, fresh.reward_model.learning_rate) == (1e-3, 1e-3)
    assert fresh.policy.warmup_steps == fresh.critic_model.warmup_steps == fresh.pretrain.warmup_steps == 0
    assert RunSettings(model=ModelSettings(path="m")) == given


@pytest.mark.parametrize("method", ["grpo", "vapo", "dpo", "rto"])
def test_a_method_leaves_them(method: str) -> None:
    assert values(load_settings(assignments=["model.path=m", f"method={method}"]), GENTLE) == GENTLE


def test_what_is_said_wins_over_them_from_wherever_it_is(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("[policy]\nlearning_rate = 3e-4\n[critic]\nwarmup_steps = 0\n")
    settings = load_settings(file, ["model.path=m", "cold_start.steps=800"])
    assert (settings.policy.learning_rate, settings.critic_model.warmup_steps, settings.cold_start.steps) == (
        3e-4,
        0,
        800,
    )
    assert settings.critic_model.learning_rate == 1e-5
    built = RunSettings(model=ModelSettings(path="m"), policy=ClippedPolicySettings(epochs=2))
    assert (built.policy.learning_rate, built.policy.epochs) == (1e-6, 2)


def test_adapters_have_ten_times_the_rate() -> None:
    adapted = load_settings(assignments=["model.path=m", "lora.rank=8"])
    assert values(adapted, GENTLE) == {name: pytest.approx(10 * rate) for name, rate in GENTLE.items()}
    assert values(load_settings(assignments=["model.path=m", "lora.rank=0"]), GENTLE) == GENTLE
    assert RunSettings(model=ModelSettings(path="m"), lora=LoraSettings(rank=8)) == adapted


def test_the_preference_model_of_a_model_that_is_given_is_trained_gently_too() -> None:
    own = preference_settings(load_settings(assignments=["method=rto", "model.path=m", "policy.learning_rate=1e-3"]))
    assert (own.policy.learning_rate, own.policy.warmup_steps) == (1e-6, 10)


@pytest.mark.parametrize(
    "said", [[], ["lora.rank=4"], ["policy.learning_rate=3e-4"], ["policy.learning_rate=1e-6", "critic.warmup_steps=0"]]
)
def test_a_run_of_a_given_model_from_its_record_is_the_same_run(tmp_path: Path, said: list[str]) -> None:
    settings = load_settings(assignments=["model.path=m", *said])
    file = tmp_path / "settings.json"
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    assert load_settings(file) == settings
    assert {s: a.key for s, a in addresses(load_settings(file)).items()} == {
        s: a.key for s, a in addresses(settings).items()
    }


def test_a_record_says_what_the_defaults_were_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "settings.json"
    settings = load_settings(assignments=["model.path=m"])
    file.write_text(json.dumps(settings.model_dump(mode="json")))
    for name in GENTLE:
        monkeypatch.setitem(OF_A_GIVEN_MODEL, name, 5e-5)
    assert load_settings(file) == settings
    assert load_settings(assignments=["model.path=m"]) != settings


def test_another_model_or_none_brings_its_own_defaults() -> None:
    plain = override(RunSettings(), {"policy.epochs": 2})
    given = override(plain, {"model.path": "m"})
    assert values(given, GENTLE) == GENTLE
    assert override(given, {"model.path": "none"}) == plain
    kept = override(override(plain, {"critic.learning_rate": 0.5}), {"model.path": "m", "lora.rank": 2})
    assert (kept.critic_model.learning_rate, kept.policy.learning_rate) == (0.5, 1e-5)


def test_the_defaults_that_a_model_brings_are_told_and_those_alone() -> None:
    assert load(None, ["policy.learning_rate=1e-3"]).of_model == ()
    (line,) = lines(load(None, ["model.path=m", "policy.learning_rate=1e-6", "pretrain.steps=0"]).of_model)
    assert line == (
        "model.path = m is given, so unless set cold_start.learning_rate = 1e-05, cold_start.warmup_steps = 10, "
        "cold_start.steps = 100, cold_start.batch_tokens = 16384, reward_model.learning_rate = 1e-05, "
        "reward_model.warmup_steps = 10, policy.warmup_steps = 10, critic.learning_rate = 1e-05, "
        "critic.warmup_steps = 10"
    )


@pytest.mark.parametrize("text", ["model=3", "lora=3", "policy=3", "cold_start=3"])
def test_a_section_that_is_none_is_told_beside_a_model(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text if text == "model=3" else f"{text}\n[model]\npath='m'")
    with pytest.raises(ConfigError, match=rf"^{text.split('=')[0]} = 3 \(from "):
        load_settings(file)


@pytest.mark.parametrize("text", ["task=3", "evaluation=3", "task.name=3"])
def test_a_task_or_an_evaluation_that_is_none_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "settings.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"^{text.split('=')[0]} = 3 \(from "):
        load_settings(tmp_path / "settings.toml")


def test_the_digest_knows_every_setting_but_the_arm() -> None:
    plain = RunSettings()
    assert override(plain, {"arm": "other"}).digest() == plain.digest()
    assert override(plain, {"record.samples": 5}).digest() != plain.digest()
    assert override(plain, {"gae.gamma": 1}).digest() == plain.digest()  # 1 and 1.0 are one number


def test_overrides_are_validated_and_leave_the_original() -> None:
    plain = RunSettings()
    changed = override(plain, {"model.path": "x", "gae.lambda_actor": 0.5})
    assert (changed.model.path, changed.gae.lambda_actor, plain.gae.lambda_actor) == ("x", 0.5, 0.95)
    assert override(changed, {"model.path": "none"}) == override(plain, {"gae.lambda_actor": 0.5})
    with pytest.raises(ConfigError, match=r"gae.lambda_actor = 9 \(from trial 3\)"):
        override(plain, {"gae.lambda_actor": 9}, source="trial 3")


@pytest.mark.parametrize(
    ("given", "interval"),
    [
        ((), 50),
        (("task.name=labels",), 50),
        (("method=grpo",), 0),
        (("method=dpo",), 0),
        (("model.path=there",), 0),
        (("task.name=maths", "model.path=there"), 0),
        (("task.name=maths", "model.path=there", "record.alignment_every=3"), 3),
        (("method=grpo", "record.alignment_every=3"), 3),
        (("record.alignment_every=0",), 0),
    ],
)
def test_where_a_gradient_points_is_measured_where_it_is_cheap_or_asked_for(
    given: tuple[str, ...], interval: int
) -> None:
    assert load_settings(assignments=given).alignment_interval == interval


def test_an_interval_below_none_is_refused() -> None:
    assert refused("record.alignment_every=-1").endswith("expected 0 or more, or `auto`")
