"""One process or many: who this one is, what they tell each other, and how they share work.

Every process holds the whole batch and does all that is not a pass through a model alike, so whitening, explained
variance, denominators and early stops are global by construction. Only passes and generation are shared out.
`torchrun` says who is who; without it there is one process, and everything here gives back what it was given.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from vcppo.errors import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # a process may wait so long for the others: one of them verifies, writes, evaluates


@dataclass(frozen=True)
class World:
    """This process among the others."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks to people."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """The numbers in 0..count-1 that fall to this process.

        >>> [list(World(rank, 3, torch.device("cpu")).share(7)) for rank in range(3)]
        [[0, 1, 2], [3, 4], [5, 6]]
        """
        size, rest = divmod(count, self.size)
        start = self.rank * size + min(self.rank, rest)
        return range(start, start + size + (self.rank < rest))

    def gather(self, own: Sequence[T]) -> list[T]:
        """What all processes have, in the order of their ranks."""
        if self.size == 1:
            return list(own)
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, list(own))
        return [item for part in found for item in part]

    def sum(self, x: Tensor) -> Tensor:
        """The sum over processes of a CPU tensor."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sum over processes of each number; all of them name the same ones."""
        if self.size == 1 or not numbers:
            return dict(numbers)
        summed = self.sum(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, summed.tolist(), strict=True))

    def largest(self, number: float) -> float:
        """The largest over processes; NaN if one of them is."""
        return max(self.gather([number]), key=lambda x: (x != x, x))

    def from_main(self, value: T) -> T:
        """What the main process passes here."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        told: T = box[0]
        return told

    def wait(self) -> None:
        """Until all have come here; what one wrote before, the others can read after."""
        if self.size > 1:
            dist.barrier()


@functools.cache
def world() -> World:
    """This process among those that torchrun started, or alone."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        torch.cuda.set_device(device)
    if size > 1 and not dist.is_initialized():
        _begin()
    return World(rank, size, device)


@functools.cache
def mesh(replicas: int) -> DeviceMesh:
    """The processes as (replicas, shards): each row holds a whole model, its columns a share of it each.

    Raises:
        ConfigError: the processes cannot be divided so.
    """
    here = world()
    if here.size % replicas:
        raise ConfigError(f"compute.replicas = {replicas}: expected a divisor of the {here.size} processes")
    if not dist.is_initialized():
        _begin()
    if replicas == 1:  # with a dimension of one, FSDP would sum over it too, and keep every layer's sum till the end
        return init_device_mesh(here.device.type, (here.size,), mesh_dim_names=("shards",))
    return init_device_mesh(here.device.type, (replicas, here.size // replicas), mesh_dim_names=("replicas", "shards"))


@contextmanager
def together() -> Iterator[World]:
    """The world for as long as a command runs; its connections are closed in the end."""
    try:
        yield world()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
        world.cache_clear()
        mesh.cache_clear()


def _begin() -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=PATIENCE)
    else:  # alone, in need of a mesh: sharding over one process is how bfloat16 passes keep float32 weights
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
