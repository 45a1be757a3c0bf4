"""Forward passes and optimiser steps of a critic, the same in value pretraining and in RL."""

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.losses import denominators, value_loss
from vcppo.models import forward
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.types import RolloutBatch, cut_to


@dataclass(frozen=True)
class CriticUpdate:
    """Metrics of one update of the critic."""

    loss: float
    grad_norm: float
    clip_fraction: float


def read_values(critic: PreTrainedModel, batch: RolloutBatch, max_tokens: int, rows: Tensor | None = None) -> Tensor:
    """[B, T] float32 values of every state, without gradient; 0 where masked, and in rows not in `rows`."""
    return forward.gather_outputs(critic, batch, max_tokens, lambda part: forward.response_values(critic, part), rows)


def read_final_values(
    critic: PreTrainedModel, batch: RolloutBatch, max_tokens: int, rows: Tensor | None = None
) -> Tensor:
    """[B] float32 values of the states after the last tokens, without gradient; 0 in rows not in `rows`."""
    return forward.gather_outputs(
        critic, batch, max_tokens, lambda part: forward.last_token_values(critic, part), rows, per_token=False
    )


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
    """Take one optimiser step on a minibatch towards `returns` ([B, T]); `values` are those of rollout time."""
    normalisers = denominators(batch.response_mask, fixed_length=fixed_length)
    sums = {"loss": 0.0, "clip_fraction": 0.0}
    for micro_batch in forward.micro_batches_of_rank(critic, batch.total_lengths, max_tokens):
        part = batch.take(micro_batch.rows)
        result = value_loss(
            forward.response_values(critic, part),
            cut_to(values, micro_batch.rows, part),
            cut_to(returns, micro_batch.rows, part),
            part.response_mask,
            kind=kind,
            clip_range=clip_range,
            aggregation=aggregation,
            over=normalisers,
        )
        (micro_batch.weight * result.loss).backward()
        if micro_batch.counts:
            sums["loss"] += float(result.loss.detach())
            sums["clip_fraction"] += float(result.clip_fraction)
    sums = world().total(sums)
    return CriticUpdate(sums["loss"], optimiser.step(), sums["clip_fraction"])
