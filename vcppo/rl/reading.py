"""Forward passes of an iteration: critic, reference and RTO's DPO policy read the batch before anything is updated."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.shaping import DebiasedMoments
from vcppo.rl.continuations import StepValues, segments_of
from vcppo.rl.costs import Costs
from vcppo.rl.critic_update import read_final_values, read_values
from vcppo.rl.exact_critic import exact_critic_values
from vcppo.rl.exact_values import Response, exact_values, refuse_credit
from vcppo.rl.models import Models
from vcppo.rl.outputs import ModelOutputs, compared_rows
from vcppo.rl.policy_update import read_logprobs
from vcppo.rl.sampler import Sampler
from vcppo.seeding import rng_for
from vcppo.settings.rules import bootstraps
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch


def read_outputs(
    models: Models,
    rollouts: Sequence[Rollout],
    batch: RolloutBatch,
    rows: Tensor,
    steps: StepValues | None,
    *,
    value_moments: DebiasedMoments,
    sampler: Sampler,
    settings: RunSettings,
    step: int,
    costs: Costs,
) -> ModelOutputs:
    """Run the models over the rows that will be trained on, and over others only where those are compared with them.

    Args:
        rows: [K] that will be trained on.
        value_moments: of returns, where the critic learns them normalised.
        step: of the run, by which a noise of the exact critic is drawn. costs: its forward tokens are added to.
    Raises:
        DataError: responses have partial credit, and the critic is exact.
    """
    limit, temperature = settings.micro_batch_tokens, settings.rollout.temperature
    compared = compared_rows(batch, rows, settings)

    def denormalised(outputs: Tensor) -> Tensor:
        return value_moments.denormalise(outputs) if settings.critic.normalise_returns else outputs

    def logprobs(policy: PreTrainedModel | None) -> Tensor | None:
        if policy is None:
            return None
        costs.forward_tokens += int(batch.total_lengths[compared].sum())
        return read_logprobs(policy, batch, temperature=temperature, max_tokens=limit, rows=compared)

    critic_outputs = values = final_values = None
    if models.critic is not None:
        critic_outputs = read_values(models.critic, batch, limit, rows)
        values = torch.where(batch.response_mask, denormalised(critic_outputs) + imposed(batch, settings), 0.0)
        costs.forward_tokens += int(batch.total_lengths[rows].sum())
        if bootstraps(settings):
            final_values = denormalised(read_final_values(models.critic, batch, limit, rows))
            final_values = final_values + profile_at(batch.lengths, settings)
            costs.forward_tokens += int(batch.total_lengths[rows].sum())
    exact = None
    if settings.has_critic and settings.critic.init == "exact" and len(rows):
        refuse_credit(batch, settings.reward)
        responses = [Response.of(rollout) for rollout in rollouts]
        exact = exact_values(
            models.rollout_policy, responses, sampler=sampler, reward=settings.reward, max_tokens=limit, rows=rows
        )
        rng = rng_for(settings.run_seed, "rl", "critic blur", step)
        values = exact_critic_values(exact, batch.response_mask, rows, settings.critic, rng)
        values = torch.where(batch.response_mask, values + imposed(batch, settings), 0.0)
        costs.forward_tokens += exact.read_tokens
    elif settings.has_critic and settings.critic.init == "exact":
        values = torch.zeros(batch.response_mask.shape)
    segments = None if steps is None else steps.segments
    if settings.token_reward.kind == "semi-rto":
        starts = sampler.step_starts([rollout.generation.tokens for rollout in rollouts])
        segments = segments_of(starts, batch.response_mask.shape[1])
    return ModelOutputs(
        values=values,
        critic_outputs=critic_outputs,
        final_values=final_values,
        ref_logprobs=logprobs(models.reference),
        dpo_logprobs=logprobs(models.dpo_policy),
        segments=segments,
        step_values=None if steps is None else steps.step_values,
        exact=exact,
    )


def imposed(batch: RolloutBatch, settings: RunSettings) -> Tensor:
    """[T] float32: what `critic.profile` adds to the value before each token, 0 without one.

    It is no part of the critic, which goes on learning returns: however good that gets, advantages are made of values
    with this error. With lambda_critic = 1 no target of the critic contains it.
    """
    return profile_at(torch.arange(batch.response_mask.shape[1]), settings)


def profile_at(tokens: Tensor, settings: RunSettings) -> Tensor:
    """Float32 offsets at these tokens (any shape): lines between a profile's points, constant beyond its ends."""
    points = settings.critic.profile_points
    if not points:
        return torch.zeros(tokens.shape)
    places, offsets = zip(*points, strict=True)
    return torch.from_numpy(np.interp(tokens.numpy(), places, offsets)).to(torch.float32)
