"""From a scored batch to what the updates need: rewards on tokens, advantages for the actor, targets for the critic."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcppo.config import RunSettings
from vcppo.maths.advantages import gae, group_advantages, length_adaptive_lambda, monte_carlo_returns, whiten
from vcppo.maths.losses import KL_ESTIMATORS
from vcppo.stages.sampling import place_scores
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class Estimates:
    """Everything [B, T] float32, 0 where masked."""

    rewards: Tensor  # the verifier's score on the last token, KL penalty included where it is part of the reward
    monte_carlo: Tensor  # returns with no value in them, which diagnostics measure the critic against
    advantages: Tensor  # for the policy, whitened over the batch if the settings say so
    returns: Tensor  # targets of the critic
    gae_lambda: float | Tensor  # the actor's: a number, or one a row ([B])


def estimate(
    batch: RolloutBatch,
    values: Tensor | None,
    ref_logprobs: Tensor | None,
    final_values: Tensor | None,
    settings: RunSettings,
) -> Estimates:
    """Two calls of one `gae` with two lambdas (arXiv:2503.01491, algorithm 1, lines 5 and 6), or group advantages.

    Args:
        values: [B, T] at rollout time, None for an estimator without critic.
        ref_logprobs: [B, T], needed where the KL penalty is part of the reward.
        final_values: [B] V after the last token, needed where truncated answers are bootstrapped.
    """
    mask, gamma = batch.response_mask, settings.gae.gamma
    rewards = place_scores(batch)
    if settings.kl.placement == "reward":
        assert ref_logprobs is not None
        penalty = KL_ESTIMATORS[settings.kl.estimator](batch.old_logprobs, ref_logprobs)
        rewards = rewards - settings.kl.coefficient * torch.where(mask, penalty, 0.0)
    monte_carlo = monte_carlo_returns(rewards, mask, gamma=gamma)
    gae_lambda: float | Tensor = settings.gae.lambda_actor
    if values is None:
        scores = rewards.sum(dim=1)
        advantages = group_advantages(scores, batch.group, mask, scale=settings.advantage.group_scale)
        returns, gae_lambda = monte_carlo, 1.0
    else:
        if settings.gae.length_adaptive_alpha is not None:
            gae_lambda = length_adaptive_lambda(mask, alpha=settings.gae.length_adaptive_alpha)
        earned = rewards if final_values is None else bootstrap(rewards, final_values, batch, gamma=gamma)
        advantages = gae(earned, values, mask, gamma=gamma, gae_lambda=gae_lambda)
        returns = gae(earned, values, mask, gamma=gamma, gae_lambda=settings.gae.lambda_critic) + values
    if settings.advantage.whiten == "batch":
        advantages = whiten(advantages, mask)
    return Estimates(rewards, monte_carlo, advantages, returns, gae_lambda)


def bootstrap(rewards: Tensor, final_values: Tensor, batch: RolloutBatch, *, gamma: float) -> Tensor:
    """gamma * V(after the last token) added to the last reward of answers cut at the limit; others unchanged."""
    added = torch.zeros_like(rewards)
    rows = torch.arange(len(final_values))
    added[rows, batch.lengths - 1] = torch.where(batch.truncated, gamma * final_values, 0.0)
    return rewards + added
