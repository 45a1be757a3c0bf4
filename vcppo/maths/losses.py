"""What the actor and the critic descend: clipped surrogates, value losses, KL estimators, token aggregation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyLoss:
    """A policy loss and what to log of it; every scalar is a mean over the same tokens the loss is over."""

    loss: Tensor  # [] to be minimised
    clip_fraction: Tensor  # [] share of tokens where the clipped term is the one that counts
    approx_kl: Tensor  # [] mean of (ratio - 1) - log ratio, nats
    ratio_max: Tensor  # [] the largest ratio among the tokens


@dataclass(frozen=True)
class ValueLoss:
    """A value loss and the share of tokens whose error the clip decides."""

    loss: Tensor  # []
    clip_fraction: Tensor  # []


@dataclass(frozen=True)
class Denominators:
    """What sums are divided by: counted over the whole minibatch, so that micro-batches and ranks add up exactly."""

    tokens: float  # True cells of response_mask
    sequences: float  # rows with at least one True cell
    width: float  # the fixed length of `fixed-length` aggregation


def denominators(response_mask: Tensor, *, fixed_length: int) -> Denominators:
    """Count a minibatch's tokens and sequences, once, before it is cut into micro-batches."""
    per_row = response_mask.sum(dim=1)
    return Denominators(float(per_row.sum()), float((per_row > 0).sum()), float(fixed_length))


def token_mean(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Every token counts the same (DAPO, VAPO): long answers weigh more."""
    return torch.where(response_mask, x, 0.0).sum() / over.tokens


def sequence_mean(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Mean over each answer's tokens, then over answers (GRPO, basic PPO in VAPO): every answer counts the same."""
    live = torch.where(response_mask, x, 0.0).sum(dim=1)
    return (live / response_mask.sum(dim=1).clamp(min=1)).sum() / over.sequences


def fixed_length(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Sum over tokens divided by one constant length, then mean over answers (Dr. GRPO): no length bias."""
    return torch.where(response_mask, x, 0.0).sum() / (over.sequences * over.width)


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, Denominators], Tensor]] = {
    "token-mean": token_mean,
    "sequence-mean": sequence_mean,
    "fixed-length": fixed_length,
}


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    aggregation: str,
    over: Denominators,
) -> PolicyLoss:
    """PPO's clipped surrogate (arXiv:1707.06347, eq. 7), with separate low and high clip and optional dual clip.

    loss_t = max(-r A, -clip(r, 1 - clip_low, 1 + clip_high) A); where A < 0 and `dual_clip` = c > 1 is given,
    at most -c A (arXiv:1912.09729, eq. 5).

    Args:
        logprobs, old_logprobs, advantages: [B, T] float. response_mask: [B, T] bool.
        over: counts of the whole minibatch that these rows are a part of.
    """
    log_ratio = torch.where(response_mask, logprobs - old_logprobs, 0.0)
    log_ratio = log_ratio.clamp(-20.0, 20.0)  # exp stays finite; the training loop's guard sees ratio_max
    ratio = log_ratio.exp()
    advantages = torch.where(response_mask, advantages, 0.0)
    plain = -ratio * advantages
    clipped = -ratio.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages
    losses = torch.maximum(plain, clipped)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -dual_clip * advantages), losses)
    with torch.no_grad():
        clip_fraction = token_mean((clipped > plain).to(losses.dtype), response_mask, over)
        approx_kl = token_mean(ratio - 1.0 - log_ratio, response_mask, over)
        ratio_max = torch.where(response_mask, ratio, 0.0).max()
    return PolicyLoss(AGGREGATIONS[aggregation](losses, response_mask, over), clip_fraction, approx_kl, ratio_max)


def squared_error(new_values: Tensor, values: Tensor, returns: Tensor, clip_range: float) -> tuple[Tensor, Tensor]:
    """(V - R)^2 (arXiv:2503.01491, algorithm 1)."""
    return (new_values - returns).square(), torch.zeros_like(new_values)


def clipped_squared_error(
    new_values: Tensor, values: Tensor, returns: Tensor, clip_range: float
) -> tuple[Tensor, Tensor]:
    """The larger of (V - R)^2 and (clip(V, V_old +- range) - R)^2, as in OpenAI's baselines, verl and OpenRLHF."""
    clipped = new_values.clamp(values - clip_range, values + clip_range)
    plain_error, clipped_error = (new_values - returns).square(), (clipped - returns).square()
    return torch.maximum(plain_error, clipped_error), (clipped_error > plain_error).to(new_values.dtype)


VALUE_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]] = {
    "mse": squared_error,
    "clipped": clipped_squared_error,
}


def value_loss(
    new_values: Tensor,
    values: Tensor,
    returns: Tensor,
    response_mask: Tensor,
    *,
    kind: str,
    clip_range: float,
    aggregation: str,
    over: Denominators,
) -> ValueLoss:
    """Half the squared error between the critic and its targets, in float32 whatever the model's dtype.

    Args:
        new_values: [B, T] with gradient. values: [B, T] at rollout time, used by `clipped` only.
        returns: [B, T] targets.
        kind: a key of VALUE_LOSSES. aggregation: a key of AGGREGATIONS, the critic's own.
    """
    new_values, values, returns = (
        torch.where(response_mask, x.to(torch.float32), 0.0) for x in (new_values, values, returns)
    )
    errors, decided = VALUE_LOSSES[kind](new_values, values, returns, clip_range)
    with torch.no_grad():
        clip_fraction = token_mean(decided, response_mask, over)
    return ValueLoss(0.5 * AGGREGATIONS[aggregation](errors, response_mask, over), clip_fraction)


# The estimators know no mask: the caller averages them under one, over padding that must be finite (0 will do),
# since a NaN there would reach the gradient.


def kl_k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """log p - log q: unbiased, can be negative; the estimator to put into the reward."""
    return logprobs - ref_logprobs


def kl_k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """(log p - log q)^2 / 2: biased, but as a loss its gradient is the KL's."""
    return 0.5 * (logprobs - ref_logprobs).square()


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """q/p - 1 - log(q/p): unbiased, never negative (GRPO's)."""
    log_ratio = (ref_logprobs - logprobs).clamp(-20.0, 20.0)
    return log_ratio.exp() - 1.0 - log_ratio


KL_ESTIMATORS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}
