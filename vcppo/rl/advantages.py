"""From a scored batch to what the updates need: rewards on tokens, advantages for the actor, targets for the critic."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from vcppo.maths.advantages import gae, length_adaptive_lambda, monte_carlo_returns, whiten
from vcppo.rl.rewards import token_rewards
from vcppo.rl.sampler import on_last_token, place_scores
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.rules import rewards_tokens
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class Readings:
    """What models and continuations say of a batch, each None where nothing asks for it."""

    values: Tensor | None = None  # [B, T] of the critic, in units of reward
    critic_outputs: Tensor | None = None  # [B, T] the same as it said them: normalised, where it learns such returns
    final_values: Tensor | None = None  # [B] V after the last token, where cut answers are bootstrapped
    ref_logprobs: Tensor | None = None  # [B, T] under the reference
    dpo_logprobs: Tensor | None = None  # [B, T] under RTO's DPO policy
    segments: Tensor | None = None  # [B, T] int64, the step that a token is in
    step_values: Tensor | None = None  # [B, J] mean score of continuations from the start of each step


@dataclass(frozen=True)
class Evidence:
    """What an estimator may look at; its record in vcppo/settings/estimators.py says what of it."""

    batch: RolloutBatch
    readings: Readings
    rewards: Tensor  # [B, T] all of them, or of truncated responses V in place of the score
    token_rewards: Tensor  # [B, T] those beside the score alone
    gae_lambda: float | Tensor  # the actor's: a number, or one a row ([B])
    settings: RunSettings

    @property
    def response_mask(self) -> Tensor:
        """[B, T] bool."""
        return self.batch.response_mask


@dataclass(frozen=True)
class Estimates:
    """Everything [B, T] float32, 0 where masked."""

    rewards: Tensor  # the shaped score on the last token, with what tokens are worth beyond it
    monte_carlo: Tensor  # returns with no value in them, which diagnostics measure the critic against
    raw_advantages: Tensor  # before whitening: on-policy their mean is near 0, a check of their own
    advantages: Tensor  # for the policy, whitened over the batch if the settings say so
    returns: Tensor  # targets of the critic
    gae_lambda: float | Tensor  # the actor's: a number, or one a row ([B]); 1 where no lambda is used


def estimate(batch: RolloutBatch, readings: Readings, kept: Tensor, settings: RunSettings) -> Estimates:
    """Advantages and targets of a batch; in VC-PPO two calls of one `gae` with two lambdas (algorithm 1, lines 5, 6).

    Args:
        batch: scores already shaped. kept: [K] rows that will be trained on; whitening looks at no other. Group
            statistics are of the whole batch (CPPO, arXiv:2503.22342), see `compared_rows`.
    """
    mask, gamma = batch.response_mask, settings.gae.gamma
    extra = token_rewards(batch, readings.ref_logprobs, readings.dpo_logprobs, readings.segments, settings)
    rewards = place_scores(batch) + extra
    monte_carlo = monte_carlo_returns(rewards, mask, gamma=gamma)
    gae_lambda = actor_lambda(batch, settings)
    earned = rewards
    if readings.final_values is not None:
        earned = bootstrapped(batch, readings.final_values, gamma=gamma) + extra
    raw = raw_advantages(batch, readings, earned, extra, gae_lambda, settings)
    returns = monte_carlo
    if readings.values is not None:
        values = readings.values
        returns = gae(earned, values, mask, gamma=gamma, gae_lambda=settings.gae.lambda_critic) + values
    advantages = prepared(raw, trained_tokens(batch, kept), settings)
    return Estimates(rewards, monte_carlo, raw, advantages, returns, gae_lambda)


def prepared(raw: Tensor, trained: Tensor, settings: RunSettings) -> Tensor:
    """Advantages whitened over the batch and clipped, or as they are where each minibatch will do that for itself."""
    scope, clip = settings.advantage.whiten, settings.advantage.clip
    match scope:
        case "none":
            advantages = raw
        case "batch":
            advantages = whiten(raw, trained)
        case "minibatch":
            return raw
        case _:
            assert_never(scope)
    return advantages if clip is None else advantages.clamp(-clip, clip)


def trained_tokens(batch: RolloutBatch, kept: Tensor) -> Tensor:
    """[B, T] bool: the response_mask of the rows that are trained on, False in all others."""
    trained = torch.zeros_like(batch.response_mask)
    trained[kept] = batch.response_mask[kept]
    return trained


def compared_rows(batch: RolloutBatch, kept: Tensor, settings: RunSettings) -> Tensor:
    """[N] rows whose token rewards enter an advantage of the kept ones.

    Those of the whole batch where answers to a question are compared by more than their scores, which are known of
    all: an answer that is not trained on is still one of its group.
    """
    grouped = ESTIMATORS[settings.advantage.estimator].compares and rewards_tokens(settings)
    return torch.arange(len(batch.scores)) if grouped and len(kept) else kept


def raw_advantages(
    batch: RolloutBatch,
    readings: Readings,
    earned: Tensor,
    extra: Tensor,
    gae_lambda: float | Tensor,
    settings: RunSettings,
) -> Tensor:
    """[B, T] by the settings' estimator, not whitened; `earned` are all rewards, `extra` those beside the score."""
    compute = ESTIMATORS[settings.advantage.estimator].compute
    advantages: Tensor = compute(Evidence(batch, readings, earned, extra, gae_lambda, settings))
    return advantages


def actor_lambda(batch: RolloutBatch, settings: RunSettings) -> float | Tensor:
    """The lambda of the actor's advantages, or the number that the settings' estimator amounts to."""
    estimator, alpha = ESTIMATORS[settings.advantage.estimator], settings.gae.length_adaptive_alpha
    if estimator.gae_lambda != "actor":
        return estimator.gae_lambda
    if estimator.length_adaptive and alpha is not None:
        return length_adaptive_lambda(batch.response_mask, alpha=alpha)
    return settings.gae.lambda_actor


def bootstrapped(batch: RolloutBatch, final_values: Tensor, *, gamma: float) -> Tensor:
    """[B, T] on the last token: the score, or of an answer cut at the limit gamma * V(after that token) in its place.

    The score of an answer that was not finished says that it was cut, which V says already: their sum counts it twice.
    """
    return on_last_token(torch.where(batch.truncated, gamma * final_values, batch.scores), batch)
