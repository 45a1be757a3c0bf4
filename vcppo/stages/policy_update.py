"""One optimiser step of the actor on one minibatch."""

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo import models
from vcppo.config import RunSettings
from vcppo.errors import TrainingError
from vcppo.maths.losses import AGGREGATIONS, KL_ESTIMATORS, denominators, policy_loss, token_mean
from vcppo.optimiser import Optimiser
from vcppo.stages.sampling import micro_batches
from vcppo.types import RolloutBatch, cut_to


@dataclass(frozen=True)
class PolicyUpdate:
    """What one update of the actor reports; means are over the minibatch's tokens."""

    loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    ratio_max: float
    ref_kl: float  # k3 to the cold-start policy, 0 without a reference
    grad_norm: float


def read_logprobs(policy: PreTrainedModel, batch: RolloutBatch, *, temperature: float, max_tokens: int) -> Tensor:
    """[B, T] log-probabilities of the generated tokens, without gradient; 0 where masked."""
    logprobs = torch.zeros(batch.response_mask.shape)
    with torch.inference_mode():
        for rows in micro_batches(batch.prompt_lengths + batch.lengths, max_tokens):
            part = batch.take(rows)
            chosen, _ = models.response_logprobs(models.response_logits(policy, part, temperature), part)
            logprobs[rows, : part.response_mask.shape[1]] = chosen
    return logprobs


def update_policy(
    policy: PreTrainedModel,
    optimiser: Optimiser,
    batch: RolloutBatch,
    advantages: Tensor,
    ref_logprobs: Tensor | None,
    settings: RunSettings,
    *,
    fixed_length: int,
) -> PolicyUpdate:
    """Clipped surrogate, plus KL to the reference and minus entropy where the settings weigh them.

    Raises:
        TrainingError: a ratio above `guard.max_ratio` or a gradient that is not finite; the weights are as they were.
    """
    chosen = settings.policy
    over = denominators(batch.response_mask, fixed_length=fixed_length)
    aggregate = AGGREGATIONS[chosen.aggregation]
    sums = dict.fromkeys(("loss", "entropy", "approx_kl", "clip_fraction", "ref_kl"), 0.0)
    ratio_max = 0.0
    for rows in micro_batches(batch.prompt_lengths + batch.lengths, settings.micro_batch_tokens):
        part = batch.take(rows)
        mask = part.response_mask
        logits = models.response_logits(policy, part, settings.rollout.temperature)
        logprobs, entropy = models.response_logprobs(logits, part)
        result = policy_loss(
            logprobs,
            part.old_logprobs,
            cut_to(advantages, rows, part),
            mask,
            clip_low=chosen.clip_low,
            clip_high=chosen.clip_high,
            dual_clip=chosen.dual_clip,
            aggregation=chosen.aggregation,
            over=over,
        )
        loss = result.loss
        if chosen.entropy_coefficient:
            loss = loss - chosen.entropy_coefficient * aggregate(entropy, mask, over)
        if ref_logprobs is not None:
            ref = cut_to(ref_logprobs, rows, part)
            if settings.kl.placement == "loss":
                penalty = KL_ESTIMATORS[settings.kl.estimator](logprobs, ref)
                loss = loss + settings.kl.coefficient * aggregate(penalty, mask, over)
            sums["ref_kl"] += float(token_mean(KL_ESTIMATORS["k3"](logprobs.detach(), ref), mask, over))
        loss.backward()
        ratio_max = max(ratio_max, float(result.ratio_max))
        sums["loss"] += float(loss.detach())
        sums["entropy"] += float(token_mean(entropy.detach(), mask, over))
        sums["approx_kl"] += float(result.approx_kl)
        sums["clip_fraction"] += float(result.clip_fraction)
    if not ratio_max <= settings.guard.max_ratio:
        raise TrainingError(
            f"probability ratio {ratio_max:.3g} at policy update {optimiser.taken}, guard.max_ratio is "
            f"{settings.guard.max_ratio:g}: the policy has moved too far from the one that sampled; lower "
            "policy.learning_rate or policy.epochs"
        )
    return PolicyUpdate(**sums, ratio_max=ratio_max, grad_norm=optimiser.step())
