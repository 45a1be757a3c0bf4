"""How a model is run over answers: what goes in, what is read where, and which process runs which of them.

Batches live on the CPU; a pass takes its part to the model's device and brings [B, T] numbers back, with gradients.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError, TrainingError
from vcppo.maths.logprobs import chosen_logprobs
from vcppo.models.configurations import called
from vcppo.models.distributed import world
from vcppo.models.prepared import compute_of, preparation_of
from vcppo.types import TokenBatch


@dataclass(frozen=True)
class Layout:
    """Answers as a model reads them. N is the number of generated tokens, in the order of the batch's rows."""

    input_ids: Tensor  # [B, S], or packed [1, all tokens]
    position_ids: Tensor | None  # [1, all tokens], from 0 in each answer; None where a row holds one answer
    before: Tensor  # [N] the place, counted through all rows, from which each generated token was chosen
    last: Tensor  # [B] the place of each answer's last token


def layout(batch: TokenBatch, *, packing: bool) -> Layout:
    """Padding stands on the right and attention is causal, so no token sees it and no mask is needed."""
    totals = batch.total_lengths
    starts = torch.arange(len(totals)) * batch.input_ids.shape[1]
    input_ids, position_ids = batch.input_ids, None
    if packing:
        live = torch.arange(input_ids.shape[1]) < totals[:, None]
        position_ids = torch.arange(input_ids.shape[1]).expand_as(input_ids)[live][None]
        input_ids = input_ids[live][None]
        starts = totals.cumsum(0) - totals
    columns = torch.arange(batch.response_mask.shape[1])
    before = (starts + batch.prompt_lengths - 1)[:, None] + columns
    return Layout(input_ids, position_ids, before[batch.response_mask], starts + totals - 1)


def response_logprobs(policy: PreTrainedModel, batch: TokenBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """([B, T] log-probability of each generated token, [B, T] entropy of its place), nats; 0 where masked."""
    compute, read = compute_of(policy), layout(batch, packing=compute_of(policy).packing)
    inputs = _to_device(policy, read.input_ids, read.position_ids, read.before, _targets(batch))
    chosen, entropy = _run(policy, "policy_scores")(*inputs, temperature, compute.logit_cells)
    return _spread(chosen, batch), _spread(entropy, batch)


def response_values(critic: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, T] float32: V(s_t), read from the token before the t-th generated one; 0 where masked."""
    read = layout(batch, packing=compute_of(critic).packing)
    values = _run(critic, "critic_values")(*_to_device(critic, read.input_ids, read.position_ids, read.before))
    return _spread(values, batch)


def last_token_values(critic: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B] float32: the value read from each answer's last token, where a reward model scores."""
    read = layout(batch, packing=compute_of(critic).packing)
    values: Tensor = _run(critic, "critic_values")(*_to_device(critic, read.input_ids, read.position_ids, read.last))
    return values.cpu()


def policy_scores(
    policy: Any,
    input_ids: Tensor,
    position_ids: Tensor | None,
    before: Tensor,
    targets: Tensor,
    temperature: float,
    cells: int,
) -> tuple[Tensor, Tensor]:
    """([N] log-probabilities of `targets`, [N] entropies) at the places `before`."""
    hidden = _hidden(policy, input_ids, position_ids)[before]
    head = policy.get_output_embeddings()
    return chosen_logprobs(hidden, head.weight.to(hidden.dtype), targets, temperature=temperature, cells=cells)


def critic_values(critic: Any, input_ids: Tensor, position_ids: Tensor | None, places: Tensor) -> Tensor:
    """[N] float32 values at the places; within the critic's range, if it has one."""
    head = value_head(critic)
    read = _hidden(critic, input_ids, position_ids)[places].to(head.weight.dtype)
    values: Tensor = head(read).float().sum(dim=1)  # of one number: a view of it would lose a sharded model's hooks
    if (bounds := value_range(critic)) is not None:
        low, high = bounds
        return low + (high - low) * torch.sigmoid(values)
    return values


SCORERS: dict[str, Callable[..., Any]] = {"policy_scores": policy_scores, "critic_values": critic_values}


def let_shards_score(model: PreTrainedModel) -> None:
    """Make the scorers methods of a sharded model, before and after which its shards are gathered and let go."""
    for name, scorer in SCORERS.items():
        setattr(model, name, MethodType(scorer, model))
        register_fsdp_forward_method(model, name)


def let_go(model: torch.nn.Module) -> None:
    """Drop what a pass without gradient has gathered: until then `parameters()` are copies in the passes' precision."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def value_head(critic: PreTrainedModel) -> torch.nn.Linear:
    """The layer that turns a hidden state into a value."""
    for name in ("score", "classifier"):
        head = getattr(critic, name, None)
        if isinstance(head, torch.nn.Linear) and head.out_features == 1:
            return head
    raise CheckpointError(f"{type(critic).__name__}: no head with one output, expected a classifier with one label")


def value_range(critic: PreTrainedModel) -> tuple[float, float] | None:
    """(low, high) that a bounded critic's values lie between; it is saved with the critic."""
    bounds = getattr(critic.config, "value_range", None)
    return None if bounds is None else (bounds[0], bounds[1])


def micro_batches(
    total_lengths: Tensor, max_tokens: int, rows: Tensor | None = None, *, packing: bool = False
) -> Iterator[Tensor]:
    """Row indices in groups that fit `max_tokens` cells, rows of like length together; every row once.

    A row that alone is longer is a group of its own.

    Args:
        rows: [N] int64, the only rows that are wanted; all by default.
        packing: a row has as many cells as tokens; else as many as the longest of its group, the first.
    """
    if rows is None:
        order = total_lengths.argsort(descending=True, stable=True)
    else:
        order = rows[total_lengths[rows].argsort(descending=True, stable=True)]
    lengths, start = total_lengths[order], 0
    tokens = lengths.cumsum(0)  # of the rows up to each
    while start < len(order):
        end = start + max_tokens // int(lengths[start])
        if packing:
            end = int(torch.searchsorted(tokens, tokens[start] - lengths[start] + max_tokens, right=True))
        end = max(end, start + 1)
        yield order[start:end]
        start = end


@dataclass(frozen=True)
class Pass:
    """One of this process's passes; sharded models need as many of every process, so some count for nothing."""

    rows: Tensor
    counts: bool

    @property
    def weight(self) -> float:
        """What a loss is multiplied by before its gradient, which is averaged over processes, is taken."""
        return float(world().size) if self.counts else 0.0


def own_passes(
    model: PreTrainedModel, total_lengths: Tensor, max_tokens: int, rows: Tensor | None = None
) -> Iterator[Pass]:
    """This process's share of `micro_batches`: they are of about one size, and every process gets each n-th."""
    here = world()
    groups = list(micro_batches(total_lengths, max_tokens, rows, packing=compute_of(model).packing))
    idle = groups[-1][-1:] if groups else None  # the shortest row
    for start in range(0, len(groups), here.size):
        number = start + here.rank
        if number < len(groups):
            yield Pass(groups[number], True)
        elif idle is not None:
            yield Pass(idle, False)


def read(
    model: PreTrainedModel,
    batch: TokenBatch,
    max_tokens: int,
    score: Callable[[TokenBatch], Tensor],
    rows: Tensor | None = None,
    *,
    per_token: bool = True,
) -> Tensor:
    """What `score` says of a batch without gradient, [B, T] or, not per token, [B]; 0 in rows not asked for.

    `model` lets go of what it has gathered for it.

    Raises:
        TrainingError: some of it is not finite.
    """
    found = torch.zeros(batch.response_mask.shape if per_token else len(batch.response_mask))
    with torch.no_grad():
        for own in own_passes(model, batch.total_lengths, max_tokens, rows):
            scores = score(batch.take(own.rows))
            if own.counts and per_token:
                found[own.rows, : scores.shape[1]] = scores
            elif own.counts:
                found[own.rows] = scores
    let_go(model)
    found = world().sum(found)
    if spoilt := int((~found.isfinite()).sum()):
        raise TrainingError(
            f"{called(model)}: {spoilt} of the numbers read from it are NaN or infinite; its weights are broken, or "
            "have been trained out of range"
        )
    return found


def _hidden(model: Any, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    """[places, H] what the head reads, through all rows."""
    states = model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
    hidden: Tensor = states.flatten(0, 1)
    return hidden


def _run(model: PreTrainedModel, name: str) -> Callable[..., Any]:
    own: Callable[..., Any] = getattr(model, name, None) or MethodType(SCORERS[name], model)
    return own


def _targets(batch: TokenBatch) -> Tensor:
    return batch.response_tokens[batch.response_mask]


def _to_device(model: PreTrainedModel, *inputs: Tensor | None) -> list[Tensor | None]:
    device = preparation_of(model).device
    return [None if x is None else x.to(device, non_blocking=True) for x in inputs]


def _spread(x: Tensor, batch: TokenBatch) -> Tensor:
    """[N] to [B, T], 0 where masked."""
    x = x.cpu()
    return x.new_zeros(batch.response_mask.shape).masked_scatter(batch.response_mask, x)
