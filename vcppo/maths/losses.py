"""Losses of actor and critic: policy losses, preferences, value losses, KL estimators, aggregation."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RatioDrift:
    """Drift of the policy from the one that sampled, whatever its loss."""

    approx_kl: Tensor  # [] mean of (ratio - 1) - log ratio, nats
    ratio_max: Tensor  # [] the largest ratio among the tokens


@dataclass(frozen=True)
class AggregatedLoss:
    """A policy loss and what to log of it; every scalar is a mean over the same tokens the loss is over."""

    loss: Tensor  # [] to be minimised
    clip_fraction: Tensor  # [] share of tokens where the clip of the ratio decides the loss; 0 where there is none
    dual_clip_fraction: Tensor  # [] share where the dual clip does: others than those of clip_fraction
    drift: RatioDrift


@dataclass(frozen=True)
class ValueLoss:
    """A value loss and the share of tokens whose error the clip decides."""

    loss: Tensor  # []
    clip_fraction: Tensor  # []


@dataclass(frozen=True)
class Denominators:
    """Normalisers of sums: counted over the whole minibatch, so that micro-batches and ranks add up exactly."""

    tokens: float  # True cells of response_mask
    sequences: float  # rows with at least one True cell
    width: float  # the fixed length of `fixed-length` aggregation


def denominators(response_mask: Tensor, *, fixed_length: int) -> Denominators:
    """Count a minibatch's tokens and sequences, once, before it is cut into micro-batches."""
    per_row = response_mask.sum(dim=1)
    return Denominators(float(per_row.sum()), float((per_row > 0).sum()), float(fixed_length))


def token_mean(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Every token counts the same (DAPO, VAPO): long responses weigh more."""
    return torch.where(response_mask, x, 0.0).sum() / over.tokens


def sequence_mean(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Mean over each response's tokens, then over responses, which all count the same (GRPO, basic PPO in VAPO)."""
    live = torch.where(response_mask, x, 0.0).sum(dim=1)
    return (live / response_mask.sum(dim=1).clamp(min=1)).sum() / over.sequences


def fixed_length(x: Tensor, response_mask: Tensor, over: Denominators) -> Tensor:
    """Sum over tokens divided by one constant length, then mean over responses (Dr. GRPO): no length bias."""
    return torch.where(response_mask, x, 0.0).sum() / (over.sequences * over.width)


AGGREGATIONS: dict[str, Callable[[Tensor, Tensor, Denominators], Tensor]] = {
    "token-mean": token_mean,
    "sequence-mean": sequence_mean,
    "fixed-length": fixed_length,
}


@dataclass(frozen=True)
class PolicyTokens:
    """Inputs of a policy loss, one cell a generated token: B responses, T tokens, 0 where masked."""

    response_mask: Tensor  # [B, T] bool
    logprobs: Tensor  # [B, T] nats, with gradient
    ratio: Tensor  # [B, T] to the policy that sampled, with gradient
    log_ratio: Tensor  # [B, T] its logarithm
    advantages: Tensor  # [B, T]
    ref_logprobs: Tensor | None  # [B, T] nats, under the reference


@dataclass(frozen=True)
class PolicyLimits:
    """Hyperparameters that bound a policy loss; each loss reads some of them."""

    clip_low: float  # the ratio is clipped at 1 - clip_low; 1 leaves that side open, since no ratio is below 0
    clip_high: float  # and at 1 + clip_high
    dual_clip: float | None
    advantage_temperature: float  # APA's and AWR's lambda, in units of advantage

    def clip(self, ratio: Tensor) -> Tensor:
        """Clamp a ratio of any shape to [1 - clip_low, 1 + clip_high]."""
        return ratio.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)


@dataclass(frozen=True)
class TokenLosses:
    """A policy loss token by token: [B, T], and where something bounds it ([B, T] of 0 and 1; None: nowhere)."""

    losses: Tensor
    clipped: Tensor | None = None  # the clip of the ratio (APA: of the target) decides
    dual_clipped: Tensor | None = None  # the dual clip decides


def clipped_surrogate(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """PPO's clipped surrogate (arXiv:1707.06347, eq. 7), with separate low and high clip and optional dual clip.

    loss_t = max(-r A, -clip(r, 1 - clip_low, 1 + clip_high) A); where A < 0 and `dual_clip` = c > 1 is given,
    at most -c A (arXiv:1912.09729, eq. 5).
    """
    plain = -tokens.ratio * tokens.advantages
    clipped = -limits.clip(tokens.ratio) * tokens.advantages
    losses, beyond = torch.maximum(plain, clipped), None
    if limits.dual_clip is not None:
        bound = torch.where(tokens.advantages < 0, -limits.dual_clip * tokens.advantages, torch.inf)
        losses, beyond = torch.minimum(losses, bound), (losses > bound).to(losses.dtype)
    return TokenLosses(losses, (clipped > plain).to(losses.dtype), beyond)


def unclipped_surrogate(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """ESPO's surrogate (arXiv:2202.00079): loss_t = -r A. What bounds it is the early stop, see `ratio_deviation`."""
    return TokenLosses(-tokens.ratio * tokens.advantages)


def reinforce(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """REINFORCE (Williams, 1992): loss_t = -A log pi, with no correction for the policy that sampled."""
    return TokenLosses(-tokens.advantages * tokens.logprobs)


def squared_distance_to_target(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """APA, advantage-induced policy alignment (arXiv:2306.02231): loss_t = (log pi - log pi_ref - A / lambda)^2.

    The paper takes the normaliser of the target pi_ref exp(A / lambda) for 1, so that a target can ask for a
    probability above 1; here log pi_ref + A / lambda is cut at 0, and such a token counts as clipped.
    The policy that sampled has no part in it.
    """
    assert tokens.ref_logprobs is not None, "APA's target is built on the reference's log-probabilities"
    target = tokens.ref_logprobs + tokens.advantages / limits.advantage_temperature
    return TokenLosses((tokens.logprobs - target.clamp(max=0.0)).square(), (target > 0).to(tokens.ratio.dtype))


def advantage_weighted(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """AWR, advantage-weighted regression (arXiv:1910.00177, algorithm 1): loss_t = -exp(A / lambda) log pi.

    No bound on the weight: advantages far above the temperature overflow, and the gradient tells.
    """
    weights = (tokens.advantages / limits.advantage_temperature).exp()
    return TokenLosses(-weights * tokens.logprobs)


def sequence_clipped_surrogate(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """GSPO in its token form (arXiv:2507.18071, section 4.3): PPO's loss with one ratio for all tokens of a response.

    s = exp(mean_t log r_t), the ratio of the responses' probabilities per token, stands in for r_t in the value and
    in the clip; the gradient of token t is that of s log pi_t, s held fixed. With the same advantage on
    every token and the mean over tokens, that is the gradient of s itself.
    """
    lengths = tokens.response_mask.sum(dim=1, keepdim=True).clamp(min=1)
    sequence_ratio = (tokens.log_ratio.sum(dim=1, keepdim=True) / lengths).exp().detach()
    ratio = sequence_ratio * (tokens.logprobs - tokens.logprobs.detach()).exp()  # the second factor is 1
    plain, clipped = -ratio * tokens.advantages, -limits.clip(ratio) * tokens.advantages
    return TokenLosses(torch.maximum(plain, clipped), (clipped > plain).to(plain.dtype))


def clipped_weight(tokens: PolicyTokens, limits: PolicyLimits) -> TokenLosses:
    """CISPO (MiniMax-M1, arXiv:2506.13585, section 3.1): loss_t = -sg(clip(r, 1 - clip_low, 1 + clip_high)) A log pi.

    The weight of a token is clipped, none loses its gradient (sg holds fixed). The paper leaves the low side open,
    clip_low = 1.
    """
    ratio = tokens.ratio.detach()
    weights = limits.clip(ratio)
    return TokenLosses(-weights * tokens.advantages * tokens.logprobs, (weights != ratio).to(ratio.dtype))


def masked_log_ratio(logprobs: Tensor, old_logprobs: Tensor, response_mask: Tensor) -> Tensor:
    """[B, T] log pi - log pi_old, 0 where masked, cut at +-20: exp stays finite; the training loop's guard sees it."""
    return torch.where(response_mask, logprobs - old_logprobs, 0.0).clamp(-20.0, 20.0)


@torch.no_grad()
def ratio_drift(log_ratio: Tensor, response_mask: Tensor, over: Denominators) -> RatioDrift:
    """Measure `masked_log_ratio` [B, T]; `over` counts the minibatch that the rows are part of."""
    ratio = log_ratio.exp()
    approx_kl = token_mean(ratio - 1.0 - log_ratio, response_mask, over)
    return RatioDrift(approx_kl, torch.where(response_mask, ratio, 0.0).max())


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    *,
    token_losses: Callable[[PolicyTokens, PolicyLimits], TokenLosses],
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
    advantage_temperature: float,
    aggregation: str,
    over: Denominators,
    ref_logprobs: Tensor | None = None,
) -> AggregatedLoss:
    """Aggregate a loss of tokens, such as `clipped_surrogate`, over a minibatch or a part of it.

    Args:
        logprobs, old_logprobs, advantages: [B, T] float. response_mask: [B, T] bool.
        aggregation: a key of AGGREGATIONS.
        clip_low, clip_high, dual_clip, advantage_temperature: see PolicyLimits; each loss reads what it needs of them.
        over: counts of the whole minibatch that these rows are a part of.
        ref_logprobs: [B, T] float, needed by `squared_distance_to_target`.
    """
    log_ratio = masked_log_ratio(logprobs, old_logprobs, response_mask)
    tokens = PolicyTokens(
        response_mask=response_mask,
        logprobs=torch.where(response_mask, logprobs, 0.0),
        ratio=log_ratio.exp(),
        log_ratio=log_ratio,
        advantages=torch.where(response_mask, advantages, 0.0),
        ref_logprobs=None if ref_logprobs is None else torch.where(response_mask, ref_logprobs, 0.0),
    )
    result = token_losses(tokens, PolicyLimits(clip_low, clip_high, dual_clip, advantage_temperature))
    nowhere = torch.zeros_like(tokens.ratio)
    with torch.no_grad():
        clipped, dual_clipped = (
            token_mean(nowhere if decides is None else decides, response_mask, over)
            for decides in (result.clipped, result.dual_clipped)
        )
    loss = AGGREGATIONS[aggregation](result.losses, response_mask, over)
    return AggregatedLoss(loss, clipped, dual_clipped, ratio_drift(log_ratio, response_mask, over))


@dataclass(frozen=True)
class PreferencePull:
    """DPO's loss on a minibatch of pairs, and the weight with which each response is pulled up or pushed down."""

    loss: Tensor  # [] mean over pairs, without gradient
    accuracy: Tensor  # [] share of pairs whose chosen response gained more on the reference; a tie is none
    margin: Tensor  # [] mean of beta * (chosen gain - rejected gain), nats
    weights: Tensor  # [B] minus the loss's derivative by a response's log-probability


@torch.no_grad()
def preference_pull(logprobs: Tensor, ref_logprobs: Tensor, response_mask: Tensor, *, beta: float) -> PreferencePull:
    """Direct preference optimisation (arXiv:2305.18290, eq. 7), its gradient by pencil (section 4 there).

    loss = mean over pairs of -log sigmoid(beta * (gain of the chosen - gain of the rejected)), where a response's gain
    is sum_t (log pi - log pi_ref). -sum_b weights_b sum_t log pi_bt has the loss's gradient, so that the rows may
    be passed through the model one micro-batch at a time although the loss couples two of them.

    Args:
        logprobs, ref_logprobs: [B, T] float; rows 2p and 2p + 1 are the chosen and the rejected response of pair p.
        response_mask: [B, T] bool. beta: strength of the pull towards the reference.
    Raises:
        RuntimeError: an odd number of rows.
    """
    gains = torch.where(response_mask, logprobs - ref_logprobs, 0.0).sum(dim=1)
    chosen, rejected = gains.view(-1, 2).unbind(dim=1)
    margins = beta * (chosen - rejected)
    push = beta * torch.sigmoid(-margins) / len(margins)
    return PreferencePull(
        loss=-torch.nn.functional.logsigmoid(margins).mean(),
        accuracy=(margins > 0).to(margins.dtype).mean(),
        margin=margins.mean(),
        weights=torch.stack((push, -push), dim=1).flatten(),
    )


def over_tokens(deviation: Tensor, entropy: Tensor, response_mask: Tensor, entropy_share: float) -> Tensor:
    """Every token counts the same, the many that were never in doubt too."""
    return deviation[response_mask].mean()


def over_sequences(deviation: Tensor, entropy: Tensor, response_mask: Tensor, entropy_share: float) -> Tensor:
    """Mean over each response's tokens, then over responses."""
    return sequence_mean(deviation, response_mask, denominators(response_mask, fixed_length=1))


def over_high_entropy_tokens(deviation: Tensor, entropy: Tensor, response_mask: Tensor, entropy_share: float) -> Tensor:
    """Over the share of tokens with the largest entropy, at least one: where the policy had a choice."""
    order = entropy[response_mask].argsort(descending=True, stable=True)
    return deviation[response_mask][order[: max(1, round(entropy_share * len(order)))]].mean()


DEVIATION_SCOPES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {
    "tokens": over_tokens,
    "sequences": over_sequences,
    "high-entropy-tokens": over_high_entropy_tokens,
}


@torch.no_grad()
def ratio_deviation(
    logprobs: Tensor, old_logprobs: Tensor, entropy: Tensor, response_mask: Tensor, *, scope: str, entropy_share: float
) -> Tensor:
    """ESPO's measure of how far a policy has moved (arXiv:2202.00079): D = mean |ratio - 1|, at which epochs stop.

    On tokens that the old policy sampled, the expectation of D is sum_a |pi(a) - pi_old(a)|, twice the total variation.

    Args:
        logprobs, old_logprobs, entropy: [B, T] float. response_mask: [B, T] bool, at least one True.
        scope: a key of DEVIATION_SCOPES. entropy_share: read by `high-entropy-tokens` only, in (0, 1].
    Returns:
        [], 0 if the policies agree on every token.
    """
    deviation = (masked_log_ratio(logprobs, old_logprobs, response_mask).exp() - 1.0).abs()
    return DEVIATION_SCOPES[scope](deviation, entropy, response_mask, entropy_share)


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
