"""Generation: one small protocol, and the engine that the settings name.

Importing this package loads nothing heavy: vLLM's server lives in it, in a Python that may lack vcppo's dependencies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vcppo.engines.base import Engine

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

    from vcppo.settings.engine import EngineSettings


def make_engine(settings: EngineSettings, policy: PreTrainedModel) -> Engine:
    """Make the engine of these settings, sampling from the policy's weights.

    Raises:
        CheckpointError: the torch engine cannot decode this policy, which has no cache of keys and values.
        EngineError: vLLM cannot be started or reached, or cannot hold this policy.
    """
    from vcppo.engines.distributed import SharedEngine
    from vcppo.models.distributed import world

    engine, here = _local_engine(settings, policy), world()
    return engine if here.size == 1 else SharedEngine(engine, here)


def engine_note(settings: EngineSettings, config: PretrainedConfig) -> str | None:
    """A line for people where the engine of these settings generates from such a policy the slow way."""
    if settings.kind != "torch":
        return None
    from vcppo.engines.torch.engine import note_on

    return note_on(config)


def _local_engine(settings: EngineSettings, policy: PreTrainedModel) -> Engine:
    """The engine of this process."""
    match settings.kind:
        case "torch":
            from vcppo.engines.torch.engine import TorchEngine

            return TorchEngine(policy)
        case "vllm":
            from vcppo.engines.vllm.engine import VllmEngine

            return VllmEngine(settings, policy)
        case _:  # without `assert_never`: the Python of vLLM's server may be older than that
            raise AssertionError(f"engine.kind = {settings.kind!r}")


__all__ = ["engine_note", "make_engine"]
