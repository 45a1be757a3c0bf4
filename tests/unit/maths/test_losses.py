"""Surrogate, value loss, KL estimators, aggregation: gradients by pencil, and sums that survive being cut up."""

import math
import operator
from collections.abc import Iterable
from typing import Any, get_args

import pytest
import torch
from loss_batches import close, drawn, mask_of
from torch import Tensor

from vcppo.maths.advantages import group_advantages
from vcppo.maths.losses import (
    AGGREGATIONS,
    DEVIATION_SCOPES,
    KL_ESTIMATORS,
    VALUE_LOSSES,
    AggregatedLoss,
    Denominators,
    ValueLoss,
    clipped_surrogate,
    denominators,
    policy_loss,
    value_loss,
)
from vcppo.settings.base import Aggregation
from vcppo.settings.critic import RewardModelCriticSettings
from vcppo.settings.kinds import KINDS
from vcppo.settings.policy import ClippedPolicySettings, KlPenaltySettings


def surrogate(
    logprobs: Tensor, old: Tensor, advantages: Tensor, response_mask: Tensor, **changes: Any
) -> AggregatedLoss:
    arguments: dict[str, Any] = {
        "token_losses": clipped_surrogate,
        "clip_low": 0.2,
        "clip_high": 0.2,
        "dual_clip": None,
        "advantage_temperature": 2.0,
        "aggregation": "token-mean",
        "over": denominators(response_mask, fixed_length=10),
    }
    return policy_loss(logprobs, old, advantages, response_mask, **(arguments | changes))


def critic(new_values: Tensor, values: Tensor, returns: Tensor, response_mask: Tensor, **changes: Any) -> ValueLoss:
    arguments: dict[str, Any] = {
        "kind": "mse",
        "clip_range": 0.5,
        "aggregation": "token-mean",
        "over": denominators(response_mask, fixed_length=10),
    }
    return value_loss(new_values, values, returns, response_mask, **(arguments | changes))


def at_ratio(ratio: float, advantage: float, **changes: Any) -> tuple[float, float]:
    """Loss of a single token, and its gradient with respect to the log-probability."""
    logprobs = torch.tensor([[math.log(ratio)]], dtype=torch.float64, requires_grad=True)
    advantages = torch.full((1, 1), advantage, dtype=torch.float64)
    loss = surrogate(logprobs, torch.zeros(1, 1), advantages, mask_of(1), **changes).loss
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), gradient.item()


@pytest.mark.parametrize(
    ("choices", "functions"),
    [
        (get_args(Aggregation), AGGREGATIONS),
        (get_args(ClippedPolicySettings.model_fields["aggregation"].annotation), AGGREGATIONS),
        (get_args(RewardModelCriticSettings.model_fields["aggregation"].annotation), AGGREGATIONS),
        (get_args(RewardModelCriticSettings.model_fields["value_loss"].annotation), VALUE_LOSSES),
        (get_args(KlPenaltySettings.model_fields["estimator"].annotation), KL_ESTIMATORS),
        (KINDS["early_stop"].models, {"none": None, **DEVIATION_SCOPES}),
    ],
)
def test_settings_offer_exactly_the_functions_there_are(choices: Iterable[str], functions: dict[str, Any]) -> None:
    assert set(choices) == set(functions)


def test_aggregations_by_hand() -> None:
    """Rows of 3, 1 and no tokens: token losses 1, 2, 6 and 5, a fixed length of 10."""
    x, on = torch.tensor([[1.0, 2, 6], [5, 99, 99], [99, 99, 99]]), mask_of(3, 1, 0)
    over = denominators(on, fixed_length=10)
    assert over == Denominators(tokens=4, sequences=2, width=10)
    found = {name: float(function(x, on, over)) for name, function in AGGREGATIONS.items()}
    assert found == pytest.approx({"token-mean": 14 / 4, "sequence-mean": (3 + 5) / 2, "fixed-length": 14 / 20})


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_add_up_to_the_whole_minibatch(aggregation: str) -> None:
    on, logprobs, old, advantages, values, returns = drawn(5, 1, 9, 2, 7, tensors=5)
    whole = {"aggregation": aggregation, "over": denominators(on, fixed_length=12)}
    parts = [slice(0, 1), slice(1, 4), slice(4, 5)]
    dual = whole | {"dual_clip": 1.1}
    policy = surrogate(logprobs, old, advantages, on, **dual)
    pieces = [surrogate(logprobs[p], old[p], advantages[p], on[p], **dual) for p in parts]
    for name in ("loss", "clip_fraction", "dual_clip_fraction", "drift.approx_kl"):
        of = operator.attrgetter(name)
        close(sum(of(piece) for piece in pieces), of(policy), rtol=1e-14, atol=1e-16)
    close(max(piece.drift.ratio_max for piece in pieces), policy.drift.ratio_max)
    value = critic(logprobs, values, returns, on, kind="clipped", **whole)
    value_pieces = [critic(logprobs[p], values[p], returns[p], on[p], kind="clipped", **whole) for p in parts]
    close(sum(piece.loss for piece in value_pieces), value.loss, rtol=1e-6, atol=0)  # float32 by design
    close(sum(piece.clip_fraction for piece in value_pieces), value.clip_fraction, rtol=1e-6, atol=0)


def test_ratio_one_leaves_the_policy_gradient() -> None:
    on, old, advantages = drawn(4, 2, 1, tensors=2)
    logprobs = old.clone().requires_grad_()
    result = surrogate(logprobs, old, advantages, on)
    (gradient,) = torch.autograd.grad(result.loss, logprobs)
    close(gradient, torch.where(on, -advantages / 7, 0.0))
    assert (float(result.clip_fraction), float(result.drift.approx_kl), float(result.drift.ratio_max)) == (0, 0, 1)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.1, 2.0, -2.2, -2.2),  # inside: d(-r A)/d log p = -r A
        (0.9, -2.0, 1.8, 1.8),
        (1.5, 2.0, -2.4, 0.0),  # already better than wanted: clipped, no gradient
        (0.5, -2.0, 1.6, 0.0),
        (0.5, 2.0, -1.0, -1.0),  # gone the wrong way: the gradient brings it back
        (1.5, -2.0, 3.0, 3.0),
    ],
)
def test_token_is_clipped_in_its_advantages_own_direction_only(
    ratio: float, advantage: float, loss: float, gradient: float
) -> None:
    assert at_ratio(ratio, advantage) == pytest.approx((loss, gradient), rel=1e-12)


def test_clip_higher_leaves_room_above_and_not_below() -> None:
    """DAPO (arXiv:2503.14476): clip_high 0.28 lets a ratio of 1.25 learn on, which 0.2 stops."""
    assert at_ratio(1.25, 1.0, clip_high=0.28) == pytest.approx((-1.25, -1.25))
    assert at_ratio(1.25, 1.0, clip_high=0.20) == pytest.approx((-1.2, 0.0))
    assert at_ratio(0.75, -1.0, clip_high=0.28) == pytest.approx((0.8, 0.0))


def test_dual_clip_bounds_the_loss_of_bad_tokens() -> None:
    assert at_ratio(10.0, -2.0) == pytest.approx((20.0, 20.0))
    assert at_ratio(10.0, -2.0, dual_clip=3.0) == pytest.approx((6.0, 0.0))
    assert at_ratio(2.0, -2.0, dual_clip=3.0) == pytest.approx((4.0, 4.0))
    assert at_ratio(0.1, 2.0, dual_clip=3.0) == at_ratio(0.1, 2.0)


@pytest.mark.parametrize(
    ("ratio", "advantage", "clipped", "dual_clipped"),
    [
        (10.0, -2.0, 0, 1),  # -3 A bounds it
        (2.0, -2.0, 0, 0),  # -r A, as without any clip
        (0.5, -2.0, 1, 0),
        (10.0, 2.0, 1, 0),  # a good token has no second bound
        (0.1, 2.0, 0, 0),
        (10.0, 0.0, 0, 0),
    ],
)
def test_a_token_that_the_dual_clip_decides_is_counted_as_such(
    ratio: float, advantage: float, clipped: float, dual_clipped: float
) -> None:
    """Beside one of ratio 1, which nothing decides."""
    logprobs = torch.tensor([[ratio, 1.0]], dtype=torch.float64).log()
    found = surrogate(logprobs, torch.zeros(1, 2), torch.full((1, 2), advantage), mask_of(2), dual_clip=3.0)
    assert (float(found.clip_fraction), float(found.dual_clip_fraction)) == (clipped / 2, dual_clipped / 2)
    without = surrogate(logprobs, torch.zeros(1, 2), torch.full((1, 2), advantage), mask_of(2))
    assert (float(without.clip_fraction), float(without.dual_clip_fraction)) == (clipped / 2, 0.0)


def test_tokens_without_a_gradient_are_those_that_a_clip_decides() -> None:
    on, old, advantages, noise = drawn(40, 25, tensors=3)
    logprobs = (old + noise).requires_grad_()
    found = surrogate(logprobs, old, advantages, on, dual_clip=1.5)
    (gradient,) = torch.autograd.grad(found.loss, logprobs)
    assert min(float(found.clip_fraction), float(found.dual_clip_fraction)) > 0
    decided = float((gradient[on] == 0).double().mean())
    assert decided == pytest.approx(float(found.clip_fraction + found.dual_clip_fraction), rel=1e-12)


def test_masked_tokens_have_no_loss_and_no_gradient_even_if_not_a_number() -> None:
    on, old, advantages, noise = drawn(4, 2, tensors=3)
    logprobs = (old + 0.1 * noise).requires_grad_()
    spoilt = torch.where(on, logprobs.detach(), torch.nan).requires_grad_()
    clean = surrogate(logprobs, old, advantages, on, dual_clip=3.0)
    dirty = surrogate(
        spoilt, torch.where(on, old, torch.nan), torch.where(on, advantages, torch.nan), on, dual_clip=3.0
    )
    for name in ("loss", "clip_fraction", "dual_clip_fraction", "drift.approx_kl", "drift.ratio_max"):
        of = operator.attrgetter(name)
        close(of(dirty), of(clean), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(dirty.loss, spoilt)
    close(gradient, torch.autograd.grad(clean.loss, logprobs)[0], rtol=0, atol=0)
    assert (gradient[~on] == 0).all()


def test_logged_numbers_of_the_policy_by_hand() -> None:
    """Ratios 1.5, 0.5, 1: the first is clipped, the second would be only with a bad advantage."""
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5), 0.0]], dtype=torch.float64)
    result = surrogate(logprobs, torch.zeros(1, 3), torch.ones(1, 3), mask_of(3))
    assert float(result.clip_fraction) == pytest.approx(1 / 3)
    assert float(result.drift.approx_kl) == pytest.approx((0.5 - math.log(1.5) - 0.5 - math.log(0.5)) / 3)
    assert float(result.drift.ratio_max) == pytest.approx(1.5)


def test_a_ratio_beyond_all_measure_stays_finite_and_is_told() -> None:
    loss, _ = at_ratio(math.exp(100), -1.0)
    assert loss == pytest.approx(math.exp(20))


def test_token_mean_weighs_tokens_alike_and_sequence_mean_weighs_responses_alike() -> None:
    """DAPO against GRPO: gradients of a long and a short response with the same advantage."""
    on = mask_of(4, 1)
    advantages = group_advantages(
        torch.tensor([1.0, 1.0, -2.0]), torch.zeros(3, dtype=torch.long), mask_of(4, 1, 1), scale=False
    )
    shares = {}
    for name in AGGREGATIONS:
        logprobs = torch.zeros(2, 4, requires_grad=True)
        loss = surrogate(logprobs, torch.zeros(2, 4), advantages[:2], on, aggregation=name).loss
        shares[name] = -torch.autograd.grad(loss, logprobs)[0]
    close(shares["token-mean"], torch.tensor([[0.2, 0.2, 0.2, 0.2], [0.2, 0, 0, 0]]))
    close(shares["sequence-mean"], torch.tensor([[0.125, 0.125, 0.125, 0.125], [0.5, 0, 0, 0]]))
    close(shares["fixed-length"], torch.tensor([[0.05, 0.05, 0.05, 0.05], [0.05, 0, 0, 0]]))


def test_value_loss_is_half_the_squared_error() -> None:
    found = critic(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), mask_of(2))
    assert (float(found.loss), float(found.clip_fraction)) == (0.5 * (1 + 4) / 2, 0.0)


@pytest.mark.parametrize(
    ("new", "old", "target", "loss", "gradient", "decided"),
    [
        (0.4, 0.0, 1.0, 0.18, -0.6, 0),  # within the range: the plain loss
        (0.9, 0.0, 1.0, 0.125, 0.0, 1),  # ran too far towards the target: no gradient
        (-2.0, 0.0, 1.0, 4.5, -3.0, 0),  # ran away from it: the plain loss is the larger
        (1.6, 0.0, 1.0, 0.18, 0.6, 0),  # overshot: |1.6 - 1| is beyond |0.5 - 1|
    ],
)
def test_clipped_value_loss_takes_the_larger_error(
    new: float, old: float, target: float, loss: float, gradient: float, decided: int
) -> None:
    new_values = torch.tensor([[new]], requires_grad=True)
    found = critic(new_values, torch.tensor([[old]]), torch.tensor([[target]]), mask_of(1), kind="clipped")
    slope = torch.autograd.grad(found.loss, new_values)[0].item()
    assert (found.loss.item(), slope, found.clip_fraction.item()) == pytest.approx((loss, gradient, decided), rel=1e-6)


def test_a_wide_clip_is_the_plain_value_loss() -> None:
    on, new_values, values, returns = drawn(300, 200, tensors=3)
    wide = critic(new_values, values, returns, on, kind="clipped", clip_range=100.0)
    plain = critic(new_values, values, returns, on)
    close(wide.loss, plain.loss, rtol=0, atol=0)
    assert float(wide.clip_fraction) == 0, "rounding alone must not count as clipping"


def test_value_loss_is_float32_whatever_the_model_computes_in() -> None:
    """3 + 2^-6 is a bfloat16, its square is none; and a target 2^-12 above 1 would be 1 and the loss 0."""
    near_three, nothing = torch.full((1, 1), 3 + 2**-6, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.bfloat16)
    found = critic(near_three, nothing, nothing, mask_of(1))
    assert found.loss.dtype == torch.float32
    assert found.loss.item() == 0.5 * (3 + 2**-6) ** 2
    new_values = torch.ones(1, 1, dtype=torch.bfloat16, requires_grad=True)
    found = critic(new_values, nothing, torch.tensor([[1 + 2**-12]]), mask_of(1))
    assert found.loss.item() == 2**-25
    assert torch.autograd.grad(found.loss, new_values)[0].item() == -(2**-12)


@pytest.mark.parametrize("kind", VALUE_LOSSES)
def test_masked_values_have_no_loss_and_no_gradient_even_if_not_a_number(kind: str) -> None:
    on, new_values, values, returns = drawn(4, 2, tensors=3)
    spoilt = [torch.where(on, x, torch.nan) for x in (new_values, values, returns)]
    spoilt[0].requires_grad_()
    found = critic(spoilt[0], spoilt[1], spoilt[2], on, kind=kind)
    close(found.loss, critic(new_values, values, returns, on, kind=kind).loss, rtol=0, atol=0)
    gradient = torch.autograd.grad(found.loss, spoilt[0])[0]
    assert gradient.isfinite().all()
    assert (gradient[~on] == 0).all()
    assert (gradient[on] != 0).any()


def two_distributions() -> tuple[Tensor, Tensor]:
    """Log-probabilities of all outcomes of two unlike distributions."""
    rng = torch.Generator().manual_seed(3)
    p, q = torch.randn(2, 6, generator=rng, dtype=torch.float64).log_softmax(dim=-1)
    return p, q


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_the_mean_of_an_unbiased_estimator_is_the_kl(name: str) -> None:
    p, q = two_distributions()
    exact = torch.nn.functional.kl_div(q, p, log_target=True, reduction="sum")  # KL(p || q)
    close((p.exp() * KL_ESTIMATORS[name](p, q)).sum(), exact)


def test_the_gradient_of_k2_is_the_gradient_of_the_kl() -> None:
    p, q = two_distributions()
    logits = p.clone().requires_grad_()
    logprobs = logits.log_softmax(dim=-1)
    sampled = torch.autograd.grad((p.exp() * KL_ESTIMATORS["k2"](logprobs, q)).sum(), logits, retain_graph=True)[0]
    exact = torch.autograd.grad((logprobs.exp() * (logprobs - q)).sum(), logits)[0]
    close(sampled, exact)
    assert sampled.abs().max() > 0.01


def test_kl_estimators_by_hand() -> None:
    """p = 1/2, q = 1/4: log p - log q = log 2, q/p = 1/2."""
    p, q, two = torch.tensor(0.5).log(), torch.tensor(0.25).log(), math.log(2)
    found = {name: float(estimator(p, q)) for name, estimator in KL_ESTIMATORS.items()}
    assert found == pytest.approx({"k1": two, "k2": two**2 / 2, "k3": 0.5 - 1 + two}, rel=1e-6)


def test_k3_is_never_negative_and_k1_can_be() -> None:
    rng = torch.Generator().manual_seed(0)
    p, q = 3 * torch.randn(2, 1000, generator=rng, dtype=torch.float64)
    assert (KL_ESTIMATORS["k3"](p, q) >= 0).all()
    assert (KL_ESTIMATORS["k1"](p, q) < 0).any()
    assert (KL_ESTIMATORS["k3"](p, p) == 0).all()
