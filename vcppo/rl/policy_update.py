"""One optimiser step of the actor on one minibatch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.errors import TrainingError
from vcppo.maths.losses import (
    AGGREGATIONS,
    KL_ESTIMATORS,
    Denominators,
    PreferencePull,
    denominators,
    policy_loss,
    preference_pull,
    ratio_deviation,
    token_mean,
)
from vcppo.models import forward
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.rl.costs import Costs
from vcppo.settings.losses import POLICY_LOSSES
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch, cut_to


@dataclass(frozen=True)
class PolicyUpdate:
    """What one update of the actor reports; means are over the minibatch's tokens."""

    loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    ratio_max: float
    ref_kl: float  # k3 to the reference, 0 without one
    grad_norm: float
    dual_clip_fraction: float | None = None  # tokens that `policy.dual_clip` decides, where it is set
    deviation: float | None = None  # ESPO's mean |ratio - 1|, where it is watched
    preference_accuracy: float | None = None  # DPO: pairs whose right answer has gained more on the reference
    preference_margin: float | None = None  # DPO: mean of beta * (its gain - the wrong one's), nats
    positive_nll: float | None = None  # of right answers' tokens, where it is part of the loss
    demonstration_nll: float | None = None


def read_logprobs(
    policy: PreTrainedModel,
    batch: RolloutBatch,
    *,
    temperature: float,
    max_tokens: int,
    rows: Tensor | None = None,
) -> Tensor:
    """[B, T] log-probabilities of the generated tokens, without gradient; 0 where masked, and in rows not asked for."""
    return forward.read(
        policy, batch, max_tokens, lambda part: forward.response_logprobs(policy, part, temperature)[0], rows
    )


def update_policy(
    policy: PreTrainedModel,
    optimiser: Optimiser,
    batch: RolloutBatch,
    advantages: Tensor,
    ref_logprobs: Tensor | None,
    settings: RunSettings,
    *,
    fixed_length: int,
    costs: Costs,
    demonstrations: RolloutBatch | None = None,
) -> PolicyUpdate:
    """The settings' policy loss, with what they weigh beside it: KL to the reference, entropy, likelihoods.

    Args:
        batch: for DPO, rows 2p and 2p + 1 are the chosen and the rejected answer of pair p.
        ref_logprobs: [B, T], None without a reference.
        demonstrations: to imitate beside, with weight `policy.demonstration_nll`.
    Raises:
        TrainingError: a ratio above `guard.max_ratio` or a gradient that is not finite; the weights are as they were.
    """
    chosen, limit = settings.policy, settings.micro_batch_tokens
    over = denominators(batch.response_mask, fixed_length=fixed_length)
    aggregate = AGGREGATIONS[chosen.aggregation]
    right = batch.response_mask & batch.correct[:, None]
    over_right = denominators(right, fixed_length=fixed_length)
    pull = _pull(policy, batch, ref_logprobs, settings, costs) if POLICY_LOSSES[chosen.loss].pairs else None
    sums = dict.fromkeys(("loss", "entropy", "approx_kl", "clip_fraction", "ref_kl"), 0.0)
    if chosen.dual_clip is not None:
        sums["dual_clip_fraction"] = 0.0
    if chosen.positive_nll and over_right.tokens:
        sums["positive_nll"] = 0.0
    extra: dict[str, float] = {}
    ratio_max = 0.0
    seen_logprobs, seen_entropy = (torch.zeros(batch.response_mask.shape) for _ in range(2))
    for own in forward.own_passes(policy, batch.total_lengths, limit):
        rows = own.rows
        part = batch.take(rows)
        mask = part.response_mask
        logprobs, entropy = forward.response_logprobs(policy, part, settings.rollout.temperature)
        told = dict.fromkeys(sums, 0.0)
        ref = None if ref_logprobs is None else cut_to(ref_logprobs, rows, part)
        result = policy_loss(
            logprobs,
            part.old_logprobs,
            cut_to(advantages, rows, part),
            mask,
            kind="reinforce" if pull is not None else chosen.loss,
            clip_low=chosen.clip_low,
            clip_high=chosen.clip_high,
            dual_clip=chosen.dual_clip,
            advantage_temperature=chosen.advantage_temperature,
            aggregation=chosen.aggregation,
            over=over,
            ref_logprobs=ref,
        )
        loss = result.loss if pull is None else -(pull.weights[rows] * logprobs.sum(dim=1)).sum()
        if chosen.entropy_coefficient:
            loss = loss - chosen.entropy_coefficient * aggregate(entropy, mask, over)
        if ref is not None:
            if settings.kl.placement == "loss":
                penalty = KL_ESTIMATORS[settings.kl.estimator](logprobs, ref)
                loss = loss + settings.kl.coefficient * aggregate(penalty, mask, over)
            told["ref_kl"] = float(token_mean(KL_ESTIMATORS["k3"](logprobs.detach(), ref), mask, over))
        if chosen.positive_nll and over_right.tokens:
            nll = token_mean(-logprobs, mask & part.correct[:, None], over_right)
            loss = loss + chosen.positive_nll * nll
            told["positive_nll"] = float(nll.detach())
        (own.weight * loss).backward()
        if not own.counts:
            continue
        width = mask.shape[1]
        seen_logprobs[rows, :width], seen_entropy[rows, :width] = logprobs.detach(), entropy.detach()
        ratio_max = max(ratio_max, float(result.ratio_max))
        told["loss"] = float(loss.detach())
        told["entropy"] = float(token_mean(entropy.detach(), mask, over))
        told["approx_kl"], told["clip_fraction"] = float(result.approx_kl), float(result.clip_fraction)
        if "dual_clip_fraction" in told:
            told["dual_clip_fraction"] = float(result.dual_clip_fraction)
        sums = {name: number + told[name] for name, number in sums.items()}
    sums, ratio_max = world().total(sums), world().largest(ratio_max)
    costs.backward_tokens += int(batch.total_lengths.sum())
    if chosen.demonstration_nll and demonstrations is not None:
        extra["demonstration_nll"] = _imitate(policy, demonstrations, chosen.demonstration_nll, limit, costs)
    if pull is not None:
        sums["loss"] = float(pull.loss)
        extra |= {"preference_accuracy": float(pull.accuracy), "preference_margin": float(pull.margin)}
    if settings.early_stop.deviation != "none":
        seen_logprobs, seen_entropy = world().sum(seen_logprobs), world().sum(seen_entropy)
        extra["deviation"] = float(
            ratio_deviation(
                seen_logprobs,
                batch.old_logprobs,
                seen_entropy,
                batch.response_mask,
                scope=settings.early_stop.deviation,
                entropy_share=settings.early_stop.entropy_share,
            )
        )
    if not ratio_max <= settings.guard.max_ratio:
        raise TrainingError(
            f"probability ratio {ratio_max:.3g} at policy update {optimiser.taken}, guard.max_ratio is "
            f"{settings.guard.max_ratio:g}: the policy has moved too far from the one that sampled; lower "
            "policy.learning_rate or policy.epochs"
        )
    return PolicyUpdate(**sums, ratio_max=ratio_max, grad_norm=optimiser.step(), **extra)


def _pull(
    policy: PreTrainedModel, batch: RolloutBatch, ref_logprobs: Tensor | None, settings: RunSettings, costs: Costs
) -> PreferencePull:
    """DPO's weights under the policy as it is now: one more forward pass, since its loss couples two answers."""
    assert ref_logprobs is not None
    logprobs = read_logprobs(
        policy, batch, temperature=settings.rollout.temperature, max_tokens=settings.micro_batch_tokens
    )
    costs.forward_tokens += int(batch.total_lengths.sum())
    return preference_pull(logprobs, ref_logprobs, batch.response_mask, beta=settings.policy.dpo_beta)


def _imitate(
    policy: PreTrainedModel, demonstrations: RolloutBatch, weight: float, max_tokens: int, costs: Costs
) -> float:
    """Add the gradient of weight * (mean negative log-likelihood of the demonstrations' tokens); returns the mean."""
    over: Denominators = denominators(demonstrations.response_mask, fixed_length=1)
    total = 0.0
    for own in forward.own_passes(policy, demonstrations.total_lengths, max_tokens):
        part = demonstrations.take(own.rows)
        logprobs, _ = forward.response_logprobs(policy, part, 1.0)
        nll = token_mean(-logprobs, part.response_mask, over)
        (own.weight * weight * nll).backward()
        total += float(nll.detach()) * own.counts
    costs.backward_tokens += int(demonstrations.total_lengths.sum())
    return world().total({"nll": total})["nll"]
