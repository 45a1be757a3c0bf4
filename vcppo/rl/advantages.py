"""From rewards on tokens to what the updates need: advantages for the actor, targets for the critic."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from vcppo.maths.advantages import (
    gae,
    group_advantages,
    length_adaptive_lambda,
    monte_carlo_returns,
    q_advantages,
    released_dvpo_advantages,
    rloo_advantages,
    segment_advantages,
    whiten,
)
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.rewards import Rewards
from vcppo.settings.sections import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class Advantages:
    """Of the actor. Everything [B, T] float32, 0 where masked."""

    raw: Tensor  # before whitening: on-policy their mean is near 0, a check of their own
    final: Tensor  # whitened over the batch and clipped, as far as the settings say so
    gae_lambda: float | Tensor  # a number, or one per row ([B]); 1 where no lambda is used


def actor_advantages(
    batch: RolloutBatch, rewards: Rewards, outputs: ModelOutputs, rows: Tensor, settings: RunSettings
) -> Advantages:
    """The actor's advantages, by GAE with lambda_actor unless the settings name another estimator.

    Args:
        batch: scores already shaped.
        rows: [K] rows that will be trained on; whitening looks at no other. Group statistics are of the whole batch
            (CPPO, arXiv:2503.22342), see `vcppo.rl.outputs.compared_rows`.
    """
    gae_lambda = actor_lambda(batch, settings)
    raw = raw_advantages(batch, outputs, rewards.earned, rewards.tokens, gae_lambda, settings)
    return Advantages(raw, prepared(raw, trained_tokens(batch, rows), settings), gae_lambda)


def critic_returns(batch: RolloutBatch, rewards: Rewards, outputs: ModelOutputs, settings: RunSettings) -> Tensor:
    """[B, T] targets of the critic, by GAE with lambda_critic; without a critic the Monte-Carlo returns."""
    values, mask = outputs.values, batch.response_mask
    if values is None:
        return rewards.monte_carlo
    chosen = settings.gae
    return gae(rewards.earned, values, mask, gamma=chosen.gamma, gae_lambda=chosen.lambda_critic) + values


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


def trained_tokens(batch: RolloutBatch, rows: Tensor) -> Tensor:
    """[B, T] bool: the response_mask of the rows that are trained on, False in all others."""
    trained = torch.zeros_like(batch.response_mask)
    trained[rows] = batch.response_mask[rows]
    return trained


def raw_advantages(
    batch: RolloutBatch,
    outputs: ModelOutputs,
    earned: Tensor,
    extra: Tensor,
    gae_lambda: float | Tensor,
    settings: RunSettings,
) -> Tensor:
    """[B, T] by the settings' estimator, not whitened; `earned` are all rewards, `extra` those beside the score."""
    mask, values, gamma = batch.response_mask, outputs.values, settings.gae.gamma
    estimator = settings.advantage.estimator
    match estimator:
        case "grpo":
            return group_advantages(earned.sum(dim=1), batch.group, mask, scale=settings.advantage.group_scale)
        case "rloo":
            return rloo_advantages(earned.sum(dim=1), batch.group, mask)
        case "return":
            return monte_carlo_returns(earned, mask, gamma=gamma)
        case "vine":
            assert outputs.step_values is not None
            assert outputs.segments is not None
            return segment_advantages(earned, outputs.step_values, outputs.segments, mask)
        case "none":
            return torch.zeros(mask.shape)
        case "gae" | "td":
            assert values is not None
            return gae(earned, values, mask, gamma=gamma, gae_lambda=gae_lambda)
        case "q":
            assert values is not None
            return q_advantages(earned, values, mask, gamma=gamma)
        case "released-dvpo":
            assert values is not None
            return released_dvpo_advantages(values, extra, mask, gae_lambda=settings.gae.lambda_actor)
        case _:
            assert_never(estimator)


def actor_lambda(batch: RolloutBatch, settings: RunSettings) -> float | Tensor:
    """The lambda of the actor's advantages; one-step differences (`td`) are those of lambda 0."""
    estimator, alpha = settings.advantage.estimator, settings.gae.length_adaptive_alpha
    match estimator:
        case "td" | "q":
            return 0.0
        case "grpo" | "rloo" | "return" | "vine" | "none":
            return 1.0
        case "gae" if alpha is not None:
            return length_adaptive_lambda(batch.response_mask, alpha=alpha)
        case "gae" | "released-dvpo":
            return settings.gae.lambda_actor
        case _:
            assert_never(estimator)
