"""Forward passes over responses: layout of the inputs, outputs per token, micro-batches and the ranks they run on.

Batches live on the CPU; a pass moves its micro-batch to the model's device and returns [B, T] outputs, with gradients.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError, ConfigError, TrainingError
from vcppo.maths.logprobs import chosen_logprobs
from vcppo.models.configurations import model_label
from vcppo.models.distributed import world
from vcppo.models.prepared import compute_of, preparation_of
from vcppo.models.token_count import count_tokens
from vcppo.types import TokenBatch

PROBED = 8  # tokens, spread over the vocabulary
SAME_LOGITS = 1e-3  # relative difference of logits in float32 that a product with the head stays below
SAME_HIDDEN = 0.05  # relative difference of hidden states that bfloat16 passes in other shapes stay below


@dataclass(frozen=True)
class Layout:
    """Responses as a model reads them. N is the number of generated tokens, in the order of the batch's rows."""

    input_ids: Tensor  # [B, S], or packed [1, all tokens]
    position_ids: Tensor | None  # [1, all tokens], from 0 in each response; None where a row holds one response
    before: Tensor  # [N] the place, counted through all rows, from which each generated token was chosen
    last: Tensor  # [B] the place of each response's last token


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


@torch.no_grad()
def check_packing(model: PreTrainedModel) -> None:
    """Check that a model keeps responses that stand in one line apart; every process calls this alike.

    Some families (OPT, Falcon, BLOOM) make their mask without looking at positions: there each response would see all
    that stand before it.

    Raises:
        ConfigError: what it makes of a response depends on the one before.
    """
    start = model.config.get_text_config().vocab_size // 2
    apart = torch.arange(start, start + 3)[None]
    line, positions = torch.cat([apart - 3, apart], dim=1), torch.arange(3).repeat(2)[None]

    def hidden(ids: Tensor, position_ids: Tensor) -> Tensor:
        line, places = _to_device(model, ids, position_ids)
        read = model(input_ids=line, position_ids=places, use_cache=False, output_hidden_states=True)
        last: Tensor = read.hidden_states[-1][0, -3:].float()
        return last

    alone = hidden(apart, positions[:, :3])
    packed = hidden(line, positions)
    reshard(model)
    if (packed - alone).norm() > SAME_HIDDEN * alone.norm():
        raise ConfigError(
            f"compute.packing = true: in a line of several responses {model_label(model)} lets them see each other; "
            "set compute.packing=false"
        )


@torch.no_grad()
def check_plain_logits(policy: PreTrainedModel, path: Path | str) -> None:
    """Check that a policy's logits are the product with its output head that losses compute, a part at a time.

    Some families cap them (Gemma 2), scale them (Cohere, Granite, Falcon-H1) or have a layer before the head.

    Raises:
        CheckpointError: they are more than that.
    """
    line = (torch.arange(PROBED) * policy.get_input_embeddings().num_embeddings // PROBED)[None]
    head: Any = policy.get_output_embeddings()
    product = head(_hidden(policy, line, None))
    logits = policy(input_ids=line, use_cache=False).logits.flatten(0, 1)
    if product.shape != logits.shape or (product - logits).norm() > SAME_LOGITS * logits.norm():
        raise CheckpointError(
            f"{path}: the logits of {type(policy).__name__} are not those of its output head: it caps or scales them, "
            "or has a layer between; expected plain logits"
        )


def response_logprobs(policy: PreTrainedModel, batch: TokenBatch, temperature: float) -> tuple[Tensor, Tensor]:
    """([B, T] log-probability of each generated token, [B, T] entropy of its place), nats; 0 where masked."""
    compute, laid_out = compute_of(policy), layout(batch, packing=compute_of(policy).packing)
    inputs = _to_device(policy, laid_out.input_ids, laid_out.position_ids, laid_out.before, _targets(batch))
    chosen, entropy = _run(policy, "policy_scores")(*inputs, temperature, compute.logit_cells)
    return _scatter(chosen, batch), _scatter(entropy, batch)


def token_logprobs(
    policy: PreTrainedModel, batch: TokenBatch, rows: Tensor, columns: Tensor, tokens: Tensor, temperature: float
) -> Tensor:
    """[N] float32, with gradient: log-probability that `tokens[i]` is chosen as the token `columns[i]` of a response.

    Args:
        rows, columns: [N] int64 places where `batch.response_mask` is True. tokens: [N] int64, any of the vocabulary.
    """
    compute, laid_out = compute_of(policy), layout(batch, packing=compute_of(policy).packing)
    numbers = batch.response_mask.flatten().cumsum(0).view(batch.response_mask.shape) - 1
    before = laid_out.before[numbers[rows, columns]]
    inputs = _to_device(policy, laid_out.input_ids, laid_out.position_ids, before, tokens)
    chosen: Tensor = _run(policy, "policy_scores")(*inputs, temperature, compute.logit_cells)[0]
    return chosen.cpu()


def response_values(critic: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B, T] float32: V(s_t), read from the token before the t-th generated one; 0 where masked."""
    laid_out = layout(batch, packing=compute_of(critic).packing)
    inputs = _to_device(critic, laid_out.input_ids, laid_out.position_ids, laid_out.before)
    return _scatter(_run(critic, "critic_values")(*inputs), batch)


def last_token_values(critic: PreTrainedModel, batch: TokenBatch) -> Tensor:
    """[B] float32: the value at each response's last token, where a reward model scores."""
    laid_out = layout(batch, packing=compute_of(critic).packing)
    inputs = _to_device(critic, laid_out.input_ids, laid_out.position_ids, laid_out.last)
    values: Tensor = _run(critic, "critic_values")(*inputs)
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
    weight, bias = head.weight.to(hidden.dtype), getattr(head, "bias", None)
    if bias is not None:
        bias = bias.to(hidden.dtype)
    return chosen_logprobs(hidden, weight, targets, temperature=temperature, cells=cells, bias=bias)


def critic_values(critic: Any, input_ids: Tensor, position_ids: Tensor | None, places: Tensor) -> Tensor:
    """[N] float32 values at the places; within the critic's range, if it has one."""
    head = value_head(critic)
    hidden = _hidden(critic, input_ids, position_ids)[places].to(head.weight.dtype)
    values: Tensor = head(hidden).float().sum(dim=1)  # of one number: a view of it would lose a sharded model's hooks
    if (bounds := value_range(critic)) is not None:
        low, high = bounds
        return low + (high - low) * torch.sigmoid(values)
    return values


SCORERS: dict[str, Callable[..., Any]] = {"policy_scores": policy_scores, "critic_values": critic_values}


def register_scorers(model: PreTrainedModel) -> None:
    """Make the scorers methods of a sharded model, around which FSDP gathers its shards and frees them."""
    for name, scorer in SCORERS.items():
        setattr(model, name, MethodType(scorer, model))
        register_fsdp_forward_method(model, name)


def reshard(model: torch.nn.Module) -> None:
    """Free what a pass without gradient has gathered: until then `parameters()` are copies in the passes' precision."""
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


@torch.no_grad()
def rescale_values(critic: PreTrainedModel, slope: float, intercept: float) -> None:
    """Make every value v of a critic slope * v + intercept, by its head, in place; every process calls this alike.

    Raises:
        CheckpointError: its head has no bias to take the intercept.
    """
    head = value_head(critic)
    if head.bias is None:
        raise CheckpointError(
            f"{type(critic).__name__}: its head has no bias, expected one that takes a shift of its values by "
            f"{intercept:g}; a token classifier has one"
        )
    head.weight.mul_(slope)
    head.bias.mul_(slope).add_(intercept)


def value_range(critic: PreTrainedModel) -> tuple[float, float] | None:
    """(low, high) that a bounded critic's values lie between; it is saved with the critic."""
    bounds = getattr(critic.config, "value_range", None)
    return None if bounds is None else (bounds[0], bounds[1])


def split_rows(
    total_lengths: Tensor, max_tokens: int, rows: Tensor | None = None, *, packing: bool = False
) -> Iterator[Tensor]:
    """Split row indices into groups that fit `max_tokens` cells, rows of like length together; every row once.

    A row that alone is longer makes a group by itself.

    Args:
        rows: [N] int64, the rows to split; all by default.
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
class MicroBatch:
    """Rows of one forward pass of this rank. Sharded models need equally many on every rank: some are idle."""

    rows: Tensor
    counts: bool  # False for an idle one, whose outputs and gradient are discarded

    @property
    def weight(self) -> float:
        """Factor of a loss before its backward pass, whose gradients are averaged over processes."""
        return float(world().size) if self.counts else 0.0


def micro_batches_of_rank(
    model: PreTrainedModel, total_lengths: Tensor, max_tokens: int, rows: Tensor | None = None
) -> Iterator[MicroBatch]:
    """This rank's micro-batches, every n-th group of `split_rows`: neighbours are of about one size.

    A micro-batch's tokens count as done (`token_count`) when the next is asked for.
    """
    here = world()
    groups = list(split_rows(total_lengths, max_tokens, rows, packing=compute_of(model).packing))
    idle = groups[-1][-1:] if groups else None  # the shortest row
    for start in range(0, len(groups), here.size):
        number = start + here.rank
        if number < len(groups):
            yield MicroBatch(groups[number], True)
            count_tokens(int(total_lengths[groups[number]].sum()))
        elif idle is not None:
            yield MicroBatch(idle, False)


def gather_outputs(
    model: PreTrainedModel,
    batch: TokenBatch,
    max_tokens: int,
    score: Callable[[TokenBatch], Tensor],
    rows: Tensor | None = None,
    *,
    per_token: bool = True,
    finite: bool = True,
) -> Tensor:
    """Return `score` of a whole batch without gradient, [B, T] or, not per token, [B]; 0 in rows not in `rows`.

    `model` is resharded afterwards.

    Raises:
        TrainingError: some outputs are not finite, and `finite` says that they must be.
    """
    outputs = torch.zeros(batch.response_mask.shape if per_token else len(batch.response_mask))
    with torch.no_grad():
        for micro_batch in micro_batches_of_rank(model, batch.total_lengths, max_tokens, rows):
            scores = score(batch.take(micro_batch.rows))
            if micro_batch.counts and per_token:
                outputs[micro_batch.rows, : scores.shape[1]] = scores
            elif micro_batch.counts:
                outputs[micro_batch.rows] = scores
    return _of_all_processes(model, outputs, finite=finite)


def gather_token_logprobs(
    policy: PreTrainedModel,
    batch: TokenBatch,
    max_tokens: int,
    rows: Tensor,
    columns: Tensor,
    tokens: Tensor,
    temperature: float,
) -> Tensor:
    """Return `token_logprobs` of a whole batch without gradient; `policy` is resharded afterwards.

    Raises:
        TrainingError: some are not finite.
    """
    outputs, place = torch.zeros(len(rows)), torch.empty(len(batch.response_mask), dtype=torch.int64)
    with torch.no_grad():
        for micro_batch in micro_batches_of_rank(policy, batch.total_lengths, max_tokens):
            place.fill_(-1)[micro_batch.rows] = torch.arange(len(micro_batch.rows))
            here = (place[rows] >= 0).nonzero()[:, 0]
            part = batch.take(micro_batch.rows)
            logprobs = token_logprobs(policy, part, place[rows[here]], columns[here], tokens[here], temperature)
            if micro_batch.counts:
                outputs[here] = logprobs
    return _of_all_processes(policy, outputs)


def _of_all_processes(model: PreTrainedModel, outputs: Tensor, *, finite: bool = True) -> Tensor:
    """Sum what each process has read of a model, which is resharded."""
    reshard(model)
    outputs = world().sum(outputs)
    if finite and (not_finite := int((~outputs.isfinite()).sum())):
        raise TrainingError(
            f"{model_label(model)}: {not_finite} of the numbers read from it are NaN or infinite; its weights are "
            "broken, or have been trained out of range"
        )
    return outputs


def _hidden(model: Any, input_ids: Tensor, position_ids: Tensor | None) -> Tensor:
    """[places, H] hidden states, the head's input, through all rows."""
    states = model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False).last_hidden_state
    hidden: Tensor = states.flatten(0, 1)
    return hidden


def _run(model: PreTrainedModel, name: str) -> Callable[..., Any]:
    scorer: Callable[..., Any] = getattr(model, name, None) or MethodType(SCORERS[name], model)
    return scorer


def _targets(batch: TokenBatch) -> Tensor:
    return batch.response_tokens[batch.response_mask]


def _to_device(model: PreTrainedModel, *inputs: Tensor | None) -> list[Tensor | None]:
    device = preparation_of(model).device
    return [None if x is None else x.to(device, non_blocking=True) for x in inputs]


def _scatter(x: Tensor, batch: TokenBatch) -> Tensor:
    """Scatter [N] to [B, T], 0 where masked."""
    x = x.cpu()
    return x.new_zeros(batch.response_mask.shape).masked_scatter(batch.response_mask, x)
