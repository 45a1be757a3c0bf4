"""A method is a name for settings: complete, published, changed by one word, and able to run."""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from tiny import new_policy, random_batch, tiny_method
from torch import Tensor

from vcppo.engines import _local_engine
from vcppo.errors import ConfigError
from vcppo.maths import losses, selection, shaping
from vcppo.models.optimiser import schedule_factor
from vcppo.rl.advantages import prepared
from vcppo.rl.rewards import token_rewards
from vcppo.settings.base import Aggregation
from vcppo.settings.kinds import KINDS
from vcppo.settings.loading import flatten, known_names, load, load_settings, override, setting_type
from vcppo.settings.methods import METHODS
from vcppo.settings.notes import lines
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.unused import unused
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.studies.study import parse_study
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Verdict

ASKED_FOR = {
    "ppo", "ppo-max", "ppo-xu", "vcppo", "dvpo", "vapo", "vineppo", "rto", "semi-rto", "ddpo", "rs-ppo", "dpo",
    "dpo-iter", "apa", "awr", "espo", "cppo", "grpo", "dr-grpo", "dapo", "rloo", "reinforce++",
    "reinforce++-baseline", "gspo", "cispo",
}  # fmt: skip


def value_of(settings: RunSettings, name: str) -> object:
    return flatten(settings.model_dump(mode="json"))[name]


def test_the_methods_are_those_asked_for() -> None:
    assert set(METHODS) == ASKED_FOR
    assert all(method.title and method.source.startswith("arXiv:") for method in METHODS.values())


@pytest.mark.parametrize("method", METHODS)
def test_a_preset_names_known_settings_that_it_makes_use_of(method: str) -> None:
    settings = load_settings(assignments=[f"method={method}"])
    assert (settings.method, settings.arm) == (method, method)
    for name, wanted in METHODS[method].settings.items():
        assert name in known_names()
        assert value_of(settings, name) == wanted
        assert unused(settings, name) is None, f"{method} sets {name}"


def test_no_two_methods_are_the_same_run() -> None:
    digests = {load_settings(assignments=[f"method={method}"]).digest(): method for method in METHODS}
    assert len(digests) == len(METHODS)


@pytest.mark.parametrize("method", METHODS)
def test_methods_have_the_same_responses_an_iteration_and_the_trainers_own_optimisers(method: str) -> None:
    settings, plain = load_settings(assignments=[f"method={method}"]), RunSettings()
    assert settings.responses_per_iteration == 96
    for name in ("learning_rate", "schedule", "minibatches", "max_grad_norm"):
        assert value_of(settings, f"policy.{name}") == value_of(plain, f"policy.{name}")


PUBLISHED: dict[str, dict[str, object]] = {
    "vcppo": {"gae.lambda_actor": 0.95, "gae.lambda_critic": 1.0, "pretrain.steps": "converge"},
    "ppo": {"gae.lambda_actor": 0.95, "gae.lambda_critic": 0.95, "pretrain.steps": 0, "critic.init": "reward-model"},
    "vapo": {
        "gae.length_adaptive_alpha": 0.05,
        "gae.lambda_critic": 1.0,
        "policy.clip_low": 0.2,
        "policy.clip_high": 0.28,
        "policy.positive_nll": 0.1,
        "policy.aggregation": "token-mean",
    },
    "dvpo": {"critic.update_every": "never", "pretrain.steps": "converge", "gae.gamma": 1.0},
    "vineppo": {"vine.samples": 9, "kl.estimator": "k3", "kl.coefficient": 1e-4, "advantage.whiten": "batch"},
    "rto": {"token_reward.weight": 0.05, "token_reward.clip": None, "kl.coefficient": 0.01, "gae.lambda_actor": 0.95},
    "semi-rto": {"token_reward.kind": "semi-rto"},
    "ddpo": {"token_reward.kind": "ddpo"},
    "rs-ppo": {"token_reward.kind": "rs-ppo"},
    "dpo": {"policy.dpo_beta": 0.1, "rollout.refresh_every": "never", "reference.refresh_every": "never"},
    "dpo-iter": {"rollout.refresh_every": 10, "reference.refresh_every": 10},
    "ppo-max": {
        "advantage.clip": 0.5,
        "critic.value_clip_range": 0.2,
        "gae.lambda_actor": 0.95,
        "pretrain.steps": "converge",
        "kl.coefficient": 0.05,
        "kl.placement": "reward",
    },
    "ppo-xu": {
        "gae.lambda_actor": 1.0,
        "gae.lambda_critic": 1.0,
        "kl.coefficient": 0.1,
        "reward.clip": 20.0,
        "reference.ema": 0.001,
        "reward.truncated": 0.0,
        "critic.normalise_returns": True,
        "advantage.whiten": "batch",
    },
    "apa": {"policy.advantage_temperature": 0.1, "policy.loss": "apa", "critic.init": "policy"},
    "awr": {"policy.advantage_temperature": 2.0, "policy.loss": "awr"},
    "espo": {"early_stop.threshold": 0.25, "policy.loss": "unclipped", "early_stop.deviation": "tokens"},
    "grpo": {
        "kl.coefficient": 0.04,
        "kl.estimator": "k3",
        "kl.placement": "loss",
        "policy.aggregation": "sequence-mean",
    },
    "cppo": {"select.prune_rate": 0.5, "select.keep": "largest", "select.scope": "question", "kl.coefficient": 0.04},
    "dr-grpo": {"advantage.group_scale": False, "policy.aggregation": "fixed-length", "kl.placement": "none"},
    "dapo": {
        "policy.clip_low": 0.2,
        "policy.clip_high": 0.28,
        "select.dynamic_sampling": True,
        "select.max_rounds": 10,
        "reward.overlong_share": 4096 / 20480,
        "reward.overlong_penalty": 1.0,
        "policy.aggregation": "token-mean",
        "kl.placement": "none",
    },
    "rloo": {"kl.coefficient": 0.03, "kl.placement": "reward", "kl.estimator": "k1"},
    "reinforce++": {"advantage.estimator": "return", "kl.placement": "reward", "advantage.whiten": "batch"},
    "reinforce++-baseline": {"advantage.group_scale": False, "kl.estimator": "k2", "advantage.whiten": "batch"},
    "gspo": {"policy.clip_low": 3e-4, "policy.clip_high": 4e-4, "kl.placement": "none"},
    "cispo": {"policy.clip_low": 1.0, "policy.aggregation": "token-mean", "kl.placement": "none"},
}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_as_published(method: str) -> None:
    settings = load_settings(assignments=[f"method={method}"])
    assert {name: value_of(settings, name) for name in PUBLISHED[method]} == PUBLISHED[method]


# ---- one word changes the method ----


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


# ---- settings and code agree ----


@pytest.mark.parametrize(
    ("words", "known"),
    [
        (get_args(Aggregation), set(losses.AGGREGATIONS)),
        (setting_type("early_stop.deviation")[0], {*losses.DEVIATION_SCOPES, "none"}),
        (setting_type("critic.value_loss")[0], set(losses.VALUE_LOSSES)),
        (setting_type("kl.estimator")[0], set(losses.KL_ESTIMATORS)),
        (setting_type("token_reward.kind")[0], {*get_args(shaping.LogRatioKind), "none"}),
        (setting_type("reward.normalise")[0], set(get_args(shaping.Normalisation))),
        (setting_type("select.keep")[0], set(get_args(selection.Keep))),
        (setting_type("select.scope")[0], set(get_args(selection.Scope))),
    ],
    ids=lambda part: str(sorted(part))[:40] if isinstance(part, set) else "",
)
def test_the_words_that_settings_know_are_those_that_the_code_knows(words: object, known: set[str]) -> None:
    listed = words if isinstance(words, tuple) else get_args(words)
    assert set(listed) == known


def with_word(section: str, name: str, word: str) -> RunSettings:
    """Settings in which one word is another, past what validation allows."""
    kinds = KINDS.get(section)
    old = getattr(load_settings(), section)
    if kinds is not None and name == kinds.by and word in kinds.models:
        old = kinds.models[word].model_validate({name: word})
    return load_settings().model_copy(update={section: old.model_copy(update={name: word})})


def dispatched() -> dict[str, Callable[[Any], object]]:
    """By setting: what is computed by its words, for any word."""
    batch, rng = random_batch([3, 2]), torch.Generator()
    scores, zeros, mask = batch.scores, torch.zeros(batch.response_mask.shape), batch.response_mask
    whole = torch.zeros(mask.shape, dtype=torch.int64)
    seen = shaping.RunningMoments().updated(torch.tensor([1.0, 4.0]))
    ratio: dict[str, Any] = {"weight": 1.0, "clip": None}

    def pruned(**words: Any) -> Tensor:
        return selection.prune(scores, batch.group, rate=0.5, rng=rng, **{"scope": "batch", "keep": "largest", **words})

    def rewards(word: str) -> Tensor:
        return token_rewards(batch, zeros, zeros, whole, with_word("kl", "placement", word))

    return {
        "advantage.whiten": lambda word: prepared(zeros, mask, with_word("advantage", "whiten", word)),
        "reward.normalise": lambda word: shaping.normalised(scores, seen, kind=word, clip=None),
        "token_reward.kind": lambda word: (
            word == "none" or shaping.log_ratio_rewards(zeros, zeros, whole, mask, kind=word, **ratio)
        ),
        "select.keep": lambda word: pruned(keep=word),
        "select.scope": lambda word: pruned(scope=word),
        "kl.placement": rewards,
        "policy.schedule": lambda word: schedule_factor(with_word("policy", "schedule", word).policy, 3, 10),
        "mismatch.check": lambda word: with_word("mismatch", "check", word).checks_mismatch,
        "engine.kind": lambda word: (
            word == "vllm" or _local_engine(with_word("engine", "kind", word).engine, new_policy())
        ),
        "task.name": lambda word: word == "maths" or make_task(with_word("task", "name", word).task),
    }


@pytest.mark.parametrize("name", dispatched())
def test_a_word_is_itself_or_refused_and_never_another(name: str) -> None:
    """Every word that a setting allows is known where it is read, and one that nobody wrote falls through to none."""
    compute = dispatched()[name]
    words = setting_type(name)[0]
    for word in words if isinstance(words, tuple) else get_args(words):
        compute(word)
    with pytest.raises(AssertionError, match="'new'"):
        compute("new")


def test_rtos_reward_is_made_by_the_dpo_run_of_the_same_task_and_seed() -> None:
    settings = load_settings(
        assignments=[
            "method=rto",
            "seed=3",
            "task.chain_length=5",
            "rollout.temperature=0.7",
            "token_reward.dpo_steps=9",
        ]
    )
    own = preference_settings(settings)
    assert (own.method, own.seed, own.task, own.steps) == ("dpo", 3, settings.task, 9)
    assert own.rollout.temperature == 0.7
    assert own.evaluation.every == 0
    same = load_settings(
        assignments=[
            "method=dpo",
            "seed=3",
            "task.chain_length=5",
            "rollout.temperature=0.7",
            "steps=9",
            "evaluation.every=0",
        ]
    )
    found, of_dpo = addresses(settings), addresses(same)["rl"]
    assert (found["preference"].settings, found["preference"].parents) == (of_dpo.settings, of_dpo.parents)
    assert found["rl"].parents["preference"] == found["preference"].key
    variants = {addresses(override(settings, {"method": m}))["preference"].key for m in ("semi-rto", "ddpo", "rs-ppo")}
    assert variants == {found["preference"].key}  # one DPO run serves all four
    later = override(settings, {"token_reward.dpo_steps": 10})
    assert addresses(later)["preference"].key != found["preference"].key


# ---- every method runs ----


def by_length(self: DigitsTask, text: str, prompt: Prompt) -> Verdict:
    """About half of all responses are right, whatever the policy has learnt."""
    return Verdict.CORRECT if len(text.split()) % 2 else Verdict.WRONG


SMALL = (
    "cold_start.steps=2",
    "reward_model.steps=1",
    "reward_model.responses=32",
    "pretrain.max_steps=2",
    "pretrain.pool=16",
    "pretrain.held_out=8",
    "rollout.prompts=3",
    "rollout.samples_per_prompt=4",
    "rollout.max_tokens=10",
    "token_reward.dpo_steps=1",
    "vine.samples=2",
    "evaluation.samples=1",
    "evaluation.every=0",
    "task.held_out=4",
    "steps=2",
    "micro_batch_tokens=2000",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for all methods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitsTask, "verify", by_length)
        yield tmp_path_factory.mktemp("methods")


@pytest.mark.parametrize("method", METHODS)
def test_a_method_runs_from_its_first_stage_to_its_last(out: Path, method: str) -> None:
    settings = tiny_method(method, shared=SMALL)
    uses = run_stages(settings, out)
    assert uses["evaluation"].folder.result is not None
    records = read_journal(StageFolder(out, addresses(settings)["rl"]).path / "journal.jsonl")
    told = [record["values"] for record in records if record["kind"] == "metrics"]
    assert len(told) == 2
    assert told[1]["policy/updates"] >= 1
    assert 0 < told[1]["policy/grad_norm"] < float("inf")
    assert told[1]["cost/compute_tokens"] > told[0]["cost/compute_tokens"] > 0
    lost = {name for name, value in told[1].items() if value is None}
    assert lost <= {"value/explained_variance"}
    assert ("value/mean" in told[1]) == settings.has_critic
