"""Targets of value pretraining: responses of a fixed policy, and returns of the rewards that RL gives.

The returns are Monte-Carlo returns, as in section 4.1 of arXiv:2503.01491, or on request lambda-returns.
"""

import dataclasses
from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.errors import TrainingError
from vcppo.maths.advantages import gae, monte_carlo_returns
from vcppo.rl.continuations import segments_of
from vcppo.rl.policy_update import read_logprobs
from vcppo.rl.rewards import place_scores, returns_known, token_rewards
from vcppo.rl.sampler import step_starts
from vcppo.settings.run import RunSettings
from vcppo.tasks.base import Task
from vcppo.types import RolloutBatch, cut_to


@dataclass(frozen=True)
class ValueTargets:
    """Responses with the rewards and the Monte-Carlo returns of their tokens."""

    batch: RolloutBatch
    rewards: Tensor  # [B, T]
    returns: Tensor  # [B, T]

    def take(self, rows: Tensor) -> "ValueTargets":
        """These rows, cut to the width that they need."""
        part = self.batch.take(rows)
        return ValueTargets(part, cut_to(self.rewards, rows, part), cut_to(self.returns, rows, part))


@dataclass(frozen=True)
class TokenRewardModels:
    """The policies of RTO's token rewards, and the task and tokenizer that split responses into steps."""

    reference: PreTrainedModel
    dpo_policy: PreTrainedModel
    task: Task
    tokenizer: PreTrainedTokenizerFast


def has_target(batch: RolloutBatch, settings: RunSettings) -> Tensor:
    """[B] bool: all responses but truncated ones that RL bootstraps or drops."""
    return returns_known(batch, settings) & ~(batch.truncated & settings.select.drop_truncated)


def rows_with_targets(batch: RolloutBatch, settings: RunSettings, limit: int) -> Tensor:
    """The rows that have a target, at least one.

    Raises:
        TrainingError: every response was cut at `limit` tokens, and such responses have no target here.
    """
    rows = has_target(batch, settings).nonzero()[:, 0]
    if not len(rows):
        raise TrainingError(
            f"critic: all {len(batch.scores)} responses were cut at the limit of {limit} tokens, and such have "
            "no return here (gae.bootstrap_truncated, select.drop_truncated); raise rollout.max_tokens"
        )
    return rows


def value_targets(batch: RolloutBatch, models: TokenRewardModels | None, settings: RunSettings) -> ValueTargets:
    """Compute Monte-Carlo returns of the fixed policy's responses.

    Args:
        batch: scores already shaped.
        models: None without token rewards.
    """
    rewards = place_scores(batch)
    if models is not None:
        temperature, limit = settings.rollout.temperature, settings.micro_batch_tokens
        ref_logprobs = read_logprobs(models.reference, batch, temperature=temperature, max_tokens=limit)
        dpo_logprobs = read_logprobs(models.dpo_policy, batch, temperature=temperature, max_tokens=limit)
        tokens = [row[:n] for row, n in zip(batch.response_tokens.tolist(), batch.lengths.tolist(), strict=True)]
        starts = step_starts(tokens, models.task, models.tokenizer)
        rewards = rewards + token_rewards(
            dataclasses.replace(batch, old_logprobs=ref_logprobs),  # the policy is the reference: no KL
            ref_logprobs,
            dpo_logprobs,
            segments_of(starts, batch.response_mask.shape[1]),
            settings,
        )
    returns = monte_carlo_returns(rewards, batch.response_mask, gamma=settings.gae.gamma)
    return ValueTargets(batch, rewards, returns)


def mixed_returns(targets: ValueTargets, values: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """[B, T] lambda-returns of some responses, from the critic's present values of their states ([B, T])."""
    mask = targets.batch.response_mask
    return gae(targets.rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda) + values
