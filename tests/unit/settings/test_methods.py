"""A method is a name for settings: complete, published, known to the code, and able to run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from setting_values import value_of
from tiny import new_policy, random_batch, tiny_method
from torch import Tensor

from vcppo.engines import _local_engine
from vcppo.maths import losses, selection, shaping
from vcppo.models.optimiser import schedule_factor
from vcppo.rl.advantages import prepared
from vcppo.rl.rewards import token_rewards
from vcppo.settings.base import Aggregation
from vcppo.settings.kinds import KINDS
from vcppo.settings.loading import known_names, load_settings, override, setting_type
from vcppo.settings.methods import METHODS
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.unused import unused
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Verdict

ASKED_FOR = {
    "ppo", "ppo-max", "ppo-xu", "vcppo", "dvpo", "vapo", "vineppo", "rto", "semi-rto", "ddpo", "rs-ppo", "dpo",
    "dpo-iter", "apa", "awr", "espo", "cppo", "grpo", "dr-grpo", "dapo", "rloo", "reinforce++",
    "reinforce++-baseline", "gspo", "cispo",
}  # fmt: skip


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
