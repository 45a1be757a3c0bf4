"""The generator's probabilities beside the trainer's: the same weights in other kernels, rounded otherwise."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mismatch:
    """Difference between two readings of the same tokens under the same weights, over True cells."""

    mean: float  # of |difference|, nats
    largest: float
    kl: float  # mean of (ratio - 1) - log ratio, ratio = trainer / generator: an estimate of KL(generator, trainer)


def mismatch(logprobs: Tensor, sampled_logprobs: Tensor, response_mask: Tensor) -> Mismatch:
    """Compare the trainer's log-probabilities [B, T] with those the generator reported, where the mask is True."""
    difference = (logprobs - sampled_logprobs)[response_mask].double()
    apart = difference.abs()
    return Mismatch(float(apart.mean()), float(apart.max()), float((difference.expm1() - difference).mean()))


def importance_weights(logprobs: Tensor, sampled_logprobs: Tensor, response_mask: Tensor, *, cap: float) -> Tensor:
    """min(pi_trainer / pi_generator, cap) for each token: truncated importance sampling (IMPALA, arXiv:1802.01561).

    Policy gradients are of responses that the generator drew, whatever its name says; the weight makes up for it, and
    the cap bounds what a single token can do to the variance.

    Returns:
        [B, T] float32 without gradient, 1 where the mask is False.
    """
    ratio = torch.where(response_mask, logprobs - sampled_logprobs, 0.0).exp()
    return ratio.clamp(max=cap).detach()
