"""The engine that generates responses."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.base import Settings
from vcppo.settings.fixed import VLLM_SHARE

_KIND = "torch: in this process, with nothing but torch"


class TorchEngineSettings(Settings):
    """The engine that generates responses; docs/vllm.md says how to choose."""

    kind: Literal["torch"] = Field("torch", description=_KIND)


class VllmEngineSettings(Settings):
    """vLLM generates responses; docs/vllm.md says how to choose."""

    kind: Literal["vllm"] = Field("vllm", description=_KIND)
    mode: Literal["colocated", "server"] = Field(
        "colocated", description="vLLM in this process, or in one of its own, maybe with its own Python environment"
    )
    python: str | None = Field(
        None, description="Python of the environment that the server is started in; none: this one"
    )
    url: str | None = Field(None, description="host:port of a server that runs already; none: one is started")
    devices: str | None = Field(
        None, description="GPUs of the server that is started, as CUDA_VISIBLE_DEVICES names them; none: all of ours"
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    memory_share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description=f"of each GPU's memory, weights included; none: {VLLM_SHARE['colocated']} colocated, "
        f"{VLLM_SHARE['server']} for a server; on a CPU it is "
        "of the memory and for the cache alone, none: what max_sequences need",
    )
    max_sequences: int = Field(256, ge=1, description="responses written together")
    max_length: int | None = Field(
        None, ge=2, description="tokens of a prompt with its response; none: as many as the policy has positions"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: the policy's own")
    enforce_eager: bool | None = Field(None, description="no CUDA graphs or compilation; none: so on a CPU alone")
    prefix_caching: bool = Field(True, description="what prompts begin with in common is read once")
    sleep: bool = Field(True, description="between calls the GPU's memory is given back to the trainer")
    start_timeout_s: float = Field(600.0, gt=0, description="a server that takes longer to start ends the run")
    request_timeout_s: float = Field(600.0, gt=0, description="a server that is silent for longer ends the run")

    @field_validator("url")
    @classmethod
    def _host_and_port(cls, url: str | None) -> str | None:
        match = None if url is None else re.fullmatch(r"[^/\s]+:(\d{1,5})", url)
        if url is not None and (match is None or not 0 < int(match[1]) < 2**16):
            raise PydanticCustomError("url", "expected host:port, for example node3:7100")
        return url


EngineSettings = Annotated[TorchEngineSettings | VllmEngineSettings, Field(discriminator="kind")]
