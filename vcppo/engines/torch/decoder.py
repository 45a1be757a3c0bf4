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
from transformers import PretrainedConfig, PreTrainedModel

from vcppo.engines.torch.prefixes import Trunk
from vcppo.settings.fixed import CACHE_GROWTH

FAMILIES = ("llama", "qwen2", "qwen3")
SMALL = 400  # torch gives products of fewer multiplications to a kernel several times slower than the others


def reads(config: PretrainedConfig) -> bool:
    """True where `Decoder` knows this model: one of its families, every token attending to all before it."""
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    return config.model_type in FAMILIES and not windows


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


@dataclass(frozen=True)
class Stems:
    """Sequences that were read to be continued. G stems, right-padded to C columns."""

    cache: Tensor  # [layers, 2, G, kv_heads, C, width]
    last: Tensor  # [G, C, H] hidden states, the head's input, after each token


class Decoder:
    """Fused copies of the weights, to be made anew when they change, and one batch, written `step` by `step`.

    It begins by `start`, with prompts, or by `fork`, with prefixes of stems that were `read` before. The policy is one
    that `reads` knows.
    """

    def __init__(self, policy: PreTrainedModel) -> None:
        config, base = policy.config, policy.base_model
        self.embedding = base.embed_tokens.weight.detach().float()
        self.device = self.embedding.device
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self._least = -(-SMALL * self.kv_heads // (self.heads * self.width))  # columns that one row's attention reads
        # a norm divides by the root of (mean square + epsilon) = hypot(length, root of (size * epsilon)) / root of size
        sizes = (config.hidden_size, self.width)
        self._floors = {size: torch.tensor((size * config.rms_norm_eps) ** 0.5, device=self.device) for size in sizes}
        self.activation = base.layers[0].mlp.act_fn
        self.layers = [self._read_layer(layer) for layer in base.layers]
        self.head = _affine(policy.get_output_embeddings(), norm=base.norm)
        self._rotary = base.rotary_emb

    def _begin(self, rows: int, size: int, room: int, *, offsets: Tensor | None, trunk: Trunk | None) -> None:
        """An empty cache for `size` columns and `room` more. Position = column + offset ([B]; None: 0)."""
        self._limit, self._filled = max(size + room, self._least), 0
        self._offsets, self._trunk = offsets, trunk
        self._blank: Tensor | None = None  # [B, limit] columns that hold no token
        positions = self._limit
        if trunk is not None:
            positions += trunk.bias.shape[-1]
        elif offsets is not None:
            self._blank = torch.arange(self._limit, device=self.device) < -offsets[:, None]
        cos, sin = self._rotary(self.embedding[:1, None], torch.arange(positions, device=self.device)[None])
        phases = torch.complex(cos, sin)[0, :, None, : self.width // 2]  # the second half of cos and sin is a copy
        self._phases = phases.repeat(1, self.heads + self.kv_heads, 1)  # [positions, heads + kv_heads, width / 2]
        shape = (
            len(self.layers),
            2,
            rows,
            self.kv_heads,
            max(min(self._limit, size + CACHE_GROWTH), self._least),
            self.width,
        )
        self._cache = self.embedding.new_zeros(shape)  # 2: keys and values

    def start(self, prompts: Sequence[Sequence[int]], *, room: int) -> Tensor:
        """Read the prompts; [B, V] logits of the first generated token. At most `room` steps may follow, less one."""
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        size = int(lengths.max())
        ids = torch.zeros((len(prompts), size), dtype=torch.int64)
        for row, prompt in enumerate(prompts):
            ids[row, size - len(prompt) :] = torch.tensor(list(prompt))
        padding = size - lengths  # [B] columns on the left that hold no token
        self._begin(len(prompts), size, room, offsets=-padding if padding.any() else None, trunk=None)
        return self._forward(ids.to(self.device))

    def read(self, stems: Sequence[Sequence[int]]) -> Stems:
        """Run the model over the stems, once, for `fork` to continue them from any place. The batch is dropped."""
        size = max(len(stem) for stem in stems)
        ids = torch.zeros((len(stems), size), dtype=torch.int64)
        for row, stem in enumerate(stems):
            ids[row, : len(stem)] = torch.tensor(list(stem))  # what follows is seen by nothing before it
        self._begin(len(stems), size, 0, offsets=None, trunk=None)
        last = self._run(ids.to(self.device))
        return Stems(self._cache, last.unflatten(0, ids.shape))

    def fork(self, stems: Stems, owners: Tensor, lengths: Tensor, *, room: int) -> Tensor:
        """Row i continues stem owners[i] ([B], ascending) after its first lengths[i] ([B]) tokens, as if it alone.

        Returns what `start` returns on these prefixes; nothing is read again.
        """
        trunk = Trunk.over(stems.cache, self.heads, owners, lengths)
        self._begin(len(owners), 0, room, offsets=lengths, trunk=trunk)
        return self._logits(stems.last[owners, lengths - 1])

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token per row; [B, V] logits of the next."""
        return self._forward(tokens[:, None])

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these ([B] bool)."""
        self.take(rows.nonzero()[:, 0])

    def take(self, indices: Tensor) -> None:
        """Make the batch of these of its rows ([rows] int64), each as often as it is named; after `start`."""
        if self._offsets is not None:
            self._offsets = self._offsets[indices]
        if self._blank is not None:
            self._blank = self._blank[indices]
        if self._trunk is not None:
            self._trunk = self._trunk.keep(indices)
        self._cache = self._cache.index_select(2, indices)

    def forget(self) -> None:
        """Free the batch; its cache would else stay until the next one has begun."""
        self._cache, self._trunk = self._cache[..., :0, :].clone(), None

    def _forward(self, ids: Tensor) -> Tensor:
        """Append [B, count] tokens; [B, V] logits after the last."""
        return self._logits(self._run(ids).view(*ids.shape, -1)[:, -1])

    def _logits(self, last: Tensor) -> Tensor:
        scores: Tensor = functional.linear(self._norm(last), *self.head)
        return scores

    def _run(self, ids: Tensor) -> Tensor:
        """Append [B, count] tokens; [B * count, H] after the last layer."""
        rows, count = ids.shape
        start, end = self._filled, self._filled + count
        self._make_room(end)
        self._filled = end
        phases = self._phases_of(start, end)
        read = max(end, self._least) if count == 1 else end
        seen = self._cache[..., :read, :].flatten(2, 3).unbind()  # per layer: [2, B * kv_heads, read, width]
        unwritten = self._cache[..., start:end, :].unbind()
        trunks = [None] * len(self.layers) if self._trunk is None else self._trunk.cache.unbind()
        attend = self._attend_once if count == 1 else self._attend_causally
        x: Tensor = self.embedding[ids].flatten(0, 1)  # [B * count, H]
        for layer, cache, new, trunk in zip(self.layers, seen, unwritten, trunks, strict=True):
            projected = functional.linear(self._norm(x), *layer.project).view(rows, count, -1, self.width)
            self._turn(projected, layer, phases)
            queries, keys_values = projected.tensor_split((self.heads,), dim=2)
            new.copy_(keys_values.unflatten(2, (2, self.kv_heads)).permute(2, 0, 3, 1, 4))
            x += functional.linear(attend(queries, *cache.unbind(), trunk=trunk), *layer.out)
            gate, up = functional.linear(self._norm(x), *layer.gate_up).chunk(2, dim=-1)
            x += functional.linear(self.activation(gate) * up, *layer.down)
        return x

    def _turn(self, projected: Tensor, layer: Layer, phases: Tensor) -> None:
        """Turn queries and keys in [B, count, heads + 2 * kv_heads, width] to their positions, where they are."""
        turned = projected[:, :, : -self.kv_heads]
        if layer.gain is not None:
            turned.copy_(self._norm(turned) * layer.gain)
        torch.view_as_complex(turned.unflatten(-1, (-1, 2))).mul_(phases)

    def _attend_once(self, queries: Tensor, keys: Tensor, values: Tensor, *, trunk: Tensor | None) -> Tensor:
        """One query per row: heads of a group see the same columns, so they are one small matrix. [B, heads * width]

        Two batched products cost less than `scaled_dot_product_attention`, which is made for many queries.
        """
        rows, columns = len(queries), keys.shape[1]
        queries = queries.reshape(len(keys), -1, self.width)
        scores = torch.bmm(queries, keys.mT).view(rows, self.heads, columns)
        scores[..., self._filled :] = -torch.inf
        if self._trunk is not None and trunk is not None:
            ahead = self._trunk.scores(queries.reshape(-1, self.width), trunk[0])
            shares = torch.cat([ahead, scores], dim=-1).softmax(dim=-1).flatten(0, 1)
            trunk_shares, row_shares = shares.split([ahead.shape[-1], columns], dim=-1)
            mixed = torch.bmm(row_shares.view(len(keys), -1, columns), values).view(rows, self.heads, self.width)
            return (mixed + self._trunk.mix(trunk_shares, trunk[1])).flatten(1)
        if self._blank is not None:
            scores.masked_fill_(self._blank[:, None, :columns], -torch.inf)
        return torch.bmm(scores.softmax(dim=-1).view(len(keys), -1, columns), values).view(rows, -1)

    def _attend_causally(self, queries: Tensor, keys: Tensor, values: Tensor, *, trunk: Tensor | None) -> Tensor:
        """Many queries per row, the first tokens of all: [B * count, heads * width]."""
        assert trunk is None, "rows that share stems are written one token at a time"
        rows, columns = len(queries), keys.shape[1]
        mask = None
        if self._blank is not None:
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

    def _phases_of(self, start: int, end: int) -> Tensor:
        """Phases of the new columns: [count or B, count, heads + kv_heads, width / 2], the same for all rows or not."""
        if self._offsets is None:
            return self._phases[start:end]
        places = (torch.arange(start, end, device=self.device) + self._offsets[:, None]).clamp(min=0)
        phases = self._phases.index_select(0, places.flatten())
        return phases.view(*places.shape, *phases.shape[1:])

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
    """Factor of a norm, the root of its size included."""
    weight: Tensor = norm.weight.detach().float()
    root: float = len(weight) ** 0.5
    return weight * root


def _stack(parts: list[Affine]) -> Affine:
    biases = [part.bias for part in parts if part.bias is not None]
    return Affine(torch.cat([part.weight for part in parts]), torch.cat(biases) if biases else None)
