"""The network, its adapters, and how its passes are computed."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from vcppo.settings.base import Settings, in_home


class ModelSettings(Settings):
    """The network that policy and critic share the shape of; a fresh one, or a checkpoint to start from."""

    path: str | None = Field(None, description="folder or hub name of a policy to start from instead of a fresh one")
    architecture: Literal["llama", "qwen2", "qwen3"] = Field("llama", description="stock transformers configuration")
    hidden_size: int = Field(64, ge=8, description="width")
    intermediate_size: int = Field(128, ge=8, description="width of the gated feed-forward layer")
    layers: int = Field(2, ge=1, description="decoder layers")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int = Field(4, ge=1, description="key/value heads, a divisor of heads")
    initializer_range: float = Field(
        0.1, gt=0, description="standard deviation of fresh weights; 0.02 starts slowly here"
    )
    tied: bool = Field(False, description="a fresh policy's output head is its embedding")
    trust_remote_code: bool = Field(False, description="run Python code that comes with `path`; only if you wrote it")

    @field_validator("path")
    @classmethod
    def _at_home(cls, path: str | None) -> str | None:
        return in_home(path)

    @model_validator(mode="after")
    def _shapes_fit(self) -> Self:
        if self.hidden_size % self.heads or self.heads % self.kv_heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size}, heads {self.heads}, kv_heads {self.kv_heads}: expected hidden_size "
                "an even multiple of heads, and heads a multiple of kv_heads"
            )
        return self


class LoraSettings(Settings):
    """Low-rank adapters (arXiv:2106.09685) in place of whole weights, in every stage that trains; saved merged."""

    rank: int = Field(0, ge=0, description="of the adapters; 0 trains all weights")
    alpha: int = Field(32, gt=0, description="adapters are scaled by alpha / rank")
    targets: str = Field("all-linear", description="layers with an adapter: names with commas between, or `all-linear`")


class ComputeSettings(Settings):
    """Computation of passes: it changes speed and memory, and of the numbers no more than their last digits."""

    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of passes; weights, optimiser, values and losses stay float32"
    )
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="as transformers calls it")
    packing: bool = Field(False, description="responses stand in one line, without padding; for flash_attention_2")
    gradient_checkpointing: bool = Field(False, description="recompute each layer in the backward pass")
    logit_cells: int = Field(2**26, ge=1, description="float32 logits alive at once; 2**26 are 256 MiB")
    offload: bool = Field(False, description="weights, gradients and optimiser wait in main memory (FSDP2)")
    replicas: int = Field(1, ge=1, description="groups of processes that each hold all shards (hybrid sharding)")
