"""From what was read of a batch to a formula of vcppo/maths/advantages.py: one function for each estimator.

vcppo/settings/estimators.py names them and says what each reads; nothing else knows them.
"""

import torch
from torch import Tensor

from vcppo.maths.advantages import (
    gae,
    group_advantages,
    monte_carlo_returns,
    q_advantages,
    released_dvpo_advantages,
    rloo_advantages,
    segment_advantages,
)
from vcppo.rl.advantages import Evidence
from vcppo.settings.advantage import GroupAdvantageSettings


def generalised(seen: Evidence) -> Tensor:
    """GAE with the actor's lambda, which is 0 for the one-step difference."""
    assert seen.outputs.values is not None
    gamma = seen.settings.gae.gamma
    return gae(seen.rewards.earned, seen.outputs.values, seen.response_mask, gamma=gamma, gae_lambda=seen.gae_lambda)


def action_values(seen: Evidence) -> Tensor:
    """DVPO as its paper has it: Q, without a baseline."""
    assert seen.outputs.values is not None
    return q_advantages(seen.rewards.earned, seen.outputs.values, seen.response_mask, gamma=seen.settings.gae.gamma)


def released_dvpo(seen: Evidence) -> Tensor:
    """DVPO as its code has it: whitened values, and the KL penalty for the only reward."""
    assert seen.outputs.values is not None
    gae_lambda = seen.settings.gae.lambda_actor
    return released_dvpo_advantages(seen.outputs.values, seen.rewards.tokens, seen.response_mask, gae_lambda=gae_lambda)


def steps(seen: Evidence) -> Tensor:
    """VinePPO: sampled values of the steps of a response."""
    assert seen.outputs.step_values is not None
    assert seen.outputs.segments is not None
    return segment_advantages(seen.rewards.earned, seen.outputs.step_values, seen.outputs.segments, seen.response_mask)


def returns(seen: Evidence) -> Tensor:
    """What came after each token."""
    return monte_carlo_returns(seen.rewards.earned, seen.response_mask, gamma=seen.settings.gae.gamma)


def group_relative(seen: Evidence) -> Tensor:
    """GRPO: a response's rewards against those of its group, divided by their deviation or not."""
    chosen = seen.settings.advantage
    assert isinstance(chosen, GroupAdvantageSettings)
    scale = chosen.group_scale
    return group_advantages(seen.rewards.earned.sum(dim=1), seen.batch.group, seen.response_mask, scale=scale)


def leave_one_out(seen: Evidence) -> Tensor:
    """RLOO: a response's rewards against the mean of the others of its group."""
    return rloo_advantages(seen.rewards.earned.sum(dim=1), seen.batch.group, seen.response_mask)


def nothing(seen: Evidence) -> Tensor:
    """DPO has no advantages."""
    return torch.zeros(seen.response_mask.shape)
