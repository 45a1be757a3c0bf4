"""One process or many: this one's rank and device, the collectives, and how work is divided.

Every process holds the whole batch and does all but forward and backward passes alike, so whitening, explained
variance, denominators and early stops are global by construction. Only passes and generation are divided.
`torchrun`, or a worker of a sweep, assigns the ranks; without them there is one process, and every collective returns
its input.
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
from vcppo.system.processes import MEETING_FILE

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
        """True for the process that writes files and prints messages, rank 0."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """This process's part of the indices 0..count-1.

        >>> [list(World(rank, 3, torch.device("cpu")).share(7)) for rank in range(3)]
        [[0, 1, 2], [3, 4], [5, 6]]
        """
        size, rest = divmod(count, self.size)
        start = self.rank * size + min(self.rank, rest)
        return range(start, start + size + (self.rank < rest))

    def gather(self, local: Sequence[T]) -> list[T]:
        """Gather the items of all processes, in the order of their ranks."""
        if self.size == 1:
            return list(local)
        gathered: list[Any] = [None] * self.size
        dist.all_gather_object(gathered, list(local))
        return [item for items in gathered for item in items]

    def sum(self, x: Tensor) -> Tensor:
        """Sum a CPU tensor over processes."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def total(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Sum each number over processes; all of them pass the same names."""
        if self.size == 1 or not numbers:
            return dict(numbers)
        summed = self.sum(torch.tensor(list(numbers.values()), dtype=torch.float64))
        return dict(zip(numbers, summed.tolist(), strict=True))

    def largest(self, number: float) -> float:
        """Maximum over processes; NaN if one of them is."""
        return max(self.gather([number]), key=lambda x: (x != x, x))

    def from_main(self, value: T) -> T:
        """Broadcast the main process's value."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        dist.broadcast_object_list(box, src=0)
        received: T = box[0]
        return received

    def wait(self) -> None:
        """Block until all have come here (a barrier); files that one wrote before, the others can read after."""
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
    """The processes as (replicas, shards): each row holds a whole model, its columns a shard of it each.

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
    if MEETING_FILE in os.environ:  # on one machine, started by a worker of a sweep
        size, rank = int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])
        store = dist.FileStore(os.environ[MEETING_FILE], size)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    elif "RANK" in os.environ:
        dist.init_process_group(backend, timeout=PATIENCE)
    else:  # alone, in need of a mesh: sharding over one process is how bfloat16 passes keep float32 weights
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
