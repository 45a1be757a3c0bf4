"""The other methods' losses: closed forms, and what they share with PPO's."""

import math
import operator
from typing import Any

import pytest
import torch
from loss_batches import close, drawn, mask_of
from torch import Tensor

from vcppo.maths.losses import AGGREGATIONS, AggregatedLoss, denominators, policy_loss
from vcppo.settings.losses import POLICY_LOSSES, names_of

TEMPERATURE = 2.0
every_kind = pytest.mark.parametrize("kind", names_of(lambda loss: not loss.pairs))


def loss_of(
    kind: str, logprobs: Tensor, old: Tensor, advantages: Tensor, on: Tensor, ref: Tensor | None = None, **changes: Any
) -> AggregatedLoss:
    arguments: dict[str, Any] = {
        "clip_low": 0.2,
        "clip_high": 0.2,
        "dual_clip": None,
        "advantage_temperature": TEMPERATURE,
        "aggregation": "token-mean",
        "over": denominators(on, fixed_length=10),
    }
    losses = POLICY_LOSSES[kind].compute
    return policy_loss(logprobs, old, advantages, on, token_losses=losses, ref_logprobs=ref, **(arguments | changes))


def gradient_of(
    kind: str, logprobs: Tensor, old: Tensor, advantages: Tensor, on: Tensor, ref: Tensor | None = None, **changes: Any
) -> Tensor:
    logprobs = logprobs.clone().requires_grad_()
    loss = loss_of(kind, logprobs, old, advantages, on, ref, **changes).loss
    return torch.autograd.grad(loss, logprobs)[0]


LOG_HALF = math.log(0.5)


@pytest.mark.parametrize(
    ("kind", "ratio", "advantage", "loss", "gradient", "decided"),
    [
        ("unclipped", 1.5, 2.0, -3.0, -3.0, 0),
        ("unclipped", 0.5, -2.0, 1.0, 1.0, 0),
        ("reinforce", 1.5, 2.0, -2.0 * LOG_HALF, -2.0, 0),
        ("reinforce", 9.0, -1.0, LOG_HALF, 1.0, 0),
        ("apa", 1.5, 1.0, (math.log(2) - 0.5) ** 2, 2 * (math.log(2) - 0.5), 0),
        ("apa", 1.5, -1.0, (math.log(2) + 0.5) ** 2, 2 * (math.log(2) + 0.5), 0),
        ("apa", 1.5, 8.0, LOG_HALF**2, 2 * LOG_HALF, 1),  # log(1/4) + 4 would be a probability above 1
        ("awr", 1.5, 2.0, -math.e * LOG_HALF, -math.e, 0),
        ("awr", 1.5, -2.0, -LOG_HALF / math.e, -1 / math.e, 0),
        ("gspo", 1.1, 2.0, -2.2, -2.2, 0),
        ("gspo", 1.5, 2.0, -2.4, 0.0, 1),
        ("gspo", 0.5, -2.0, 1.6, 0.0, 1),
        ("gspo", 1.5, -2.0, 3.0, 3.0, 0),
        ("cispo", 1.1, 2.0, -2.2 * LOG_HALF, -2.2, 0),
        ("cispo", 1.5, 2.0, -2.4 * LOG_HALF, -2.4, 1),  # where PPO's gradient is 0
        ("cispo", 1.5, -2.0, 2.4 * LOG_HALF, 2.4, 1),
        ("cispo", 0.5, -2.0, 1.6 * LOG_HALF, 1.6, 1),
    ],
)
def test_a_single_token_by_hand(
    kind: str, ratio: float, advantage: float, loss: float, gradient: float, decided: float
) -> None:
    """pi = 1/2, pi_ref = 1/4, pi_old = 1 / (2 ratio); a temperature of 2."""
    logprobs = torch.full((1, 1), LOG_HALF, dtype=torch.float64)
    inputs = (logprobs, logprobs - math.log(ratio), torch.full_like(logprobs, advantage), mask_of(1), 2 * logprobs)
    found = loss_of(kind, *inputs)
    slope = gradient_of(kind, *inputs).item()
    assert (found.loss.item(), slope, found.clip_fraction.item()) == pytest.approx((loss, gradient, decided), rel=1e-12)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_on_policy_every_method_takes_the_policy_gradient(aggregation: str) -> None:
    """At ratio 1, with the reference that sampled: -A times a token's share, APA's by lambda / 2."""
    on, noise, advantages = drawn(5, 1, 3, tensors=2)
    old = -3.0 - noise.abs()  # so far below 0 that no target of APA's is cut
    share = torch.autograd.grad(
        AGGREGATIONS[aggregation](
            x := torch.zeros_like(old, requires_grad=True), on, denominators(on, fixed_length=10)
        ),
        x,
    )[0]
    for kind, scale in {
        "clip": 1,
        "unclipped": 1,
        "reinforce": 1,
        "cispo": 1,
        "gspo": 1,
        "apa": TEMPERATURE / 2,
    }.items():
        found = gradient_of(kind, old, old, advantages, on, old, aggregation=aggregation)
        close(scale * found, -advantages * share, rtol=1e-12, atol=1e-15)
        logged = loss_of(kind, old, old, advantages, on, old, aggregation=aggregation)
        assert (float(logged.clip_fraction), float(logged.drift.approx_kl), float(logged.drift.ratio_max)) == (0, 0, 1)


def test_on_policy_gspo_is_grpo() -> None:
    """One advantage a response, mean over tokens, then over responses: loss and gradient."""
    on, old, noise = drawn(5, 1, 9, 2, tensors=2)
    advantages = noise[:, :1].expand_as(old)
    for ask in (gradient_of, lambda *inputs, **changes: loss_of(*inputs, **changes).loss):
        found, expected = (ask(k, old, old, advantages, on, aggregation="sequence-mean") for k in ("gspo", "clip"))
        close(found, expected, rtol=0, atol=1e-10)


def test_gspo_has_the_gradient_of_the_responses_ratio() -> None:
    """Off policy, against the paper's own form: mean_i min(s_i A_i, clip(s_i) A_i), s_i by the response's mean."""
    on, old, step, noise = drawn(5, 1, 9, 2, 7, 4, tensors=3)
    advantages = noise[:, :1].expand_as(old)
    logprobs = (old + 0.5 * step).requires_grad_()
    ratio = (torch.where(on, logprobs - old, 0.0).sum(dim=1) / on.sum(dim=1)).exp()
    expected = -torch.minimum(ratio * noise[:, 0], ratio.clamp(0.8, 1.2) * noise[:, 0]).mean()
    found = loss_of("gspo", logprobs, old, advantages, on, aggregation="sequence-mean")
    close(found.loss, expected, rtol=1e-12, atol=0)
    (slope,), (expected_slope,) = (torch.autograd.grad(x, logprobs) for x in (found.loss, expected))
    close(slope, expected_slope, rtol=1e-12, atol=1e-16)
    frozen = (slope[on.nonzero()[:, 0].unique()] == 0).all(dim=1)
    assert 0 < int(frozen.sum()) < len(on), "the draw must hold clipped responses and others"


def test_gspo_judges_a_response_as_a_whole() -> None:
    """Ratios 2 and 1/2 make a response as likely as before: nothing is clipped, and both tokens weigh 1."""
    logprobs = torch.tensor([[math.log(2), -math.log(2)]], dtype=torch.float64)
    inputs = (logprobs, torch.zeros(1, 2), torch.ones(1, 2), mask_of(2))
    close(gradient_of("gspo", *inputs), torch.tensor([[-0.5, -0.5]], dtype=torch.float64))
    assert float(loss_of("gspo", *inputs).clip_fraction) == 0
    assert float(loss_of("gspo", *inputs).drift.ratio_max) == 2, "what is logged is the token's"


@pytest.mark.parametrize(("kind", "weight"), [("clip", 0.01), ("gspo", 0.01), ("cispo", 0.01)])
def test_a_low_clip_of_one_leaves_the_low_side_open(kind: str, weight: float) -> None:
    """Ratio 0.01, A = -1: PPO's clip of 0.2 would stop it, CISPO's would weigh it 0.8."""
    logprobs = torch.full((1, 1), math.log(0.01), dtype=torch.float64)
    inputs = (logprobs, torch.zeros(1, 1), -torch.ones(1, 1), mask_of(1))
    assert gradient_of(kind, *inputs, clip_low=1.0).item() == pytest.approx(weight)
    assert gradient_of(kind, *inputs).item() == pytest.approx(0.8 if kind == "cispo" else 0.0)
    assert float(loss_of(kind, *inputs, clip_low=1.0).clip_fraction) == 0


@pytest.mark.parametrize(("kind", "slope"), [("clip", 0.0), ("gspo", 0.0), ("cispo", -1.28)])
def test_the_high_clip_has_a_limit_of_its_own(kind: str, slope: float) -> None:
    """Ratio 1.25 is within clip_high = 0.28 whatever clip_low; 1.5 is not."""
    for ratio, expected in ((1.25, -1.25), (1.5, slope)):
        logprobs = torch.full((1, 1), math.log(ratio), dtype=torch.float64)
        found = gradient_of(kind, logprobs, torch.zeros(1, 1), torch.ones(1, 1), mask_of(1), clip_high=0.28)
        assert found.item() == pytest.approx(expected)


def test_limits_beyond_reach_make_ppo_and_espo_one() -> None:
    on, logprobs, old, advantages = drawn(9, 4, tensors=3)
    wide: dict[str, Any] = {"clip_low": 1.0, "clip_high": 1e9}
    inputs = (logprobs, old, advantages, on)
    close(gradient_of("clip", *inputs, **wide), gradient_of("unclipped", *inputs), rtol=0, atol=0)
    assert not torch.equal(gradient_of("clip", *inputs), gradient_of("unclipped", *inputs))


@every_kind
def test_the_dual_clip_is_ppos_alone(kind: str) -> None:
    on, logprobs, old, advantages, ref = drawn(9, 4, tensors=4)
    plain, dual = (loss_of(kind, logprobs, old, advantages, on, ref, dual_clip=c).loss for c in (None, 1.01))
    assert torch.equal(plain, dual) == (kind != "clip")


@every_kind
def test_what_is_logged_of_the_ratio_is_the_same_for_every_kind(kind: str) -> None:
    """Ratios 1.5, 0.5, 1.25 to the policy that sampled."""
    logprobs = torch.tensor([[math.log(1.5), math.log(0.5), math.log(1.25)]], dtype=torch.float64, requires_grad=True)
    found = loss_of(kind, logprobs, torch.zeros(1, 3), torch.ones(1, 3), mask_of(3), logprobs)
    assert float(found.drift.approx_kl) == pytest.approx((0.5 - 0.5 + 0.25 - math.log(1.5 * 0.5 * 1.25)) / 3)
    assert float(found.drift.ratio_max) == pytest.approx(1.5)
    for logged in (found.clip_fraction, found.drift.approx_kl, found.drift.ratio_max):
        assert not logged.requires_grad


@every_kind
def test_masked_tokens_have_no_part_in_any_loss_even_if_not_a_number(kind: str) -> None:
    on, *clean = drawn(4, 2, tensors=4)
    spoilt = [torch.where(on, x, torch.nan) for x in clean]
    for inputs in (spoilt, clean):
        inputs.insert(3, on)
    found, expected = (loss_of(kind, *inputs, dual_clip=3.0) for inputs in (spoilt, clean))
    for name in ("loss", "clip_fraction", "drift.approx_kl", "drift.ratio_max"):
        of = operator.attrgetter(name)
        close(of(found), of(expected), rtol=0, atol=0)
    gradient = gradient_of(kind, *spoilt)
    close(gradient, gradient_of(kind, *clean), rtol=0, atol=0)
    assert (gradient[~on] == 0).all()
    assert (gradient[on] != 0).any()


@every_kind
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_add_up_whatever_the_kind(kind: str, aggregation: str) -> None:
    on, *inputs = drawn(5, 1, 9, 2, 7, tensors=4)
    inputs.insert(3, on)
    whole: dict[str, Any] = {"aggregation": aggregation, "over": denominators(on, fixed_length=12)}
    rows = [slice(0, 1), slice(1, 4), slice(4, 5)]
    pieces = [loss_of(kind, *(x[p] for x in inputs), **whole) for p in rows]
    expected = loss_of(kind, *inputs, **whole)
    for name in ("loss", "clip_fraction", "drift.approx_kl"):
        of = operator.attrgetter(name)
        close(sum(of(piece) for piece in pieces), of(expected), rtol=1e-13, atol=1e-15)


def apa_over_all_actions(logits: Tensor, ref: Tensor, advantages: Tensor, temperature: float) -> AggregatedLoss:
    """APA's expected loss where each of the actions has the same probability to be sampled: one token for each."""
    on = torch.ones(1, len(ref), dtype=torch.bool)
    logprobs, old, weights = (x[None] for x in (logits.log_softmax(dim=0), torch.zeros_like(ref), advantages))
    return loss_of("apa", logprobs, old, weights, on, ref[None], advantage_temperature=temperature)


def fitted(ref: Tensor, advantages: Tensor, temperature: float) -> Tensor:
    """Log-probabilities that minimise APA's expected loss, found from the reference."""
    logits = ref.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = apa_over_all_actions(logits, ref, advantages, temperature).loss
        loss.backward()
        return loss

    optimiser.step(closure)
    return logits.detach().log_softmax(dim=0)


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_apa_with_a_normalised_target_ends_at_it(temperature: float) -> None:
    """Advantages less lambda log sum pi_ref exp(A / lambda): then pi_ref exp(A / lambda) is a distribution."""
    _, noise, ref = (x.flatten() for x in drawn(8, tensors=2))
    ref = ref.log_softmax(dim=0)
    advantages = noise - temperature * (ref + noise / temperature).logsumexp(dim=0)
    target = ref + advantages / temperature
    close(target.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    assert float(apa_over_all_actions(target, ref, advantages, temperature).loss) < 1e-28
    close(fitted(ref, advantages, temperature), target, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("spread", "temperature", "low", "high"), [(0.1, 1.0, 0, 1e-5), (0.5, 1.0, 5e-4, 2e-3), (1.0, 0.1, 0.5, 3.0)]
)
def test_apa_misses_its_target_as_the_spread_of_advantages_nears_lambda(
    spread: float, temperature: float, low: float, high: float
) -> None:
    """KL(normalised target || minimiser), advantages centred but not normalised; the assumption is Z = 1."""
    _, noise = (x.flatten() for x in drawn(16, tensors=1))
    advantages = spread * (noise - noise.mean()) / noise.std(correction=0)
    ref = torch.full_like(noise, -math.log(16))
    target = (advantages / temperature).log_softmax(dim=0)
    kl = float((target.exp() * (target - fitted(ref, advantages, temperature))).sum())
    assert low <= kl < high


def test_apa_without_advantage_goes_back_to_the_reference_and_ppo_stays() -> None:
    """log pi - log pi_ref = log 2 on both of two tokens: the gradient is 2 log 2, shared."""
    ref = torch.full((1, 2), math.log(0.25), dtype=torch.float64)
    logprobs, nothing = ref + math.log(2), torch.zeros_like(ref)
    close(gradient_of("apa", logprobs, logprobs, nothing, mask_of(2), ref), torch.full_like(ref, math.log(2)))
    close(gradient_of("clip", logprobs, logprobs, nothing, mask_of(2), ref), nothing)
    close(gradient_of("apa", ref, logprobs, nothing, mask_of(2), ref), nothing)


@every_kind
def test_who_sampled_matters_but_to_apa_awr_and_reinforce(kind: str) -> None:
    on, logprobs, old, advantages, ref = drawn(5, 3, tensors=4)
    wide: dict[str, Any] = {"clip_low": 1.0, "clip_high": 100.0}
    one, other = (loss_of(kind, logprobs, old + shift, advantages, on, ref, **wide) for shift in (0.0, 0.05))
    assert torch.equal(one.loss, other.loss) == (kind in {"apa", "awr", "reinforce"})
    assert one.drift.approx_kl != other.drift.approx_kl


@every_kind
def test_the_reference_matters_to_apa_alone(kind: str) -> None:
    on, logprobs, old, advantages, ref = drawn(5, 3, tensors=4)
    one, other = (loss_of(kind, logprobs, old, advantages, on, r) for r in (ref, ref - 0.5))
    assert torch.equal(one.loss, other.loss) == (kind != "apa")


LOSSES_READ = {  # linear in advantages (for one sign of them), the ratio's clip, dual_clip, temperature
    "clip": (True, True, True, False),
    "unclipped": (True, False, False, False),
    "reinforce": (True, False, False, False),
    "apa": (False, False, False, True),
    "awr": (False, False, False, True),
    "gspo": (True, True, False, False),
    "cispo": (True, True, False, False),
}


@every_kind
def test_each_loss_reads_what_its_record_says(kind: str) -> None:
    """A new loss has its line here, and its record in vcppo/settings/losses.py."""
    on, logprobs, old, advantages, ref = drawn(5, 3, tensors=4, seed=3)
    logprobs, old, ref = -logprobs.abs() - 0.1, -old.abs() - 0.1, -ref.abs() - 0.1

    def loss(scale: float = 1.0, **changes: Any) -> float:
        return float(loss_of(kind, logprobs, old, scale * advantages, on, ref, **changes).loss)

    linear, clips, dual, temperature = LOSSES_READ[kind]
    record = POLICY_LOSSES[kind]
    assert (loss(3.0) == pytest.approx(3 * loss())) == linear == record.linear
    assert (loss(clip_low=1e-6, clip_high=1e-6) != loss()) == clips == record.clips_ratio
    assert clips == ("clip_low" in record.settings) == ("clip_high" in record.settings)
    assert (loss(dual_clip=1.0001) != loss()) == dual == ("dual_clip" in record.settings)
    assert (loss(advantage_temperature=7.0) != loss()) == temperature == ("advantage_temperature" in record.settings)
