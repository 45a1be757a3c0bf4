"""Inputs of the updates: two calls of one gae, group advantages, penalties, bootstraps."""

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from tiny import random_batch, tiny
from torch import Tensor

from vcppo.maths.advantages import gae, group_advantages, length_adaptive_lambda, whiten
from vcppo.rl.advantages import Advantages, actor_advantages, actor_lambda, critic_returns
from vcppo.rl.metrics import advantage_metrics, value_metrics
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.rewards import place_rewards, place_scores, score_range
from vcppo.settings.advantage import WhitenedAdvantageSettings
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.kinds import KINDS
from vcppo.settings.rules import bootstraps
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@pytest.fixture
def batch() -> RolloutBatch:
    made = random_batch([4, 1, 6, 3])
    return dataclasses.replace(made, truncated=torch.tensor([False, True, True, False]))


def values_for(batch: RolloutBatch) -> torch.Tensor:
    drawn = torch.randn(batch.response_mask.shape, generator=torch.Generator().manual_seed(9))
    return torch.where(batch.response_mask, drawn, 0.0)


def rows_of(batch: RolloutBatch) -> torch.Tensor:
    return torch.arange(len(batch.scores))


@dataclasses.dataclass(frozen=True)
class Estimates:
    """Inputs of the updates."""

    rewards: Tensor
    monte_carlo: Tensor
    raw_advantages: Tensor
    advantages: Tensor
    returns: Tensor
    gae_lambda: float | Tensor
    actor: Advantages


def estimate(batch: RolloutBatch, outputs: ModelOutputs, rows: Tensor, settings: RunSettings) -> Estimates:
    """Its parts as an iteration puts them together."""
    rewards = place_rewards(batch, outputs, settings)
    actor = actor_advantages(batch, rewards, outputs, rows, settings)
    returns = critic_returns(batch, rewards, outputs, settings)
    return Estimates(rewards.total, rewards.monte_carlo, actor.raw, actor.final, returns, actor.gae_lambda, actor)


def run(batch: RolloutBatch, *assignments: str, **read: Any) -> Estimates:
    outputs = dataclasses.replace(ModelOutputs(values=values_for(batch)), **read)
    return estimate(batch, outputs, rows_of(batch), tiny(*assignments))


def test_decoupled_lambdas_are_two_calls_of_gae(batch: RolloutBatch) -> None:
    values, rewards = values_for(batch), place_scores(batch)
    got = run(batch, "gae.lambda_actor=0.7", "gae.lambda_critic=0.9", "gae.gamma=0.8")
    at = {"gamma": 0.8}
    torch.testing.assert_close(
        got.advantages, gae(rewards, values, batch.response_mask, gae_lambda=0.7, **at), rtol=0, atol=0
    )
    want = gae(rewards, values, batch.response_mask, gae_lambda=0.9, **at) + values
    torch.testing.assert_close(got.returns, want, rtol=0, atol=0)
    assert got.gae_lambda == 0.7


def test_equal_lambdas_are_plain_ppo(batch: RolloutBatch) -> None:
    got = run(batch, "gae.lambda_actor=0.9", "gae.lambda_critic=0.9")
    torch.testing.assert_close(got.returns, got.advantages + values_for(batch))
    other = run(batch, "gae.lambda_actor=0.5", "gae.lambda_critic=0.9")
    torch.testing.assert_close(other.returns, got.returns)  # the actor's lambda does not reach the critic
    assert not torch.allclose(other.advantages, got.advantages)


def test_targets_at_lambda_one_are_the_outcome(batch: RolloutBatch) -> None:
    got = run(batch, "gae.lambda_critic=1.0")
    want = torch.where(batch.response_mask, batch.scores[:, None], 0.0)
    torch.testing.assert_close(got.returns, want, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got.monte_carlo, want, atol=1e-6, rtol=1e-5)


def test_the_critic_is_measured_against_monte_carlo_returns_and_not_its_own_lambda_returns() -> None:
    batch = random_batch([40, 50, 60, 30])
    values = torch.where(batch.response_mask, values_for(batch).cumsum(dim=1), 0.0)  # useless, and smooth
    got = run(batch, "gae.lambda_critic=0.5", values=values)
    measured = value_metrics(values, got.monte_carlo, batch.response_mask)
    against_itself = value_metrics(values, got.returns, batch.response_mask)
    assert measured["value/explained_variance"] < 0 < against_itself["value/explained_variance"]
    live = batch.response_mask
    mean = float((values - batch.scores[:, None])[live].mean())
    assert measured["value/value_bias"] == pytest.approx(mean, abs=1e-6)
    assert measured["value/mean"] == pytest.approx(float(values[live].mean()))


def test_length_adaptive_lambda_replaces_the_number_for_the_actor_only(batch: RolloutBatch) -> None:
    got = run(batch, "gae.length_adaptive_alpha=0.5", "gae.lambda_critic=0.9")
    lambdas = length_adaptive_lambda(batch.response_mask, alpha=0.5)
    assert lambdas.tolist() == pytest.approx([0.5, 0.0, 2 / 3, 1 / 3])
    want = gae(place_scores(batch), values_for(batch), batch.response_mask, gamma=1.0, gae_lambda=lambdas)
    torch.testing.assert_close(got.advantages, want)
    torch.testing.assert_close(got.returns, run(batch, "gae.lambda_critic=0.9").returns)


def test_a_cut_response_is_worth_its_score_or_its_value_and_not_both(batch: RolloutBatch) -> None:
    final = torch.tensor([10.0, 20.0, 30.0, 40.0])
    scores = batch.scores.tolist()
    plain = run(batch, "gae.gamma=0.5", "gae.lambda_actor=0.0", "gae.lambda_critic=0.0")
    booted = run(batch, "gae.gamma=0.5", "gae.lambda_actor=0.0", "gae.lambda_critic=0.0", final_values=final)
    difference = booted.advantages - plain.advantages
    want = torch.zeros_like(difference)
    want[1, 0], want[2, 5] = 10.0 - scores[1], 15.0 - scores[2]  # gamma * V for the score of the two that were cut
    torch.testing.assert_close(difference, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(booted.returns - plain.returns, want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(booted.monte_carlo, plain.monte_carlo)  # what really came is what it was
    last = plain.advantages[2, 5] + values_for(batch)[2, 5]
    assert float(last) == pytest.approx(float(batch.scores[2]))


@pytest.mark.parametrize(
    ("score", "final", "gamma", "more", "wanted"),
    [
        (-1.0, -0.8, 1.0, (), -0.8),
        (-1.0, -0.8, 0.5, (), -0.4),
        (1.0, -0.25, 1.0, (), -0.25),  # right, and yet cut: the verifier may read a response that was not ended
        (0.0, 0.5, 1.0, (), 0.5),
        (-1.0, 0.0, 1.0, (), 0.0),
        (-1.0, -0.8, 1.0, ("kl.placement=reward", "kl.coefficient=0.1", "kl.estimator=k1"), -0.83),  # 0.3 nats
        (-1.0, -0.8, 1.0, ("advantage.estimator=td",), -0.8),
        (-1.0, -0.8, 1.0, ("advantage.estimator=q",), -0.8),
    ],
)
def test_what_is_left_to_a_cut_response_at_its_last_token(
    score: float, final: float, gamma: float, more: tuple[str, ...], wanted: float
) -> None:
    made = random_batch([3, 2])
    batch = dataclasses.replace(made, truncated=torch.tensor([True, False]), scores=torch.tensor([score, 1.0]))
    ref = torch.where(batch.response_mask, batch.old_logprobs - 0.3, 0.0)
    read = {"final_values": torch.tensor([final, 99.0]), "ref_logprobs": ref}
    got = run(batch, *more, f"gae.gamma={gamma}", "gae.lambda_critic=1.0", "gae.bootstrap_truncated=true", **read)
    assert float(got.returns[0, 2]) == pytest.approx(wanted, abs=1e-6)
    assert float(got.returns[1, 1]) == pytest.approx(
        1.0 - (0.03 if more[:1] == ("kl.placement=reward",) else 0), abs=1e-6
    )


def test_a_bounded_critics_values_keep_cut_responses_returns_in_its_range() -> None:
    low, high = score_range(tiny().reward, gamma=0.7)
    batch = dataclasses.replace(random_batch([4, 5, 6, 7] * 8), truncated=torch.ones(32, dtype=torch.bool))
    rng = torch.Generator().manual_seed(0)
    values = low + (high - low) * torch.rand(batch.response_mask.shape, generator=rng)
    for gamma, lambda_critic in itertools.product((0.7, 1.0), (0.0, 0.5, 1.0)):
        settings = (f"gae.gamma={gamma}", f"gae.lambda_critic={lambda_critic}", "gae.bootstrap_truncated=true")
        final = low + (high - low) * torch.rand(32, generator=rng)
        returns = run(batch, *settings, values=values * batch.response_mask, final_values=final).returns
        assert low - 1e-6 <= float(returns.min()) <= float(returns.max()) <= high + 1e-6


# What the records say of each estimator, by pencil: a new one has its line here, and its record.
NEEDS = {  # critic, gamma (in advantages or targets), lambda_actor, V where a response was cut, others' responses
    "gae": (True, True, True, True, False),
    "td": (True, True, False, True, False),
    "q": (True, True, False, True, False),
    "released-dvpo": (True, True, True, False, False),
    "vine": (False, False, False, False, False),
    "return": (False, True, False, False, False),
    "grpo": (False, False, False, False, True),
    "rloo": (False, False, False, False, True),
    "none": (False, False, False, False, False),
}


def with_estimator(estimator: str, *more: str) -> RunSettings:
    advantage = KINDS["advantage"].models[estimator].model_validate({"estimator": estimator})
    return tiny(*more).model_copy(update={"advantage": advantage})


def estimated(
    estimator: str, *more: str, batch: RolloutBatch | None = None, critic: bool | None = None
) -> list[Tensor]:
    """Advantages, and targets where there is a critic."""
    made = dataclasses.replace(random_batch([4, 1, 6, 3]), truncated=torch.tensor([False, True, True, False]))
    batch = dataclasses.replace(made, group=torch.tensor([0, 0, 1, 1])) if batch is None else batch
    settings = with_estimator(estimator, *more)
    critic = settings.has_critic if critic is None else critic
    segments = (torch.arange(6) // 2).expand(4, 6)
    read = ModelOutputs(
        values=values_for(batch) if critic else None,
        final_values=torch.full((4,), 7.0) if bootstraps(settings) else None,
        segments=segments,
        step_values=torch.tensor([[0.1, 0.2, 0.3]] * 4),
    )
    found = estimate(batch, read, rows_of(batch), settings)
    return [found.advantages, found.returns] if critic else [found.advantages]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_each_estimator_reads_what_its_record_says(estimator: str) -> None:
    def differ(one: list[Tensor], other: list[Tensor]) -> bool:
        return not all(torch.equal(a, b) for a, b in zip(one, other, strict=True))

    critic, discounts, has_lambda, bootstrapped, compares = NEEDS[estimator]
    plain = estimated(estimator)
    base = random_batch([4, 1, 6, 3])
    grouped = dataclasses.replace(
        base, truncated=torch.tensor([False, True, True, False]), group=torch.zeros(4, dtype=torch.int64)
    )
    assert differ(plain, estimated(estimator, "gae.gamma=0.5")) == discounts
    assert differ(plain, estimated(estimator, "gae.lambda_actor=0.5")) == has_lambda
    assert differ(plain, estimated(estimator, "gae.bootstrap_truncated=true")) == bootstrapped
    assert differ(plain, estimated(estimator, batch=grouped)) == compares
    settings = with_estimator(estimator)
    assert settings.has_critic == critic
    record = ESTIMATORS[estimator]
    assert record.has_critic == critic
    assert record.compares == compares
    assert record.uses_lambda == has_lambda
    assert record.bootstraps == bootstrapped
    assert (record.discounts or record.has_critic) == discounts
    if critic:
        with pytest.raises(AssertionError):
            estimated(estimator, critic=False)
    expected = {"td": 0.0, "q": 0.0, "gae": 0.7, "released-dvpo": 0.7}.get(estimator, 1.0)
    assert actor_lambda(base, with_estimator(estimator, "gae.lambda_actor=0.7")) == expected


def test_an_estimator_that_nobody_wrote_is_not_another() -> None:
    batch = random_batch([4, 1, 6, 3])
    settings = tiny().model_copy(
        update={"advantage": WhitenedAdvantageSettings().model_copy(update={"estimator": "new"})}
    )
    with pytest.raises(KeyError, match="'new'"):
        actor_lambda(batch, settings)
    with pytest.raises(KeyError, match="'new'"):
        estimate(batch, ModelOutputs(values=values_for(batch)), rows_of(batch), settings)


def test_kl_in_the_reward_is_taken_from_every_token_and_from_nothing_else(batch: RolloutBatch) -> None:
    ref = torch.where(batch.response_mask, batch.old_logprobs - 0.3, 0.0)
    kl = ("kl.placement=reward", "kl.coefficient=0.1", "kl.estimator=k1")
    got = run(batch, *kl, ref_logprobs=ref)
    want = place_scores(batch) - torch.where(batch.response_mask, 0.03, 0.0)
    torch.testing.assert_close(got.rewards, want)
    assert float(got.monte_carlo[2, 0]) == pytest.approx(float(batch.scores[2]) - 6 * 0.03)
    same = run(batch, "kl.placement=loss", ref_logprobs=ref)
    torch.testing.assert_close(same.rewards, place_scores(batch))


@pytest.mark.parametrize("scale", ["true", "false"])
def test_grpo_compares_responses_to_one_prompt_and_knows_no_values(scale: str) -> None:
    batch = dataclasses.replace(
        random_batch([4, 1, 6, 3]), group=torch.tensor([0, 0, 1, 1]), scores=torch.tensor([1.0, -1.0, -1.0, -1.0])
    )
    settings = tiny("advantage.estimator=grpo", "rollout.samples_per_prompt=2", f"advantage.group_scale={scale}")
    got = estimate(batch, ModelOutputs(), rows_of(batch), settings)
    want = group_advantages(batch.scores, batch.group, batch.response_mask, scale=scale == "true")
    torch.testing.assert_close(got.advantages, want)
    assert not got.advantages[2:].any()  # equal scores teach nothing
    assert advantage_metrics(batch, rows_of(batch), got.actor, 1.0)["advantage/real_reward_share"] == 1.0


def test_whitening_over_the_batch_is_a_setting(batch: RolloutBatch) -> None:
    plain, white = run(batch), run(batch, "advantage.whiten=batch")
    torch.testing.assert_close(white.advantages, whiten(plain.advantages, batch.response_mask))
    torch.testing.assert_close(white.returns, plain.returns)
    told = advantage_metrics(batch, rows_of(batch), white.actor, 1.0)
    assert told["advantage/mean"] == pytest.approx(0, abs=1e-6)
    assert told["advantage/std"] == pytest.approx((13 / 14) ** 0.5, rel=1e-4)  # Bessel's correction, 14 tokens
    torch.testing.assert_close(run(batch, "advantage.whiten=minibatch").advantages, plain.advantages)


def test_a_batch_without_a_right_response_has_finite_estimates() -> None:
    batch = dataclasses.replace(random_batch([1, 1, 1]), scores=-torch.ones(3))
    got = run(batch, "advantage.whiten=batch")
    for tensor in (got.rewards, got.monte_carlo, got.advantages, got.returns):
        assert bool(tensor.isfinite().all())
