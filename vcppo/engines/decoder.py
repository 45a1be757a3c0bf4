"""Llama-like decoders read into fused matrices, with a key/value cache laid out for decoding.

Serves the Llama, Qwen2 and Qwen3 families of transformers: RMS norm, rotary positions, grouped keys and values,
gated feed-forward, with or without biases and with or without norms on queries and keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError

FAMILIES = ("llama", "qwen2", "qwen3")
GROWTH = 64  # columns the cache starts with beyond the prompt; it doubles when full


@dataclass(frozen=True)
class Layer:
    """One decoder layer's weights; `project` makes queries, keys, values, then queries and keys turned by 90 degrees."""

    norm_in: Tensor
    project: Tensor
    project_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    norm_mlp: Tensor
    gate_up: Tensor
    down: Tensor


class Decoder:
    """Holds views or fused copies of the weights, to be made anew when they change, and the state of one batch; `start`, then `step` token by token."""

    def __init__(self, policy: PreTrainedModel) -> None:
        config = policy.config
        if config.model_type not in FAMILIES:
            raise CheckpointError(
                f"{config.model_type}: the torch engine decodes {', '.join(FAMILIES)}; this model needs another"
            )
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        base = policy.base_model
        self.embedding = base.embed_tokens.weight.detach()
        self.device, self.dtype = self.embedding.device, self.embedding.dtype
        self.layers = [self._read_layer(layer) for layer in base.layers]
        self.norm = base.norm.weight.detach()
        self.head = policy.get_output_embeddings().weight.detach()
        self._rotary = base.rotary_emb

    def start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Read the prompts; [B, V] logits of the first generated token. At most `room` steps may follow, less one."""
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        size = int(lengths.max())
        ids = torch.zeros((len(prompts), size), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, size - len(prompt) :] = torch.tensor(list(prompt))
        self._padding = size - lengths  # [B] columns on the left that hold no token
        self._ragged = bool((self._padding > 0).any())
        self._column = 0
        self._limit = size + room
        angles = torch.arange(self._limit, device=self.device)[None]
        cos, sin = self._rotary(self.embedding[:1, None], angles)  # [1, limit, width] each
        self._cos, self._sin = cos[0], sin[0]
        capacity = min(self._limit, size + GROWTH)
        shape = (len(prompts), self.kv_heads, capacity, self.width)
        self._keys = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self.layers]
        self._values = [torch.zeros(shape, dtype=self.dtype, device=self.device) for _ in self.layers]
        return self._forward(ids.to(self.device))

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a row; [B, V] logits of the next."""
        return self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these ([B] bool)."""
        self._padding = self._padding[rows]
        self._keys = [cache[rows] for cache in self._keys]
        self._values = [cache[rows] for cache in self._values]

    def _forward(self, ids: Tensor) -> Tensor:
        rows, count = ids.shape
        start, end = self._column, self._column + count
        self._make_room(end)
        mask = self._mask(start, end)
        cos, sin = self._positions(start, end)
        x = self.embedding[ids.reshape(-1)]  # [B * count, H]
        for layer, keys, values in zip(self.layers, self._keys, self._values, strict=True):
            projected = functional.linear(self._rms(x, layer.norm_in), layer.project, layer.project_bias)
            q, k, v = self._split(projected.view(rows, count, -1, self.width), layer, cos, sin)
            keys[:, :, start:end] = k.transpose(1, 2)
            values[:, :, start:end] = v.transpose(1, 2)
            mixed = self._attend(q, keys[:, :, :end], values[:, :, :end], mask)
            x = x + functional.linear(mixed, layer.out, layer.out_bias)
            gate, up = functional.linear(self._rms(x, layer.norm_mlp), layer.gate_up).chunk(2, dim=-1)
            x = x + functional.linear(functional.silu(gate) * up, layer.down)
        self._column = end
        last = x.view(rows, count, -1)[:, -1]
        return functional.linear(self._rms(last, self.norm), self.head).float()

    def _split(self, projected: Tensor, layer: Layer, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries and keys with their positions turned in, and values: [B, count, heads, width] each."""
        both = self.heads + self.kv_heads
        if layer.query_norm is not None and layer.key_norm is not None:
            q, k, v = projected.split([self.heads, self.kv_heads, self.kv_heads], dim=2)
            plain = torch.cat([self._rms(q, layer.query_norm), self._rms(k, layer.key_norm)], dim=2)
            turned = _quarter_turn(plain)
        else:
            plain, v, turned = projected.split([both, self.kv_heads, both], dim=2)
        placed = plain * cos + turned * sin
        q, k = placed.split([self.heads, self.kv_heads], dim=2)
        return q, k, v

    def _attend(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """[B, count, heads, width] queries against the cache, to [B * count, heads * width]."""
        rows, count, heads, width = q.shape
        if count == 1:  # all queries of a group see the same columns: they are one small matrix
            q = q.view(rows, self.kv_heads, heads // self.kv_heads, width)
            mixed = functional.scaled_dot_product_attention(q, keys, values, attn_mask=mask)
            return mixed.reshape(rows, heads * width)
        keys, values = (x.repeat_interleave(heads // self.kv_heads, dim=1) for x in (keys, values))
        mixed = functional.scaled_dot_product_attention(
            q.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None
        )
        return mixed.transpose(1, 2).reshape(rows * count, heads * width)

    def _mask(self, start: int, end: int) -> Tensor | None:
        """[B, 1, count, end] bool, True where a query may look; None where causality says it all."""
        if not self._ragged:
            return None
        columns = torch.arange(end, device=self.device)
        causal = columns[None, :] <= torch.arange(start, end, device=self.device)[:, None]
        seen = columns[None, None, :] >= self._padding[:, None, None]
        itself = (
            columns[None, :] == torch.arange(start, end, device=self.device)[:, None]
        )  # padding sees itself: no NaN
        return ((causal[None] & seen) | itself[None])[:, None]

    def _positions(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        """cos and sin of the new columns, shaped to multiply [B, count, heads, width]."""
        if not self._ragged:
            return self._cos[None, start:end, None], self._sin[None, start:end, None]
        places = (torch.arange(start, end, device=self.device)[None] - self._padding[:, None]).clamp(min=0)
        return self._cos[places][:, :, None], self._sin[places][:, :, None]

    def _make_room(self, end: int) -> None:
        capacity = self._keys[0].shape[2]
        if end > capacity:
            more = min(max(2 * capacity, end), self._limit) - capacity
            self._keys = [functional.pad(cache, (0, 0, 0, more)) for cache in self._keys]
            self._values = [functional.pad(cache, (0, 0, 0, more)) for cache in self._values]

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), weight, self.epsilon)

    def _read_layer(self, layer: Any) -> Layer:
        attention, mlp = layer.self_attn, layer.mlp
        parts = [attention.q_proj, attention.k_proj, attention.v_proj]
        normed = hasattr(attention, "q_norm")
        weights = [part.weight.detach() for part in parts]
        biases = None if parts[0].bias is None else [part.bias.detach() for part in parts]
        if not normed:  # turning by 90 degrees is linear: let the projection do it
            weights += [self._turn_rows(w) for w in weights[:2]]
            biases = None if biases is None else biases + [self._turn_rows(b) for b in biases[:2]]
        return Layer(
            norm_in=layer.input_layernorm.weight.detach(),
            project=torch.cat(weights),
            project_bias=None if biases is None else torch.cat(biases),
            query_norm=attention.q_norm.weight.detach() if normed else None,
            key_norm=attention.k_norm.weight.detach() if normed else None,
            out=attention.o_proj.weight.detach(),
            out_bias=None if attention.o_proj.bias is None else attention.o_proj.bias.detach(),
            norm_mlp=layer.post_attention_layernorm.weight.detach(),
            gate_up=torch.cat([mlp.gate_proj.weight.detach(), mlp.up_proj.weight.detach()]),
            down=mlp.down_proj.weight.detach(),
        )

    def _turn_rows(self, weight: Tensor) -> Tensor:
        by_head = weight.view(-1, self.width, *weight.shape[1:])
        low, high = by_head.chunk(2, dim=1)
        return torch.cat([-high, low], dim=1).reshape(weight.shape)


def _quarter_turn(x: Tensor) -> Tensor:
    low, high = x.chunk(2, dim=-1)
    return torch.cat([-high, low], dim=-1)
