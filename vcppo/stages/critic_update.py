"""How a critic is read and stepped, the same in value pretraining and in RL."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo import models
from vcppo.maths.losses import denominators, value_loss
from vcppo.optimiser import Optimiser
from vcppo.stages.sampling import micro_batches
from vcppo.types import RolloutBatch, cut_to


@dataclass(frozen=True)
class CriticUpdate:
    """What one update of the critic reports."""

    loss: float
    grad_norm: float
    clip_fraction: float


def read_values(critic: PreTrainedModel, batch: RolloutBatch, max_tokens: int, rows: Tensor | None = None) -> Tensor:
    """[B, T] float32 values of every state, without gradient; 0 where masked, and in rows not asked for."""
    values = torch.zeros(batch.response_mask.shape)
    with torch.inference_mode():
        for some in micro_batches(batch.total_lengths, max_tokens, rows):
            part = batch.take(some)
            values[some, : part.response_mask.shape[1]] = models.response_values(critic, part)
    return values


def read_final_values(
    critic: PreTrainedModel, batch: RolloutBatch, max_tokens: int, rows: Tensor | None = None
) -> Tensor:
    """[B] float32 values of the states after the last tokens, without gradient; 0 in rows not asked for."""
    values = torch.zeros(len(batch.scores))
    with torch.inference_mode():
        for some in micro_batches(batch.total_lengths, max_tokens, rows):
            values[some] = models.last_token_values(critic, batch.take(some))
    return values


def update_critic(
    critic: PreTrainedModel,
    optimiser: Optimiser,
    batch: RolloutBatch,
    values: Tensor,
    returns: Tensor,
    *,
    kind: str,
    clip_range: float,
    aggregation: str,
    fixed_length: int,
    max_tokens: int,
) -> CriticUpdate:
    """One optimiser step on a minibatch towards `returns` ([B, T]); `values` are those of rollout time."""
    over = denominators(batch.response_mask, fixed_length=fixed_length)
    total = clipped = 0.0
    for rows in micro_batches(batch.total_lengths, max_tokens):
        part = batch.take(rows)
        result = value_loss(
            models.response_values(critic, part),
            cut_to(values, rows, part),
            cut_to(returns, rows, part),
            part.response_mask,
            kind=kind,
            clip_range=clip_range,
            aggregation=aggregation,
            over=over,
        )
        result.loss.backward()
        total += float(result.loss.detach())
        clipped += float(result.clip_fraction)
    return CriticUpdate(total, optimiser.step(), clipped)
