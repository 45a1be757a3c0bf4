"""vLLM in the trainer's process."""

from __future__ import annotations

import dataclasses
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vcppo.engines.vllm.host import INSTALL, forget, rank_and_world
from vcppo.engines.vllm.wire import ModelSpec, Responses, Write, error_line
from vcppo.errors import EngineError


class Colocated:
    """vLLM beside the trainer, asleep between calls where the settings say so."""

    def __init__(self, spec: ModelSpec) -> None:
        try:
            import vllm  # noqa: F401
        except (ImportError, RuntimeError, OSError) as error:
            raise EngineError(
                f"engine.mode = colocated: vLLM cannot be imported here ({error_line(error)}); {INSTALL}; or give "
                "engine.mode = server and engine.python"
            ) from None
        from vcppo.engines.vllm.core import Core, untouched_randomness

        _, world = rank_and_world()
        if world % spec.tensor_parallel:
            raise EngineError(
                f"engine.tensor_parallel = {spec.tensor_parallel}, colocated with a trainer of {world} processes: "
                "expected a divisor of their number; torchrun starts more"
            )
        self._randomness = untouched_randomness
        self._weights = ""
        self._owner: weakref.ref[Any] | None = None
        self._asleep: set[str] = set()
        try:
            with self._randomness(), tempfile.TemporaryDirectory(prefix="vcppo-") as folder:
                self._core = Core(spec, Path(folder), colocated=True, launched=world > 1)
        except Exception as error:  # vLLM raises whatever its parts do
            raise EngineError(f"vLLM cannot hold this policy: {error_line(error)}") from error
        self._sleeps = spec.sleep and not self._core.on_cpu
        self._group: Any = None
        if spec.tensor_parallel > 1:
            from vllm.distributed.parallel_state import get_tp_group

            self._group = get_tp_group()

    def load(self, owner: object, weights: Iterator[tuple[str, Tensor]]) -> None:
        """See Host. The policy's tensors are copied from; nothing else is allocated."""
        self._owner = None
        self._wake("weights")
        self._weights = uuid.uuid4().hex
        try:
            self._core.load(weights)
            self._core.commit(self._weights)
        except Exception as error:  # vLLM raises whatever its parts do
            raise EngineError(f"vLLM does not take the policy's weights: {error_line(error)}") from error
        self._owner = weakref.ref(owner)

    def holds(self, owner: object) -> bool:
        """See Host."""
        return self._owner is not None and self._owner() is owner

    def write(self, request: Write) -> Responses:
        """See Host. Processes that share a model generate all their responses together."""
        self._wake("kv_cache")
        requests, rank = [dataclasses.replace(request, weights=self._weights)], 0
        if self._group is not None:
            requests, rank = self._gather(request), self._group.rank_in_group
        try:
            with self._randomness():
                names = [self._core.begin(each) for each in requests]
                finished: dict[str, Responses] = {}
                while len(finished) < len(names):
                    finished.update(self._core.step())
        except BaseException as error:
            forget(self)  # what it has begun would be taken for the next call's
            with suppress(Exception):
                self.close()  # nobody else could give its memory back
            if isinstance(error, Exception):
                raise EngineError(f"vLLM refuses: {error_line(error)}") from error
            raise
        if self._sleeps:
            self._core.sleep()
            self._owner = None
            self._asleep = {"weights", "kv_cache"}
        return finished[names[rank]]

    def reopened(self, spec: ModelSpec) -> bool:
        """See Host. Never: it is as quick to make another."""
        return False

    def close(self) -> None:
        """See Host."""
        self._core.close()

    def _wake(self, what: str) -> None:
        if what in self._asleep:
            self._core.wake(what)
            self._asleep.remove(what)

    def _gather(self, request: Write) -> list[Write]:
        """Gather the requests of all ranks that share the model, in the same order on each."""
        requests: list[Any] = [None] * self._group.world_size
        torch.distributed.all_gather_object(requests, request, group=self._group.cpu_group)
        return [dataclasses.replace(each, weights=self._weights) for each in requests]
