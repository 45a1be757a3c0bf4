"""Llama-like decoders read into fused matrices, with a key/value cache laid out for decoding.

Serves the Llama, Qwen2 and Qwen3 families of transformers: RMS norm, rotary positions, grouped keys and values,
gated feed-forward, with or without biases and with or without norms on queries and keys.

What can be done once is done on reading: norm weights and the scale of attention are multiplied into the matrices
that follow them, and the two halves of each query and key are interleaved, so that turning them to their position is
one complex product. Scores do not change: queries and keys are reordered alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError

FAMILIES = ("llama", "qwen2", "qwen3")
GROWTH = 64  # columns the cache starts with beyond the prompt; it doubles when full


class Affine(NamedTuple):
    """Arguments of `functional.linear`."""

    weight: Tensor
    bias: Tensor | None

    def map(self, change: Callable[[Tensor], Tensor]) -> "Affine":
        """Change the outputs: the rows of the weight, the entries of the bias."""
        return Affine(change(self.weight), None if self.bias is None else change(self.bias))


@dataclass(frozen=True)
class Layer:
    """One decoder layer's weights."""

    project: Affine  # to queries, keys and values, head by head
    gain: Tensor | None  # [heads + kv_heads, width] of the norms on queries and keys, in the families that have them
    out: Affine
    gate_up: Affine
    down: Affine


class Decoder:
    """Fused copies of the weights, to be made anew when they change, and one batch: `start`, then `step` by step."""

    def __init__(self, policy: PreTrainedModel) -> None:
        config, base = policy.config, policy.base_model
        if config.model_type not in FAMILIES:
            raise CheckpointError(
                f"{config.model_type}: the torch engine decodes {', '.join(FAMILIES)}; this model needs another"
            )
        if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
            raise CheckpointError(f"{config.model_type} with sliding windows: the torch engine attends to everything")
        self.embedding = base.embed_tokens.weight.detach().float()
        self.device = self.embedding.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        # a norm divides by the root of (mean square + epsilon) = hypot(length, root of (size * epsilon)) / root of size
        sizes = (config.hidden_size, self.width)
        self._floors = {size: torch.tensor((size * config.rms_norm_eps) ** 0.5, device=self.device) for size in sizes}
        self.activation = base.layers[0].mlp.act_fn
        self.layers = [self._read_layer(layer) for layer in base.layers]
        self.head = _affine(policy.get_output_embeddings(), norm=base.norm)
        self._rotary = base.rotary_emb

    def start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Read the prompts; [B, V] logits of the first generated token. At most `room` steps may follow, less one."""
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        size = int(lengths.max())
        ids = torch.zeros((len(prompts), size), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, size - len(prompt) :] = torch.tensor(list(prompt))
        self._limit, self._filled = size + room, 0
        columns = torch.arange(self._limit, device=self.device)
        self._padding = size - lengths  # [B] columns on the left that hold no token
        self._blank = columns < self._padding[:, None]  # [B, limit]
        self._ragged = bool(self._blank.any())
        cos, sin = self._rotary(self.embedding[:1, None], columns[None])  # [1, limit, width], the second half a copy
        phases = torch.complex(cos, sin)[0, :, None, : self.width // 2]
        self._phases = phases.repeat(1, self.heads + self.kv_heads, 1)  # [limit, heads + kv_heads, width / 2]
        shape = (len(self.layers), 2, len(prompts), self.kv_heads, min(self._limit, size + GROWTH), self.width)
        self._cache = self.embedding.new_empty(shape)  # 2: keys and values
        return self._forward(ids.to(self.device))

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a row; [B, V] logits of the next."""
        return self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these ([B] bool)."""
        self._padding, self._blank = self._padding[rows], self._blank[rows]
        self._cache = self._cache[:, :, rows]

    def _forward(self, ids: Tensor) -> Tensor:
        """Append [B, count] tokens; [B, V] logits after the last."""
        rows, count = ids.shape
        start, end = self._filled, self._filled + count
        self._make_room(end)
        self._filled = end
        phases = self._phases[self._places(start, end)]
        seen = self._cache[..., :end, :].flatten(2, 3).unbind()  # a layer: [2, B * kv_heads, end, width]
        unwritten = self._cache[..., start:end, :].unbind()
        attend = self._attend_once if count == 1 else self._attend_causally
        x = self.embedding[ids].flatten(0, 1)  # [B * count, H]
        for layer, cache, new in zip(self.layers, seen, unwritten, strict=True):
            projected = functional.linear(self._norm(x), *layer.project).view(rows, count, -1, self.width)
            self._turn(projected, layer, phases)
            queries, kept = projected.tensor_split((self.heads,), dim=2)
            new.copy_(kept.unflatten(2, (2, self.kv_heads)).permute(2, 0, 3, 1, 4))
            x += functional.linear(attend(queries, *cache.unbind()), *layer.out)
            gate, up = functional.linear(self._norm(x), *layer.gate_up).chunk(2, dim=-1)
            x += functional.linear(self.activation(gate) * up, *layer.down)
        last = x.view(rows, count, -1)[:, -1]
        return functional.linear(self._norm(last), *self.head)

    def _turn(self, projected: Tensor, layer: Layer, phases: Tensor) -> None:
        """Turn queries and keys in [B, count, heads + 2 * kv_heads, width] to their positions, where they are."""
        turned = projected[:, :, : -self.kv_heads]
        if layer.gain is not None:
            turned.copy_(self._norm(turned) * layer.gain)
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(phases)

    def _attend_once(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One query a row: all heads of a group see the same columns, so they are one small matrix. [B, heads * width]

        Two batched products cost less than `scaled_dot_product_attention`, which is made for many queries.
        """
        rows, columns = len(queries), keys.shape[1]
        scores = torch.bmm(queries.reshape(len(keys), -1, self.width), keys.mT)
        if self._ragged:
            scores.view(rows, self.heads, columns).masked_fill_(self._blank[:, None, :columns], -torch.inf)
        return torch.bmm(scores.softmax(dim=-1), values).view(rows, -1)

    def _attend_causally(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Many queries a row, the first tokens of all: [B * count, heads * width]."""
        rows, columns = len(queries), keys.shape[1]
        mask = None
        if self._ragged:
            square = torch.ones((columns, columns), dtype=torch.bool, device=self.device)
            seen = square.tril() & ~self._blank[:, None, :columns]
            mask = (seen | square.diag().diag())[:, None]  # padding sees itself: no NaN
        keys, values = (
            x.repeat_interleave(self.heads // self.kv_heads, dim=0).unflatten(0, (rows, -1)) for x in (keys, values)
        )
        mixed = functional.scaled_dot_product_attention(
            queries.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None, scale=1.0
        )
        return mixed.transpose(1, 2).flatten(2).flatten(0, 1)

    def _places(self, start: int, end: int) -> slice | Tensor:
        """Positions of the new columns: the same for all rows, or [B, count]."""
        if not self._ragged:
            return slice(start, end)
        return (torch.arange(start, end, device=self.device) - self._padding[:, None]).clamp(min=0)

    def _make_room(self, end: int) -> None:
        capacity = self._cache.shape[-2]
        if end > capacity:
            more = min(max(2 * capacity, end), self._limit) - capacity
            self._cache = functional.pad(self._cache, (0, 0, 0, more))

    def _norm(self, x: Tensor) -> Tensor:
        """Over the last dimension, the root of its size left out: `_norm_weight` has it. Three kernels."""
        length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return x / length.hypot(self._floors[x.shape[-1]])

    def _read_layer(self, layer: Any) -> Layer:
        attention, mlp, scale = layer.self_attn, layer.mlp, self.width**-0.5
        queries, keys, values = (
            _affine(part, layer.input_layernorm) for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        gain = None
        if hasattr(attention, "q_norm"):  # it would undo a scale in the matrix
            norms = [scale * _norm_weight(attention.q_norm)] * self.heads
            norms += [_norm_weight(attention.k_norm)] * self.kv_heads
            gain = self._interleave(torch.cat(norms)).view(-1, self.width)
        else:
            queries = queries.map(lambda x: scale * x)
        return Layer(
            project=_stack([queries.map(self._interleave), keys.map(self._interleave), values]),
            gain=gain,
            out=_affine(attention.o_proj),
            gate_up=_stack([_affine(part, layer.post_attention_layernorm) for part in (mlp.gate_proj, mlp.up_proj)]),
            down=_affine(mlp.down_proj),
        )

    def _interleave(self, rows: Tensor) -> Tensor:
        """[heads * width, ...]: the two halves of each head's rows, one from each in turn."""
        halves: Tensor = rows.unflatten(0, (-1, 2, self.width // 2))
        return halves.transpose(1, 2).flatten(0, 2)


def _affine(linear: Any, norm: Any = None) -> Affine:
    """A layer's weights, with the weight of the norm that comes before it."""
    weight = linear.weight.detach().float()
    bias = None if linear.bias is None else linear.bias.detach().float()
    return Affine(weight if norm is None else weight * _norm_weight(norm), bias)


def _norm_weight(norm: Any) -> Tensor:
    """What a norm multiplies by, the root of its size included."""
    weight: Tensor = norm.weight.detach().float()
    root: float = len(weight) ** 0.5
    return weight * root


def _stack(parts: list[Affine]) -> Affine:
    biases = [part.bias for part in parts if part.bias is not None]
    return Affine(torch.cat([part.weight for part in parts]), torch.cat(biases) if biases else None)
