"""From the model outputs of a batch to a formula of vcppo/maths/advantages.py: one function per estimator.

vcppo/settings/estimators.py lists them with what each reads; nothing else knows them.
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


def generalised(evidence: Evidence) -> Tensor:
    """GAE with the actor's lambda, which is 0 for the one-step difference."""
    assert evidence.outputs.values is not None
    gamma = evidence.settings.gae.gamma
    return gae(
        evidence.rewards.earned,
        evidence.outputs.values,
        evidence.response_mask,
        gamma=gamma,
        gae_lambda=evidence.gae_lambda,
    )


def action_values(evidence: Evidence) -> Tensor:
    """DVPO as its paper has it: Q, without a baseline."""
    assert evidence.outputs.values is not None
    return q_advantages(
        evidence.rewards.earned, evidence.outputs.values, evidence.response_mask, gamma=evidence.settings.gae.gamma
    )


def released_dvpo(evidence: Evidence) -> Tensor:
    """DVPO as its code has it: whitened values, and the KL penalty for the only reward."""
    assert evidence.outputs.values is not None
    gae_lambda = evidence.settings.gae.lambda_actor
    return released_dvpo_advantages(
        evidence.outputs.values, evidence.rewards.tokens, evidence.response_mask, gae_lambda=gae_lambda
    )


def steps(evidence: Evidence) -> Tensor:
    """VinePPO: sampled values of the steps of a response."""
    assert evidence.outputs.step_values is not None
    assert evidence.outputs.segments is not None
    return segment_advantages(
        evidence.rewards.earned, evidence.outputs.step_values, evidence.outputs.segments, evidence.response_mask
    )


def returns(evidence: Evidence) -> Tensor:
    """Monte-Carlo returns of each token."""
    return monte_carlo_returns(evidence.rewards.earned, evidence.response_mask, gamma=evidence.settings.gae.gamma)


def group_relative(evidence: Evidence) -> Tensor:
    """GRPO: a response's rewards against those of its group, divided by their deviation or not."""
    chosen = evidence.settings.advantage
    assert isinstance(chosen, GroupAdvantageSettings)
    return group_advantages(
        evidence.rewards.earned.sum(dim=1), evidence.batch.group, evidence.response_mask, scale=chosen.group_scale
    )


def leave_one_out(evidence: Evidence) -> Tensor:
    """RLOO: a response's rewards against the mean of the others of its group."""
    return rloo_advantages(evidence.rewards.earned.sum(dim=1), evidence.batch.group, evidence.response_mask)


def nothing(evidence: Evidence) -> Tensor:
    """DPO has no advantages."""
    return torch.zeros(evidence.response_mask.shape)
