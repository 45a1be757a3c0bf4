"""Who generates: one small protocol, and the generator that the settings name."""

from transformers import PreTrainedModel

from vcppo.config import EngineSettings
from vcppo.distributed import world
from vcppo.engines.base import Engine
from vcppo.engines.shared import SharedEngine
from vcppo.engines.torch_engine import TorchEngine


def make_engine(settings: EngineSettings, policy: PreTrainedModel) -> Engine:
    """The generator of these settings, sampling from the policy's weights."""
    engine, here = TorchEngine(policy), world()
    return SharedEngine(engine, here) if here.size > 1 else engine


__all__ = ["Engine", "make_engine"]
