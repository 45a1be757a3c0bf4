"""Log-probabilities of chosen tokens and the entropy at their places, without the logits of a whole batch.

A batch of 16 k tokens with a vocabulary of 150 k has 2.4 billion logits, 10 GB in float32, and a softmax and its
gradient as many again. Here rows go through in blocks, and the backward pass computes each block's logits anew.
"""

from typing import Any

import torch
from torch import Tensor


def chosen_logprobs(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float, cells: int, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """log softmax((hidden @ weight^T + bias) / temperature)[targets], and the entropy of that distribution.

    Args:
        hidden: [N, H], of any float dtype. weight: [V, H], of the same; the output head's. targets: [N] int64.
        cells: logits of a block, at least a row of them; three blocks are alive at once, in float32.
        bias: [V], of the same dtype, where the output head has one.
    Returns:
        ([N] log-probabilities, [N] entropies), nats, float32 (float64 for float64); both have gradients.
    """
    apply: Any = _ChosenLogprobs.apply
    chosen, entropy = apply(hidden, weight, bias, targets, temperature, cells)
    return chosen, entropy


class _ChosenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        cells: int,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(hidden.dtype, torch.float32)
        chosen, entropy, log_total = (hidden.new_empty(len(hidden), dtype=wide) for _ in range(3))
        rows = max(cells // len(weight), 1)
        for start in range(0, len(hidden), rows):
            here = slice(start, start + rows)
            logits = _logits(hidden[here], weight, bias, temperature)
            log_total[here] = logits.logsumexp(dim=-1)
            chosen[here] = logits.gather(1, targets[here, None])[:, 0] - log_total[here]
            logprobs = logits.sub_(log_total[here, None])
            entropy[here] = -(logprobs * logprobs.exp()).sum(dim=-1)
        ctx.save_for_backward(hidden, weight, bias, targets, log_total, entropy)
        ctx.temperature, ctx.rows = temperature, rows
        ctx.set_materialize_grads(False)
        return chosen, entropy

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_total, entropy = ctx.saved_tensors
        of_chosen, of_entropy = slopes
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.empty_like(hidden) if needs_hidden else None
        to_weight = torch.zeros_like(weight, dtype=log_total.dtype) if needs_weight else None
        to_bias = torch.zeros_like(bias, dtype=log_total.dtype) if needs_bias else None
        for start in range(0, len(hidden), ctx.rows):
            here = slice(start, start + ctx.rows)
            logprobs = _logits(hidden[here], weight, bias, ctx.temperature).sub_(log_total[here, None])
            shares = logprobs.exp()
            # d log p_chosen / d logits = onehot - p;   d entropy / d logits = -p * (log p + entropy)
            slope = torch.zeros_like(shares) if of_entropy is None else logprobs.add_(entropy[here, None])
            if of_entropy is not None:
                slope.mul_(shares).mul_(-of_entropy[here, None])
            if of_chosen is not None:
                slope.addcmul_(shares, of_chosen[here, None], value=-1.0)
                slope.scatter_add_(1, targets[here, None], of_chosen[here, None])
            narrow = slope.div_(ctx.temperature).to(hidden.dtype)
            if to_hidden is not None:
                torch.mm(narrow, weight, out=to_hidden[here])
            if to_weight is not None:
                to_weight += narrow.mT @ hidden[here]
            if to_bias is not None:
                to_bias += narrow.sum(dim=0)
            del logprobs, shares, slope, narrow  # before the next block's are made
        narrowed = (None if slope is None else slope.to(weight.dtype) for slope in (to_weight, to_bias))
        return to_hidden, *narrowed, None, None, None


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: float) -> Tensor:
    logits = hidden @ weight.mT
    if bias is not None:
        logits = logits + bias
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).div_(temperature)
