"""Identities that hold for every batch: drawn lengths, discounts and lambdas, float64."""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vcppo.maths.advantages import gae, group_advantages, monte_carlo_returns, whiten
from vcppo.maths.diagnostics import by_position, calibration, explained_variance, real_reward_share, value_bias
from vcppo.maths.losses import (
    AGGREGATIONS,
    KL_ESTIMATORS,
    denominators,
    policy_loss,
    preference_pull,
    ratio_deviation,
)
from vcppo.maths.statistics import avg_at_k, pass_at_k, probability_of_improvement
from vcppo.settings.losses import POLICY_LOSSES, names_of

close = torch.testing.assert_close
unit = st.one_of(st.sampled_from([0.0, 0.95, 1.0]), st.floats(0, 1))
quick = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass(frozen=True)
class Batch:
    rewards: Tensor
    values: Tensor
    response_mask: Tensor


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """1 to 4 responses of 1 to 140 tokens, padded a little further with NaN."""
    lengths = draw(st.lists(st.integers(1, 140), min_size=1, max_size=4))
    width = max(lengths) + draw(st.integers(0, 5))
    on = torch.arange(width) < torch.tensor(lengths)[:, None]
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.randn(2, *on.shape, generator=rng, dtype=torch.float64)
    rewards, values = torch.where(on, noise, torch.nan)
    return Batch(rewards, values, on)


def same(found: Tensor, expected: Tensor) -> None:
    close(found, expected, rtol=1e-10, atol=1e-10)


@quick
@given(batches())
def test_lambda_one_is_return_minus_value(b: Batch) -> None:
    found = gae(b.rewards, b.values, b.response_mask, gamma=1.0, gae_lambda=1.0)
    tails = torch.where(b.response_mask, b.rewards, 0.0).flip(1).cumsum(1).flip(1)
    same(found, torch.where(b.response_mask, tails - b.values, 0.0))


@quick
@given(batches(), unit, unit)
def test_advantages_obey_their_recurrence(b: Batch, gamma: float, gae_lambda: float) -> None:
    """A_t = r_t + gamma V_{t+1} - V_t + gamma lambda A_{t+1}."""
    found = gae(b.rewards, b.values, b.response_mask, gamma=gamma, gae_lambda=gae_lambda)
    values = torch.where(b.response_mask, b.values, 0.0)
    later = [torch.nn.functional.pad(x[:, 1:], (0, 1)) for x in (values, found)]
    expected = b.rewards + gamma * later[0] - values + gamma * gae_lambda * later[1]
    same(found, torch.where(b.response_mask, expected, 0.0))


@quick
@given(batches(), unit, unit)
def test_a_perfect_critic_leaves_no_advantage(b: Batch, gamma: float, gae_lambda: float) -> None:
    values = monte_carlo_returns(b.rewards, b.response_mask, gamma=gamma)
    same(gae(b.rewards, values, b.response_mask, gamma=gamma, gae_lambda=gae_lambda), torch.zeros_like(values))


@quick
@given(batches(), unit, unit)
def test_advantages_are_linear_in_rewards_and_values(b: Batch, gamma: float, gae_lambda: float) -> None:
    def of(rewards: Tensor, values: Tensor) -> Tensor:
        return gae(rewards, values, b.response_mask, gamma=gamma, gae_lambda=gae_lambda)

    same(of(3 * b.rewards, -b.values), 3 * of(b.rewards, 0 * b.values) - of(0 * b.rewards, b.values))


@quick
@given(batches(), unit, st.lists(unit, min_size=4, max_size=4))
def test_each_row_goes_by_its_own_lambda_and_sees_no_other(b: Batch, gamma: float, lambdas: list[float]) -> None:
    rows = len(b.values)
    each = torch.tensor(lambdas[:rows], dtype=torch.float64)
    together = gae(b.rewards, b.values, b.response_mask, gamma=gamma, gae_lambda=each)
    for row in range(rows):
        length = int(b.response_mask[row].sum())
        alone = (x[[row], :length] for x in (b.rewards, b.values, b.response_mask))
        same(together[[row], :length], gae(*alone, gamma=gamma, gae_lambda=lambdas[row]))
        assert (together[row, length:] == 0).all()


@quick
@given(batches(), st.floats(-1e3, 1e3), st.floats(0.01, 1e3))
def test_whitening_forgets_scale_and_place(b: Batch, shift: float, scale: float) -> None:
    white = whiten(b.values, b.response_mask)
    assert white.sum() == pytest.approx(0, abs=1e-9)
    if b.response_mask.sum() > 2:
        moved = whiten(shift + scale * b.values, b.response_mask)
        close(moved, white, rtol=1e-3, atol=1e-3)  # 1e-8 beside the variance shows where the scale is small


@quick
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-100, 100, width=32)), min_size=1, max_size=20), st.booleans())
def test_every_groups_advantages_add_up_to_nothing(responses: list[tuple[int, float]], scale: bool) -> None:
    group = torch.tensor([g for g, _ in responses])
    scores = torch.tensor([s for _, s in responses], dtype=torch.float64)
    found = group_advantages(scores, group, torch.ones(len(scores), 1, dtype=torch.bool), scale=scale)[:, 0]
    for g in group.unique():
        members = found[group == g]
        assert float(members.sum()) == pytest.approx(0, abs=1e-6)
        if scores[group == g].unique().numel() == 1:
            assert (members == 0).all()


@quick
@given(
    batches(),
    st.sampled_from(sorted(AGGREGATIONS)),
    st.sampled_from(sorted(names_of(lambda loss: not loss.pairs))),
    st.integers(1, 3),
)
def test_micro_batches_add_up(b: Batch, aggregation: str, kind: str, cut: int) -> None:
    over = denominators(b.response_mask, fixed_length=50)
    parts = [slice(0, cut), slice(cut, None)] if cut < len(b.values) else [slice(None)]

    def loss(rows: slice) -> Tensor:
        x = [tensor[rows] for tensor in (b.values, 0 * b.values, b.rewards, b.response_mask)]
        limits: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 3.0, "advantage_temperature": 1.0}
        losses = POLICY_LOSSES[kind].compute
        return policy_loss(
            *x, token_losses=losses, ref_logprobs=x[0] - 1, **limits, aggregation=aggregation, over=over
        ).loss

    close(torch.stack([loss(rows) for rows in parts]).sum(), loss(slice(None)), rtol=1e-12, atol=1e-13)


@quick
@given(batches(), st.sampled_from(["clip", "unclipped", "cispo", "apa", "gspo"]), st.floats(0.1, 10))
def test_on_policy_methods_are_one(b: Batch, kind: str, temperature: float) -> None:
    """At ratio 1 and a reference low enough to cut no target: -A over the tokens, APA's by lambda / 2."""
    on, old = b.response_mask, b.values - 1000.0
    logprobs = old.clone().requires_grad_()
    limits: dict[str, Any] = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": None}
    result = policy_loss(
        logprobs,
        old,
        b.rewards,
        on,
        token_losses=POLICY_LOSSES[kind].compute,
        ref_logprobs=old,
        **limits,
        advantage_temperature=temperature,
        aggregation="token-mean",
        over=denominators(on, fixed_length=1),
    )
    (gradient,) = torch.autograd.grad(result.loss * (temperature / 2 if kind == "apa" else 1.0), logprobs)
    same(gradient, torch.where(on, -b.rewards / on.sum(), 0.0))
    assert float(result.clip_fraction) == 0


@quick
@given(batches(), batches(), st.floats(0.01, 10))
def test_preference_weights_are_minus_the_gradient_and_cancel_in_each_pair(b: Batch, c: Batch, beta: float) -> None:
    """Each batch's responses against each other's, shortened to as many rows; autograd through the loss itself."""
    rows, width = min(len(b.values), len(c.values)), min(b.values.shape[1], c.values.shape[1])
    chosen, rejected = (Batch(*(x[:rows, :width] for x in vars(batch).values())) for batch in (b, c))
    on = torch.stack((chosen.response_mask, rejected.response_mask), dim=1).flatten(0, 1)
    logprobs = torch.stack((chosen.values, rejected.values), dim=1).flatten(0, 1).requires_grad_()
    ref = torch.stack((chosen.rewards, rejected.rewards), dim=1).flatten(0, 1)
    gains = torch.where(on, logprobs - ref, 0.0).sum(dim=1)
    margins = beta * (gains[0::2] - gains[1::2])
    loss = torch.logaddexp(torch.zeros_like(margins), -margins).mean()
    found = preference_pull(logprobs, ref, on, beta=beta)
    same(found.loss, loss.detach())
    same(torch.where(on, -found.weights[:, None], 0.0), torch.autograd.grad(loss, logprobs)[0])
    assert (found.weights[0::2] >= 0).all()
    assert (found.weights[0::2] == -found.weights[1::2]).all()


@quick
@given(st.lists(st.integers(1, 9), min_size=2, max_size=8), st.integers(0, 2**31))
def test_expected_deviation_is_the_distance_of_the_distributions(counts: list[int], seed: int) -> None:
    """D over tokens drawn in proportion to pi_old = sum_a |pi(a) - pi_old(a)|, at most sqrt(2 KL) (Pinsker)."""
    old = torch.tensor(counts, dtype=torch.float64).log().log_softmax(dim=0)
    new = torch.randn(len(counts), generator=torch.Generator().manual_seed(seed), dtype=torch.float64).log_softmax(
        dim=0
    )
    sampled = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))[None]
    on = torch.ones_like(sampled, dtype=torch.bool)
    found = ratio_deviation(new[sampled], old[sampled], new[sampled], on, scope="tokens", entropy_share=1.0)
    close(found, (new.exp() - old.exp()).abs().sum(), rtol=0, atol=1e-12)
    assert found <= math.sqrt(2 * float((old.exp() * (old - new)).sum())) + 1e-12


@quick
@given(st.integers(2, 10), st.integers(0, 2**31))
def test_estimators_average_to_the_kl(outcomes: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    p, q = torch.randn(2, outcomes, generator=rng, dtype=torch.float64).log_softmax(dim=-1)
    exact = (p.exp() * (p - q)).sum()
    for name in ("k1", "k3"):
        close((p.exp() * KL_ESTIMATORS[name](p, q)).sum(), exact)
    assert (KL_ESTIMATORS["k3"](p, q) >= -1e-15).all()


@quick
@given(batches(), st.integers(1, 50), st.booleans())
def test_bins_hold_every_token_and_average_to_the_whole(b: Batch, width: int, from_end: bool) -> None:
    table = by_position(b.values, b.rewards, b.response_mask, width=width, from_end=from_end)
    n = np.array(table["n"])
    assert n.sum() == int(b.response_mask.sum())
    assert (n > 0).all()
    assert len({len(column) for column in table.values()}) == 1
    overall = value_bias(b.values, b.rewards, b.response_mask)
    assert (n * table["value_bias"]).sum() / n.sum() == pytest.approx(overall, abs=1e-9)
    assert sum(calibration(b.values, b.rewards, b.response_mask, bins=width)["n"]) == n.sum()


@quick
@given(batches(), st.floats(-10, 10))
def test_explained_variance_does_not_see_a_constant_and_is_at_most_one(b: Batch, shift: float) -> None:
    found = explained_variance(b.values, b.rewards, b.response_mask)
    moved = explained_variance(b.values + shift, b.rewards, b.response_mask)
    if b.response_mask.sum() < 2:
        assert math.isnan(found)
        assert math.isnan(moved)
    else:
        assert found <= 1
        assert moved == pytest.approx(found, rel=1e-6, abs=1e-6)


@quick
@given(batches(), unit, unit)
def test_the_share_of_the_real_reward_is_what_a_unit_reward_adds(b: Batch, gamma: float, gae_lambda: float) -> None:
    """Advantages are linear: a reward of 1 at the end raises them by exactly the share, whatever the critic."""
    on = b.response_mask
    unit_reward = torch.nn.functional.one_hot(on.sum(dim=1) - 1, on.shape[1]).to(torch.float64)
    arguments = {"gamma": gamma, "gae_lambda": gae_lambda}
    raised = gae(b.rewards + unit_reward, b.values, on, **arguments) - gae(b.rewards, b.values, on, **arguments)
    assert float(raised[on].mean()) == pytest.approx(real_reward_share(on, **arguments), abs=1e-9)


@quick
@given(st.integers(1, 60), st.data())
def test_pass_at_k_rises_from_avg_to_certainty(samples: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, samples))
    curve = [float(pass_at_k([correct], samples, k)[0]) for k in range(1, samples + 1)]
    assert curve[0] == pytest.approx(float(avg_at_k([correct], samples)[0]), rel=1e-12)
    assert all(before <= after + 1e-12 for before, after in itertools.pairwise(curve))
    assert curve[-1] == (1.0 if correct else 0.0)


@quick
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9), st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_probability_of_improvement_depends_on_order_only(x: list[int], y: list[int]) -> None:
    found = probability_of_improvement(x, y)
    assert 0 <= found <= 1
    assert found == pytest.approx(1 - probability_of_improvement(y, x))
    assert found == pytest.approx(probability_of_improvement(np.exp(x), np.exp(y)))
