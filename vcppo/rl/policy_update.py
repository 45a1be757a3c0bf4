"""One optimiser step of the actor on one minibatch: a sum of named terms, micro-batch by micro-batch.

A term is a loss with what it logs. `terms` says which a run has, in the order in which they are added.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.errors import TrainingError
from vcppo.maths.losses import (
    AGGREGATIONS,
    KL_ESTIMATORS,
    PreferencePull,
    RatioDrift,
    denominators,
    masked_log_ratio,
    policy_loss,
    preference_pull,
    ratio_deviation,
    ratio_drift,
    token_mean,
)
from vcppo.models import forward
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.rl.costs import Costs
from vcppo.settings.policy import PreferencePolicySettings
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch, TokenBatch, cut_to


@dataclass(frozen=True)
class PolicyUpdate:
    """Metrics of one update of the actor; means are over the minibatch's tokens."""

    loss: float
    entropy: float
    approx_kl: float
    clip_fraction: float
    ratio_max: float
    ref_kl: float  # k3 to the reference, 0 without one
    grad_norm: float
    dual_clip_fraction: float | None = None  # tokens that `policy.dual_clip` decides, where it is set
    deviation: float | None = None  # ESPO's mean |ratio - 1|, where it is watched
    preference_accuracy: float | None = None  # DPO: pairs whose chosen response has gained more on the reference
    preference_margin: float | None = None  # DPO: mean of beta * (its gain - the wrong one's), nats
    positive_nll: float | None = None  # of correct responses' tokens, where it is part of the loss
    demonstration_nll: float | None = None


def read_logprobs(
    policy: PreTrainedModel,
    batch: RolloutBatch,
    *,
    temperature: float,
    max_tokens: int,
    rows: Tensor | None = None,
) -> Tensor:
    """[B, T] log-probabilities of responses, without gradient; 0 where masked, and in rows not in `rows`."""
    return forward.gather_outputs(
        policy, batch, max_tokens, lambda part: forward.response_logprobs(policy, part, temperature)[0], rows
    )


@dataclass(frozen=True)
class TermInputs:
    """Inputs of the terms: a micro-batch, with the outputs of the policy as it is now."""

    batch: TokenBatch
    rows: Tensor  # [b] of the batch that it is a part of
    logprobs: Tensor  # [b, T] with gradient
    entropy: Tensor  # [b, T] with gradient

    def part(self, x: Tensor) -> Tensor:
        """Cut [B, T] of the whole batch to [b, T] of this micro-batch."""
        return cut_to(x, self.rows, self.batch)


@dataclass(frozen=True)
class Term:
    """One term of a micro-batch's loss; `sums` add up over micro-batches to what is logged, of `maxima` the largest."""

    loss: Tensor | None  # None where it is only logged
    sums: dict[str, float] = field(default_factory=dict)
    maxima: dict[str, float] = field(default_factory=dict)


Terms = list[Callable[[TermInputs], Term]]


def terms(
    batch: RolloutBatch,
    advantages: Tensor,
    ref_logprobs: Tensor | None,
    settings: RunSettings,
    fixed_length: int,
    preference: PreferencePull | None,
) -> Terms:
    """The terms of a minibatch's loss, each a mean over all of its tokens, responses or pairs."""
    chosen, bounds = settings.policy, settings.policy.bounds
    normalisers = denominators(batch.response_mask, fixed_length=fixed_length)
    aggregate = AGGREGATIONS[chosen.aggregation]
    correct_normalisers = denominators(batch.response_mask & batch.correct[:, None], fixed_length=fixed_length)

    def with_drift(loss: Tensor, sums: dict[str, float], drift: RatioDrift) -> Term:
        return Term(loss, {**sums, "approx_kl": float(drift.approx_kl)}, {"ratio_max": float(drift.ratio_max)})

    def surrogate(inputs: TermInputs) -> Term:
        result = policy_loss(
            inputs.logprobs,
            inputs.part(batch.old_logprobs),
            inputs.part(advantages),
            inputs.batch.response_mask,
            token_losses=settings.loss.compute,
            **bounds,
            aggregation=chosen.aggregation,
            over=normalisers,
            ref_logprobs=None if ref_logprobs is None else inputs.part(ref_logprobs),
        )
        sums = {"clip_fraction": float(result.clip_fraction)}
        if bounds["dual_clip"] is not None:
            sums["dual_clip_fraction"] = float(result.dual_clip_fraction)
        return with_drift(result.loss, sums, result.drift)

    def preferences(inputs: TermInputs) -> Term:
        assert preference is not None
        pull = preference.weights[inputs.rows] * inputs.logprobs.sum(dim=1)
        mask = inputs.batch.response_mask
        log_ratio = masked_log_ratio(inputs.logprobs, inputs.part(batch.old_logprobs), mask)
        return with_drift(-pull.sum(), {"clip_fraction": 0.0}, ratio_drift(log_ratio, mask, normalisers))

    def entropy_bonus(inputs: TermInputs) -> Term:
        mask, weight = inputs.batch.response_mask, chosen.entropy_coefficient
        mean = token_mean(inputs.entropy.detach(), mask, normalisers)
        return Term(
            -weight * aggregate(inputs.entropy, mask, normalisers) if weight else None, {"entropy": float(mean)}
        )

    def reference_kl(inputs: TermInputs) -> Term:
        if ref_logprobs is None:
            return Term(None, {"ref_kl": 0.0})
        ref, mask, loss = inputs.part(ref_logprobs), inputs.batch.response_mask, None
        if settings.kl.placement == "loss":
            penalty = KL_ESTIMATORS[settings.kl.estimator](inputs.logprobs, ref)
            loss = settings.kl.coefficient * aggregate(penalty, mask, normalisers)
        distance = token_mean(KL_ESTIMATORS["k3"](inputs.logprobs.detach(), ref), mask, normalisers)
        return Term(loss, {"ref_kl": float(distance)})

    def positive_nll(inputs: TermInputs) -> Term:
        mask = inputs.batch.response_mask & batch.correct[inputs.rows, None]
        nll = token_mean(-inputs.logprobs, mask, correct_normalisers)
        return Term(chosen.positive_nll * nll, {"positive_nll": float(nll.detach())})

    present: Terms = [surrogate if preference is None else preferences, entropy_bonus, reference_kl]
    if chosen.positive_nll and correct_normalisers.tokens:
        present.append(positive_nll)
    return present


def imitation(demonstrations: TokenBatch, weight: float) -> Terms:
    """The one term of demonstrations' loss: weight * (mean negative log-likelihood of their tokens)."""
    normalisers = denominators(demonstrations.response_mask, fixed_length=1)

    def demonstration_nll(inputs: TermInputs) -> Term:
        nll = token_mean(-inputs.logprobs, inputs.batch.response_mask, normalisers)
        return Term(weight * nll, {"demonstration_nll": float(nll.detach())})

    return [demonstration_nll]


@dataclass(frozen=True)
class Accumulated:
    """Logged sums of a batch's terms, of all processes, with the outputs that they were computed from."""

    loss: float  # sum of the terms
    sums: dict[str, float]
    maxima: dict[str, float]
    logprobs: Tensor  # [B, T] of this process's rows, 0 in others
    entropy: Tensor  # [B, T] likewise


def accumulate(
    policy: PreTrainedModel, batch: TokenBatch, present: Terms, *, temperature: float, max_tokens: int, costs: Costs
) -> Accumulated:
    """Add the gradient of a batch's terms to the policy's, micro-batch by micro-batch."""
    sums: dict[str, float] = {}
    maxima: dict[str, float] = {}
    new_logprobs, new_entropy = (torch.zeros(batch.response_mask.shape) for _ in range(2))
    for micro_batch in forward.micro_batches_of_rank(policy, batch.total_lengths, max_tokens):
        rows, part = micro_batch.rows, batch.take(micro_batch.rows)
        logprobs, entropy = forward.response_logprobs(policy, part, temperature)
        computed = [term(TermInputs(part, rows, logprobs, entropy)) for term in present]
        loss, *others = [term.loss for term in computed if term.loss is not None]
        loss = sum(others, start=loss)
        (micro_batch.weight * loss).backward()
        logged = {"loss": float(loss.detach()), **{k: x for term in computed for k, x in term.sums.items()}}
        largest = {k: x for term in computed for k, x in term.maxima.items()}
        if not micro_batch.counts:
            logged, largest = dict.fromkeys(logged, 0.0), dict.fromkeys(largest, 0.0)
        else:
            width = part.response_mask.shape[1]
            new_logprobs[rows, :width], new_entropy[rows, :width] = logprobs.detach(), entropy.detach()
        sums = {name: sums.get(name, 0.0) + number for name, number in logged.items()}
        maxima = {name: largest_of(maxima.get(name, 0.0), number) for name, number in largest.items()}
    costs.backward_tokens += int(batch.total_lengths.sum())
    sums = world().total(sums)
    maxima = {name: world().largest(number) for name, number in maxima.items()}
    return Accumulated(sums.pop("loss"), sums, maxima, new_logprobs, new_entropy)


def largest_of(before: float, number: float) -> float:
    """Return the larger; NaN if either is, which `max` passes over.

    >>> largest_of(1.0, 2.0), largest_of(1.0, math.nan), largest_of(math.nan, 1.0)
    (2.0, nan, nan)
    """
    return before if math.isnan(before) else number if math.isnan(number) else max(before, number)


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
    demonstrations: TokenBatch | None = None,
) -> PolicyUpdate:
    """Take one optimiser step on the settings' policy loss and the terms they weigh beside it.

    Args:
        batch: for DPO, rows 2p and 2p + 1 are the chosen and the rejected response of pair p.
        ref_logprobs: [B, T], None without a reference.
        demonstrations: to imitate as well, with weight `policy.demonstration_nll`.
    Raises:
        TrainingError: a ratio above `guard.max_ratio` or a gradient that is not finite; the weights are as they were.
    """
    chosen, limit = settings.policy, settings.micro_batch_tokens
    preference = _preference(policy, batch, ref_logprobs, settings, costs) if settings.loss.pairs else None
    present = terms(batch, advantages, ref_logprobs, settings, fixed_length, preference)
    done = accumulate(policy, batch, present, temperature=settings.rollout.temperature, max_tokens=limit, costs=costs)
    further = dict(done.sums)
    if chosen.demonstration_nll and demonstrations is not None:
        present = imitation(demonstrations, chosen.demonstration_nll)
        further |= accumulate(policy, demonstrations, present, temperature=1.0, max_tokens=limit, costs=costs).sums
    if preference is not None:
        further["preference_accuracy"] = float(preference.accuracy)
        further["preference_margin"] = float(preference.margin)
    if settings.early_stop.deviation != "none":
        deviation = ratio_deviation(
            world().sum(done.logprobs),
            batch.old_logprobs,
            world().sum(done.entropy),
            batch.response_mask,
            scope=settings.early_stop.deviation,
            entropy_share=settings.early_stop.entropy_share,
        )
        further["deviation"] = float(deviation)
    ratio_max = done.maxima["ratio_max"]
    if not ratio_max <= settings.guard.max_ratio:
        raise TrainingError(
            f"probability ratio {ratio_max:.3g} at policy update {optimiser.taken}, guard.max_ratio is "
            f"{settings.guard.max_ratio:g}: the policy has moved too far from the one that sampled; lower "
            "policy.learning_rate or policy.epochs"
        )
    loss = done.loss if preference is None else float(preference.loss)
    return PolicyUpdate(loss=loss, ratio_max=ratio_max, grad_norm=optimiser.step(), **further)


def _preference(
    policy: PreTrainedModel, batch: RolloutBatch, ref_logprobs: Tensor | None, settings: RunSettings, costs: Costs
) -> PreferencePull:
    """DPO's weights under the policy as it is now: one more forward pass, since its loss couples two responses."""
    assert ref_logprobs is not None
    assert isinstance(settings.policy, PreferencePolicySettings)
    logprobs = read_logprobs(
        policy, batch, temperature=settings.rollout.temperature, max_tokens=settings.micro_batch_tokens
    )
    costs.forward_tokens += int(batch.total_lengths.sum())
    return preference_pull(logprobs, ref_logprobs, batch.response_mask, beta=settings.policy.dpo_beta)
