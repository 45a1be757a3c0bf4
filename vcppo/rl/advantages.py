"""From rewards on tokens to what the updates need: advantages for the actor, targets for the critic."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from vcppo.maths.advantages import gae, length_adaptive_lambda, whiten
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.rewards import Rewards
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class Advantages:
    """Advantages of the actor. Everything [B, T] float32, 0 where masked."""

    raw: Tensor  # before whitening: on-policy their mean is near 0, a check on them
    final: Tensor  # whitened over the batch and clipped, as far as the settings say so
    gae_lambda: float | Tensor  # a number, or one per row ([B]); 1 where no lambda is used


@dataclass(frozen=True)
class Evidence:
    """Inputs of an estimator; its record in vcppo/settings/estimators.py names those that it reads."""

    batch: RolloutBatch
    outputs: ModelOutputs
    rewards: Rewards
    gae_lambda: float | Tensor  # the actor's: a number, or one per row ([B])
    settings: RunSettings

    @property
    def response_mask(self) -> Tensor:
        """[B, T] bool."""
        return self.batch.response_mask


def actor_advantages(
    batch: RolloutBatch, rewards: Rewards, outputs: ModelOutputs, rows: Tensor, settings: RunSettings
) -> Advantages:
    """Compute the actor's advantages, by GAE with lambda_actor unless the settings name another estimator.

    Args:
        batch: scores already shaped.
        rows: [K] rows that will be trained on; whitening looks at no other. Group statistics are of the whole batch
            (CPPO, arXiv:2503.22342), see `vcppo.rl.outputs.compared_rows`.
    """
    gae_lambda = actor_lambda(batch, settings)
    compute = settings.estimator.compute
    raw: Tensor = compute(Evidence(batch, outputs, rewards, gae_lambda, settings))
    return Advantages(raw, prepared(raw, trained_tokens(batch, rows), settings), gae_lambda)


def critic_returns(batch: RolloutBatch, rewards: Rewards, outputs: ModelOutputs, settings: RunSettings) -> Tensor:
    """[B, T] targets of the critic, by GAE with lambda_critic; without a critic the Monte-Carlo returns."""
    values, mask = outputs.values, batch.response_mask
    if values is None:
        return rewards.monte_carlo
    chosen = settings.gae
    return gae(rewards.earned, values, mask, gamma=chosen.gamma, gae_lambda=chosen.lambda_critic) + values


def prepared(raw: Tensor, trained: Tensor, settings: RunSettings) -> Tensor:
    """Whiten advantages over the batch and clip them, unless each minibatch will do that for itself."""
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


def trained_tokens(batch: RolloutBatch, rows: Tensor) -> Tensor:
    """[B, T] bool: the response_mask of the rows that are trained on, False in all others."""
    trained = torch.zeros_like(batch.response_mask)
    trained[rows] = batch.response_mask[rows]
    return trained


def actor_lambda(batch: RolloutBatch, settings: RunSettings) -> float | Tensor:
    """Lambda of the actor's advantages, or the number that the settings' estimator amounts to."""
    estimator, alpha = settings.estimator, settings.gae.length_adaptive_alpha
    if estimator.gae_lambda != "actor":
        return estimator.gae_lambda
    if estimator.length_adaptive and alpha is not None:
        return length_adaptive_lambda(batch.response_mask, alpha=alpha)
    return settings.gae.lambda_actor
