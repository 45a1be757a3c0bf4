"""Shards of a policy's weights, to be sent to a server one at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

SHARD = 2**28  # bytes of weights that are on their way at a time


def shards(weights: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> Iterator[dict[str, Tensor]]:
    """Collect weights on the CPU, in shards of at most `SHARD` bytes; a tensor that is larger has one to itself."""
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in weights:
        bytes_of_it = tensor.numel() * dtype.itemsize
        if shard and size + bytes_of_it > SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor.detach().to(dtype).to("cpu").contiguous()
        size += bytes_of_it
    if shard:
        yield shard


def exhaust(weights: Iterator[Any]) -> None:
    """Walk through weights that are not wanted here: other ranks wait for our part in gathering them."""
    for _ in weights:
        pass
