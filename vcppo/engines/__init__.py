"""Who generates: one small protocol, and the generator that the settings name.

Importing this package loads nothing heavy: vLLM's server lives in it, in a Python that may lack all that vcppo needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcppo.engines.base import Engine

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vcppo.settings.engine import EngineSettings


def make_engine(settings: EngineSettings, policy: PreTrainedModel) -> Engine:
    """The generator of these settings, sampling from the policy's weights.

    Raises:
        CheckpointError: the torch engine cannot decode this policy.
        EngineError: vLLM cannot be started or reached, or cannot hold this policy.
    """
    from vcppo.engines.distributed import SharedEngine
    from vcppo.models.distributed import world

    engine, here = _own_engine(settings, policy), world()
    return engine if here.size == 1 else SharedEngine(engine, here)


def _own_engine(settings: EngineSettings, policy: PreTrainedModel) -> Engine:
    """What this process asks for answers."""
    match settings.kind:
        case "torch":
            from vcppo.engines.torch.engine import TorchEngine

            return TorchEngine(policy)
        case "vllm":
            from vcppo.engines.vllm.engine import VllmEngine

            return VllmEngine(settings, policy)
        case _:  # without `assert_never`: the Python of vLLM's server may be older than that
            raise AssertionError(f"engine.kind = {settings.kind!r}")


__all__ = ["Engine", "make_engine"]
