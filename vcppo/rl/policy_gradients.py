"""Policy gradients of groups of responses for several kinds of advantages at once, and their dot products.

The policy gradient is linear in the advantages: sum_t A_t d log pi_t / d theta. A group's gradients for V kinds of
advantages are V backward passes behind one forward pass; a sharded policy takes a forward pass for each, since FSDP
frees what a second backward pass would need. No gradient is averaged or clipped, and no weight moves.

A gradient of P numbers is kept as it is where all of them fit the memory that was given; else as a sketch of K numbers,
to which number j is added at place j mod K with a random sign. Dot products of sketches are unbiased for the signs,
with an error of about |x| |y| / sqrt(K), far below that of the responses' own noise: for K = 2^20 a thousandth. A
process holds its shards' part of every gradient, or the sketch of the whole.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from transformers import PreTrainedModel

from vcppo.models import forward
from vcppo.models.distributed import world
from vcppo.models.sharding import is_sharded
from vcppo.seeding import rng_for
from vcppo.settings.fixed import PRODUCT_COLUMNS
from vcppo.types import TokenBatch, cut_to

DAMPING = 0.01  # of the mean second moment, added to each: what is never decided is no direction to look at


class PolicyGradients:
    """Gradients of one policy on one batch.

    Args:
        batch: every process has all of it. temperature: of the sampling. max_tokens: cells of a forward pass.
        held: gradients that will be held at once. memory: bytes that they may take in each process.
    """

    def __init__(
        self, policy: PreTrainedModel, batch: TokenBatch, *, temperature: float, max_tokens: int, held: int, memory: int
    ) -> None:
        self.policy, self.batch = policy, batch
        self._temperature, self._max_tokens = temperature, max_tokens
        forward.reshard(policy)
        self._parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        self._sharded = is_sharded(policy)
        self._starts = list(_starts(self._parameters))
        self._local = sum(_local(parameter).numel() for parameter in self._parameters)
        total = sum(parameter.numel() for parameter in self._parameters)
        self._replicas = world().total({"numbers": float(self._local)})["numbers"] / total  # hybrid shards
        largest = int(world().largest(float(self._local)))
        self.sketch: int | None = None  # K
        if held * largest * 4 > memory:
            self.sketch = max(memory // (held * 4), 2) | 1  # odd, so that no column of a matrix falls on itself
            rng = rng_for(0, "gradient sketch")
            self._signs = torch.randint(2, (2 * self.sketch,), generator=rng).float() * 2 - 1
            self._shifts = torch.randint(self.sketch, (total // self.sketch + 1,), generator=rng).tolist()
        self.backward_passes = 0
        self.scale: Tensor | None = None  # [local], by which gradients are multiplied: set by `precondition`

    def of(self, rows: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor | None]:
        """([V, K] gradients of the sum over these rows, the same preconditioned or None), float32 on the CPU.

        Args:
            rows: [N] of the batch. advantages: [V, B, T].
        """
        width = self._local if self.sketch is None else self.sketch
        plain = torch.zeros(len(advantages), width)
        scaled = None if self.scale is None else torch.zeros_like(plain)
        for kind, gradient in self._gradients(rows, advantages):
            plain[kind] += self._kept(gradient)
            if scaled is not None and self.scale is not None:
                scaled[kind] += self._kept(gradient * self.scale)
            del gradient
        return plain, scaled

    def precondition(self, groups: Sequence[Tensor]) -> None:
        """Measure second moments on these groups of rows: one pass over them.

        Every token gets a random sign for its advantage: then the mean square of a gradient's numbers is the diagonal
        of the Fisher information, whatever the returns are. The signs follow from the tokens, so that neither order nor
        padding of the responses matters.
        """
        squares, signs = torch.zeros(self._local), token_signs(self.batch)[None]
        for rows in groups:
            gradient = torch.zeros(self._local)
            for _, part in self._gradients(rows, signs):
                gradient += part
                del part  # the next pass has room for its own
            squares += gradient.square()
            del gradient
        moments = squares.div_(max(sum(len(rows) for rows in groups), 1))
        total = sum(parameter.numel() for parameter in self._parameters)
        mean = world().total({"sum": float(moments.sum(dtype=torch.float64))})["sum"] / self._replicas / total
        self.scale = moments.add_(DAMPING * mean).rsqrt_() if mean > 0 else torch.ones(self._local)

    def products(self, gradients: Tensor) -> NDArray[np.float64]:
        """[N, N] float64 dot products of gradients [N, K], over all shards."""
        count = len(gradients)
        total = torch.zeros((count, count), dtype=torch.float64)
        for columns in gradients.split(PRODUCT_COLUMNS, dim=1):
            wide = columns.double()
            total += wide @ wide.mT
        if self.sketch is None:
            total = world().sum(total) / self._replicas
        return np.asarray(total.numpy(), dtype=np.float64)

    def _gradients(self, rows: Tensor, advantages: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (kind of advantages, [local] gradient), micro-batch by micro-batch; those of a kind add up.

        Of a sharded policy by the passes that training takes, whose gradients are summed over processes into shards.
        """
        for micro_batch in forward.micro_batches_of_rank(self.policy, self.batch.total_lengths, self._max_tokens, rows):
            part = self.batch.take(micro_batch.rows)
            slopes = [cut_to(of_kind, micro_batch.rows, part) for of_kind in advantages]
            logprobs: Tensor | None = None
            for kind, slope in enumerate(slopes):
                if logprobs is None or self._sharded:
                    logprobs, _ = forward.response_logprobs(self.policy, part, self._temperature)
                self.backward_passes += 1
                if self._sharded:
                    (micro_batch.weight * (logprobs * slope).sum()).backward()
                    result = [parameter.grad for parameter in self._parameters]
                    for parameter in self._parameters:
                        parameter.grad = None
                else:
                    again = kind < len(slopes) - 1
                    result = list(
                        torch.autograd.grad(logprobs, self._parameters, slope, retain_graph=again, allow_unused=True)
                    )
                flat = _flat(result, self._parameters)
                del result
                yield kind, flat
                del flat

    def _kept(self, gradient: Tensor) -> Tensor:
        """[K]: the gradient, or the sketch of the whole one."""
        if self.sketch is None:
            return gradient
        sketch, read = torch.zeros(self.sketch), 0
        for parameter, start in zip(self._parameters, self._starts, strict=True):
            numbers = gradient[read : read + _local(parameter).numel()]
            read += len(numbers)
            while len(numbers):
                block, place = divmod(start, self.sketch)
                piece = numbers[: self.sketch - place]
                shift = self._shifts[block] + place
                sketch[place : place + len(piece)] += self._signs[shift : shift + len(piece)] * piece
                start, numbers = start + len(piece), numbers[len(piece) :]
        whole: Tensor = world().sum(sketch) / self._replicas
        return whole


def token_signs(batch: TokenBatch) -> Tensor:
    """[B, T] float32: -1 or 1 for each token, at random but by the prompt and the tokens up to it; 0 where masked."""
    width = batch.response_mask.shape[1]
    places = torch.arange(batch.input_ids.shape[1])
    mixed = ((batch.input_ids + 1) * (places * 0x9E3779B1 + 0x85EBCA6B)).cumsum(
        dim=1
    )  # differs for other tokens, and other orders
    columns = (batch.prompt_lengths[:, None] + torch.arange(width)).clamp(max=len(places) - 1)
    state = mixed.gather(1, columns)
    for shift, factor in ((32, 0xD6E8FEB86659FD9), (29, 0xBF58476D1CE4E5B), (32, 1)):
        state = (state ^ (state >> shift)) * factor
    return torch.where(batch.response_mask, (state & 1).float() * 2 - 1, 0.0)


def _flat(gradients: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    """[local] float32 on the CPU."""
    pieces = []
    for gradient, parameter in zip(gradients, parameters, strict=True):
        local = torch.zeros_like(_local(parameter)) if gradient is None else _local(gradient)
        pieces.append(local.detach().flatten().float().cpu())
    return torch.cat(pieces)


def _local(x: Tensor) -> Tensor:
    return x.to_local() if isinstance(x, DTensor) else x


def _starts(parameters: Sequence[Tensor]) -> Iterator[int]:
    """Yield where this process's part of each parameter begins among the numbers of all, whole parameters in a row."""
    before = 0
    for parameter in parameters:
        start = before
        if isinstance(parameter, DTensor):
            coordinate: Any = parameter.device_mesh.get_coordinate()
            for dimension, placement in enumerate(parameter.placements):
                if isinstance(placement, Shard):  # of dimension 0, in equal parts but for the last ones
                    size = -(-parameter.shape[0] // parameter.device_mesh.size(dimension))
                    rows = min(coordinate[dimension] * size, parameter.shape[0])
                    start += rows * (parameter.numel() // max(parameter.shape[0], 1))
        before += parameter.numel()
        yield start
