"""Hidden states of small plain decoders on a processor: transformers' numbers to rounding, in a third of its kernels.

Reads the weights of the transformers model itself, with gradients, so optimiser, checkpoints and adapters know nothing
of it. Each norm's gain is multiplied into the matrix that follows it; queries, keys and values are one product, gate
and up another; the two halves of each query and key are interleaved, so that turning them to their position is one
complex product. Every backward pass is written out. No masks but the causal one, no cache, no dropout.

N = B * S places, right-padded rows; H heads in groups of G that share one of K keys and values, each W wide.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

KINDS = {
    f"transformers.models.{family.lower()}.modeling_{family.lower()}.{family}Model"
    for family in ("Llama", "Qwen2", "Qwen3")
}
QUERIES = 32  # of a row at once: later ones attend to more columns, so blocks leave out much of what is masked
MOST_SHARES = 2**25  # attention shares that all layers may keep for the backward pass: 128 MiB


def serves(base: Any, input_ids: Tensor, position_ids: Tensor | None) -> bool:
    """Whether `hidden_states` computes what this decoder (a `base_model`) would: no for all but plain ones.

    No for packed rows, other families, adapters, gradient checkpointing (training mode), sliding windows, an attention
    other than `sdpa`, other devices and precisions, modules with hooks (shards have some), and rows so long that their
    shares would not fit.
    """
    if position_ids is not None or base.training or f"{type(base).__module__}.{type(base).__qualname__}" not in KINDS:
        return False
    if any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in base.modules()):
        return False
    config, weight = base.config, base.embed_tokens.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    if config._attn_implementation != "sdpa" or config.hidden_act != "silu":
        return False
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    rows, size = input_ids.shape
    if rows * size**2 * config.num_attention_heads * config.num_hidden_layers > 2 * MOST_SHARES:
        return False
    return all(type(part) is nn.Linear for layer in base.layers for part in _linear_parts(layer))


def hidden_states(base: Any, input_ids: Tensor) -> Tensor:
    """[B * S, hidden] after the last norm, the head's input, of a decoder that `serves`; with gradients."""
    config = base.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention: Any = _Attention.apply
    gated: Any = _Gated.apply
    rows, size = input_ids.shape
    shape = Shape(rows, size, kv_heads, heads // kv_heads, width)
    embedded: Tensor = base.embed_tokens(input_ids)
    cos, sin = base.rotary_emb(embedded, torch.arange(size)[None])
    phases = torch.complex(cos, sin)[0, :, None, : width // 2]  # the second half of cos and sin is a copy
    phases = phases.repeat(1, heads + kv_heads, 1)  # [S, heads + kv_heads, width / 2]
    x = embedded.flatten(0, 1)
    for layer in base.layers:
        weight, bias, gain = _projection(layer, shape)
        projected = functional.linear(_normed(x, layer.input_layernorm), weight * layer.input_layernorm.weight, bias)
        if gain is not None:
            projected = _with_normed_heads(projected, gain, layer.self_attn.q_norm)
        x = _added(x, attention(projected, phases, shape), layer.self_attn.o_proj)
        mlp, norm = layer.mlp, layer.post_attention_layernorm
        weight, bias = _stack([mlp.gate_proj, mlp.up_proj])
        x = _added(x, gated(functional.linear(_normed(x, norm), weight * norm.weight, bias)), mlp.down_proj)
    final: Tensor = _normed(x, base.norm) * base.norm.weight
    return final


@dataclass(frozen=True)
class Shape:
    """How places and heads lie: B, S, K, G, W."""

    rows: int
    size: int
    kv_heads: int
    group: int
    width: int

    def split(self, projected: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, S, ..., W] of queries and keys to be turned, views of [N, (H + 2K) * W], and of values."""
        places = projected.view(self.rows, self.size, -1, self.width)
        turned, values = places.tensor_split((-self.kv_heads,), dim=2)
        queries, keys = turned.tensor_split((-self.kv_heads,), dim=2)
        return queries, keys, values

    def phases(self, projected: Tensor) -> Tensor:
        """[B, S, H + K, W / 2] complex: queries and keys, a view of [N, (H + 2K) * W]."""
        places = projected.view(self.rows, self.size, -1, self.width)
        return torch.view_as_complex(places[:, :, : -self.kv_heads].unflatten(-1, (-1, 2)))

    def by_head(self, x: Tensor) -> Tensor:
        """[B, S, K * n, W] to [B * K, S * n, W]: the n heads of a group stand side by side at each place."""
        grouped: Tensor = x.unflatten(2, (self.kv_heads, -1)).transpose(1, 2)
        return grouped.reshape(self.rows * self.kv_heads, -1, self.width)

    def by_place(self, x: Tensor) -> Tensor:
        """The way back, as a view [B, S, K * n, W] where that can be one."""
        grouped: Tensor = x.view(self.rows, self.kv_heads, self.size, -1, self.width)
        return grouped.transpose(1, 2).flatten(2, 3)


class _Normed(Function):
    """x / root of (mean of its squares over the last dimension + epsilon)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, epsilon: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        scale = length.square_().div_(x.shape[-1]).add_(epsilon).rsqrt_()
        normed: Tensor = x * scale
        ctx.save_for_backward(normed, scale)
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        normed, scale = ctx.saved_tensors
        along = (slope * normed).mean(dim=-1, keepdim=True)  # what a change of length alone would gain
        return torch.addcmul(slope, normed, along, value=-1.0).mul_(scale), None


class _Attention(Function):
    """Causal attention over [N, (H + 2K) * W] queries, keys and values as projected; [N, H * W]."""

    @staticmethod
    def forward(ctx: Any, projected: Tensor, phases: Tensor, shape: Shape) -> Tensor:
        turned = torch.view_as_real(shape.phases(projected) * phases).flatten(-2)
        queries, keys = (shape.by_head(x) for x in turned.tensor_split((-shape.kv_heads,), dim=2))
        values = shape.by_head(shape.split(projected)[2])
        mixed = torch.empty_like(queries)
        future = torch.full((QUERIES, QUERIES), -torch.inf).triu(1).repeat_interleave(shape.group, dim=0)
        blocks = []
        for start in range(0, shape.size, QUERIES):
            end = min(start + QUERIES, shape.size)
            here = slice(start * shape.group, end * shape.group)
            scores = torch.bmm(queries[:, here], keys[:, :end].mT)
            scores[:, :, start:].add_(future[: here.stop - here.start, : end - start])
            shares = scores.softmax(dim=-1)
            mixed[:, here] = torch.bmm(shares, values[:, :end])
            blocks.append(shares)
        ctx.save_for_backward(queries, keys, values, mixed, phases, *blocks)
        ctx.shape = shape
        return shape.by_place(mixed).reshape(len(projected), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        queries, keys, values, mixed, phases, *blocks = ctx.saved_tensors
        shape: Shape = ctx.shape
        to_mixed = shape.by_head(slope.view(shape.rows, shape.size, -1, shape.width))
        along = (to_mixed * mixed).sum(dim=-1, keepdim=True)
        to_queries, to_keys, to_values = torch.empty_like(queries), torch.zeros_like(keys), torch.zeros_like(values)
        for start, shares in zip(range(0, shape.size, QUERIES), blocks, strict=True):
            end = min(start + QUERIES, shape.size)
            here = slice(start * shape.group, end * shape.group)
            to_values[:, :end].add_(torch.bmm(shares.mT, to_mixed[:, here]))
            to_scores = torch.baddbmm(along[:, here], to_mixed[:, here], values[:, :end].mT, beta=-1.0).mul_(shares)
            to_queries[:, here] = torch.bmm(to_scores, keys[:, :end])
            to_keys[:, :end].add_(torch.bmm(to_scores.mT, queries[:, here]))
        to_projected = slope.new_empty((len(slope), (shape.group + 2) * shape.kv_heads * shape.width))
        for part, its in zip(shape.split(to_projected), (to_queries, to_keys, to_values), strict=True):
            part.copy_(shape.by_place(its))
        shape.phases(to_projected).mul_(phases.conj())
        return to_projected, None, None


class _Gated(Function):
    """silu(gate) * up, of [N, 2 * inner] with the gate first; [N, inner]."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, up = both.chunk(2, dim=-1)
        opened = torch.sigmoid(gate)
        passed = gate * opened
        ctx.save_for_backward(both, opened, passed)
        return passed * up

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        both, opened, passed = ctx.saved_tensors
        to_both = torch.empty_like(both)
        to_gate, to_up = to_both.chunk(2, dim=-1)
        torch.mul(slope, passed, out=to_up)
        steepness = torch.addcmul(opened, opened, passed, value=-1.0).add_(passed)  # d silu = s + silu * (1 - s)
        torch.mul(steepness.mul_(both.chunk(2, dim=-1)[1]), slope, out=to_gate)
        return to_both


def _normed(x: Tensor, norm: Any) -> Tensor:
    """A norm without its gain."""
    apply: Any = _Normed.apply
    normed: Tensor = apply(x, norm.variance_epsilon)
    return normed


def _added(x: Tensor, change: Tensor, linear: nn.Linear) -> Tensor:
    """x + linear(change), in one product."""
    total = torch.addmm(x, change, linear.weight.mT)
    return total if linear.bias is None else total + linear.bias


def _projection(layer: Any, shape: Shape) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Matrix and bias to queries, keys and values, and [H + K, W] gains of the norms on heads, where there are any.

    Queries are scaled, by their matrix or by their gain: a norm would undo the former.
    """
    attention = layer.self_attn
    order = torch.arange(shape.width).view(2, -1).mT.flatten()  # one of each half in turn
    weight, bias = _stack([attention.q_proj, attention.k_proj, attention.v_proj])
    turned = shape.kv_heads * (shape.group + 1)
    rows = torch.arange(len(weight)).view(-1, shape.width)
    rows = torch.cat([rows[:turned, order], rows[turned:]]).flatten()
    scales = torch.ones(len(weight), 1)
    gain = None
    if hasattr(attention, "q_norm"):
        gains = [attention.scaling * attention.q_norm.weight] * (turned - shape.kv_heads)
        gains += [attention.k_norm.weight] * shape.kv_heads
        gain = torch.stack(gains)[:, order]
    else:
        scales[: (turned - shape.kv_heads) * shape.width] = attention.scaling
    weight = weight.index_select(0, rows) * scales
    return weight, None if bias is None else bias.index_select(0, rows) * scales[:, 0], gain


def _with_normed_heads(projected: Tensor, gain: Tensor, norm: Any) -> Tensor:
    """Queries and keys normed head by head, values as they are."""
    places = projected.view(len(projected), -1, gain.shape[1])
    turned, values = places.tensor_split((len(gain),), dim=1)
    return torch.cat([_normed(turned, norm) * gain, values], dim=1).flatten(1)


def _stack(parts: list[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Several layers as one: weights below each other, biases likewise if there are any."""
    weights: list[Tensor] = [part.weight for part in parts]
    biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
    return torch.cat(weights), torch.cat(biases) if biases else None


def _linear_parts(layer: Any) -> list[nn.Module]:
    attention, mlp = layer.self_attn, layer.mlp
    projections = [attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj]
    return [*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj]
