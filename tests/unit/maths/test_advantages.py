"""Advantages and value targets: closed forms, identities, and the textbook's loop."""

import pytest
import torch
from torch import Tensor

from vcppo.maths.advantages import (
    discounted_suffix_sum,
    gae,
    gae_by_recursion,
    group_advantages,
    length_adaptive_lambda,
    monte_carlo_returns,
    q_advantages,
    released_dvpo_advantages,
    rloo_advantages,
    segment_advantages,
    whiten,
    whiten_rows,
)

close = torch.testing.assert_close


def mask_of(*lengths: int, width: int | None = None) -> Tensor:
    return torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]


def outcome(response_mask: Tensor, scores: Tensor) -> Tensor:
    """The score on each row's last True cell."""
    last = response_mask.sum(dim=1) - 1
    return torch.zeros(response_mask.shape, dtype=scores.dtype).scatter(1, last[:, None], scores[:, None])


def drawn(*lengths: int, width: int | None = None, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, values, mask: float64, a reward on every token."""
    rng = torch.Generator().manual_seed(seed)
    response_mask = mask_of(*lengths, width=width)
    rewards, values = torch.randn(2, *response_mask.shape, generator=rng, dtype=torch.float64)
    return rewards, values, response_mask


def test_with_gamma_one_tenth_the_digits_are_the_rewards() -> None:
    r, on = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    close(gae(r, 0 * r, on, gamma=0.1, gae_lambda=1.0), torch.tensor([[1.23, 2.3, 3.0]]))


def test_the_recursion_by_pencil() -> None:
    """delta = 1 + 0.5 * 4 - 2, then 2 + 0 - 4; A_1 = -2, A_0 = 1 + 0.5 * 0.5 * -2; nothing of the masked cell."""
    r, v, on = torch.tensor([[1.0, 2.0, 9.0]]), torch.tensor([[2.0, 4.0, 7.0]]), torch.tensor([[True, True, False]])
    close(gae_by_recursion(r, v, on, gamma=0.5, gae_lambda=0.5), torch.tensor([[0.5, -2.0, 0.0]]))


def test_lambda_and_gamma_decay_alike_where_the_critic_is_zero() -> None:
    r, on = torch.tensor([[1.0, 2.0, 3.0]]), torch.ones(1, 3, dtype=torch.bool)
    close(gae(r, 0 * r, on, gamma=1.0, gae_lambda=0.1), torch.tensor([[1.23, 2.3, 3.0]]))


def test_constant_critic_and_one_reward_give_the_published_first_advantage() -> None:
    """T = 6, V = 0.5, R = 1, lambda = 0.95: only the last delta is not 0, so A_0 = 0.5 * 0.95^5 = 0.3869."""
    on = mask_of(6)
    advantages = gae(outcome(on, torch.ones(1)), torch.full((1, 6), 0.5), on, gamma=1.0, gae_lambda=0.95)
    assert round(float(advantages[0, 0]), 4) == 0.3869


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 63, 64, 65, 200, 1024, 1025, 5000])
def test_agrees_with_the_textbook_loop(width: int, gae_lambda: float) -> None:
    rewards, values, on = drawn(width, max(1, width // 2), 1, width=width, seed=width)
    expected = gae_by_recursion(rewards, values, on, gamma=0.99, gae_lambda=gae_lambda)
    close(gae(rewards, values, on, gamma=0.99, gae_lambda=gae_lambda), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("width", [1, 33, 1100])
def test_a_lambda_for_each_row_equals_looping_over_rows(width: int) -> None:
    rewards, values, on = drawn(width, width, max(1, width - 3), 1, width=width)
    lambdas = [0.0, 0.5, 0.95, 1.0]
    together = gae(rewards, values, on, gamma=0.9, gae_lambda=torch.tensor(lambdas, dtype=torch.float64))
    for row, gae_lambda in enumerate(lambdas):
        alone = (x[row : row + 1] for x in (rewards, values, on))
        expected = gae_by_recursion(*alone, gamma=0.9, gae_lambda=gae_lambda)
        close(together[row : row + 1], expected, rtol=1e-11, atol=1e-11)


def test_rows_beyond_one_block_are_the_same_as_each_row_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards, values, on = drawn(7, 40, 1, 33, 20)
    lambdas = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)
    monkeypatch.setattr("vcppo.maths.advantages.CELLS_AT_ONCE", 80)  # two rows a block, and one left over
    close(
        gae(rewards, values, on, gamma=1.0, gae_lambda=lambdas),
        gae_by_recursion(rewards, values, on, gamma=1.0, gae_lambda=lambdas),
    )


def test_lambda_one_gives_reward_minus_value_whatever_the_critic_says() -> None:
    _, values, on = drawn(200, 65, 1)
    scores = torch.tensor([1.0, -1.0, 0.25], dtype=torch.float64)
    expected = torch.where(on, scores[:, None] - values, 0.0)
    close(gae(outcome(on, scores), values, on, gamma=1.0, gae_lambda=1.0), expected)


def test_lambda_zero_gives_the_one_step_error() -> None:
    rewards, values, on = drawn(3)
    v, r = values[0].tolist(), rewards[0].tolist()
    deltas = [r[0] + 0.9 * v[1] - v[0], r[1] + 0.9 * v[2] - v[1], r[2] - v[2]]
    close(gae(rewards, values, on, gamma=0.9, gae_lambda=0.0)[0].tolist(), deltas)


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_perfect_critic_leaves_no_advantage(gae_lambda: float) -> None:
    rewards, _, on = drawn(70, 12, 1)
    values = monte_carlo_returns(rewards, on, gamma=0.97)
    close(gae(rewards, values, on, gamma=0.97, gae_lambda=gae_lambda), torch.zeros_like(values), rtol=0, atol=1e-12)


def test_constant_critic_gives_a_geometric_series() -> None:
    """No reward, V = c: every delta is c (gamma - 1), the last -c."""
    on = mask_of(100)
    c, gamma, gae_lambda = 2.0, 0.9, 0.8
    q, to_come = gamma * gae_lambda, torch.arange(99, -1, -1, dtype=torch.float64)
    expected = c * (gamma - 1) * (1 - q**to_come) / (1 - q) - c * q**to_come
    values = torch.full((1, 100), c, dtype=torch.float64)
    close(gae(0 * values, values, on, gamma=gamma, gae_lambda=gae_lambda)[0], expected)


def test_what_lies_under_false_changes_nothing_and_comes_out_zero() -> None:
    rewards, values, on = drawn(5, 64, 1, width=130)
    spoilt = [torch.where(on, x, torch.nan) for x in (rewards, values)]
    found = gae(spoilt[0], spoilt[1], on, gamma=0.99, gae_lambda=0.95)
    close(found, gae(rewards, values, on, gamma=0.99, gae_lambda=0.95), rtol=0, atol=0)
    assert (found[~on] == 0).all()


def test_rows_do_not_see_each_other() -> None:
    rewards, values, on = drawn(40, 40, 40)
    before = gae(rewards, values, on, gamma=1.0, gae_lambda=0.95)
    rewards[1], values[1] = 100.0, torch.nan
    after = gae(rewards, values, on, gamma=1.0, gae_lambda=0.95)
    close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)


def test_padded_batch_equals_each_row_alone() -> None:
    rewards, values, on = drawn(3, 90, 1, 64, width=140)
    together = gae(rewards, values, on, gamma=0.98, gae_lambda=0.9)
    for row, length in enumerate([3, 90, 1, 64]):
        alone = gae(rewards[[row], :length], values[[row], :length], on[[row], :length], gamma=0.98, gae_lambda=0.9)
        close(together[[row], :length], alone, rtol=1e-12, atol=1e-12)


def test_one_token_is_worth_its_reward_minus_its_value() -> None:
    on = mask_of(1, width=4)
    found = gae(torch.tensor([[3.0, 9, 9, 9]]), torch.tensor([[1.0, 9, 9, 9]]), on, gamma=0.5, gae_lambda=0.5)
    close(found, torch.tensor([[2.0, 0, 0, 0]]))


def test_where_the_reward_sits_matters_below_lambda_one_only() -> None:
    """One token later, in the padding, the reward is not seen at all; one earlier it decays less."""
    on = mask_of(6)
    values = torch.full((1, 6), 0.5)
    last, before_last = torch.eye(6)[[5]], torch.eye(6)[[4]]
    first = [float(gae(r, values, on, gamma=1.0, gae_lambda=0.95)[0, 0]) for r in (last, before_last)]
    assert first == pytest.approx([0.5 * 0.95**5, 0.95**4 - 0.5 * 0.95**5], rel=1e-6)
    first = [float(gae(r, values, on, gamma=1.0, gae_lambda=1.0)[0, 0]) for r in (last, before_last)]
    assert first == pytest.approx([0.5, 0.5], rel=1e-6)


def test_arguments_are_left_as_they_were() -> None:
    rewards, values, on = drawn(64, 10, width=64)
    kept = [x.clone() for x in (rewards, values, on)]
    gae(rewards, values, on, gamma=0.9, gae_lambda=0.9)
    for now, then in zip((rewards, values, on), kept, strict=True):
        close(now, then, rtol=0, atol=0)


def test_float32_stays_within_float32_rounding_on_a_long_response() -> None:
    rewards, values, on = drawn(8192)
    exact = gae(rewards, values, on, gamma=1.0, gae_lambda=1.0)
    found = gae(rewards.float(), values.float(), on, gamma=1.0, gae_lambda=1.0)
    assert found.dtype == torch.float32
    close(found.double(), exact, rtol=1e-5, atol=1e-4)  # sums of 8192 draws reach 100s: 1e-4 is a few of their ulps


def test_suffix_sum_without_decay_is_a_reversed_cumulative_sum() -> None:
    x = torch.arange(1.0, 101.0, dtype=torch.float64)[None]
    close(discounted_suffix_sum(x, torch.tensor(1.0)), x.flip(1).cumsum(1).flip(1))


def test_monte_carlo_returns_are_the_outcome_on_every_token() -> None:
    on = mask_of(3, 1, width=4)
    returns = monte_carlo_returns(outcome(on, torch.tensor([1.0, -1.0])), on, gamma=1.0)
    close(returns, torch.tensor([[1.0, 1, 1, 0], [-1, 0, 0, 0]]))


def test_monte_carlo_returns_discount_what_is_still_to_come() -> None:
    on = mask_of(3)
    close(monte_carlo_returns(torch.tensor([[1.0, 2, 4]]), on, gamma=0.5), torch.tensor([[3.0, 4, 4]]))


def test_value_targets_at_lambda_one_are_monte_carlo_returns_whatever_the_critic_says() -> None:
    rewards, values, on = drawn(50, 20)
    targets = gae(rewards, values, on, gamma=0.99, gae_lambda=1.0) + values
    close(targets[on], monte_carlo_returns(rewards, on, gamma=0.99)[on])


def test_length_adaptive_lambda_follows_the_paper() -> None:
    """alpha = 0.05: 100 tokens give 1 - 1/5, 1000 give 1 - 1/50; at 20 tokens and below it is 0."""
    lambdas = length_adaptive_lambda(mask_of(100, 1000, 20, 3, 0), alpha=0.05)
    close(lambdas, torch.tensor([0.8, 0.98, 0.0, 0.0, 0.0]))


def test_group_advantages_are_standard_scores_within_the_group() -> None:
    """Scores 1, 0 have mean 0.5 and unbiased std sqrt(0.5); the other group does not enter."""
    found = group_advantages(
        torch.tensor([1.0, 50.0, 0.0, 10.0]), torch.tensor([7, 2, 7, 2]), mask_of(2, 3, 1, 3), scale=True
    )
    high, far = 0.5 / (0.5**0.5 + 1e-6), 20.0 / (800**0.5 + 1e-6)
    close(found, torch.tensor([[high, high, 0], [far, far, far], [-high, 0, 0], [-far, -far, -far]]))


def test_without_scale_only_the_mean_is_taken_away() -> None:
    found = group_advantages(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([0, 0, 0]), mask_of(1, 1, 1), scale=False)
    close(found, torch.tensor([[1.0], [-1.0], [0.0]]))


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("score", [1.0, 0.1, -0.7, 1000.1, 16777217.0])
def test_equal_scores_have_no_advantage(score: float, scale: bool) -> None:
    """Exactly 0: a mean that rounds must not be blown up by dividing with the std it makes."""
    scores = torch.full((7,), score)
    found = group_advantages(scores, torch.zeros(7, dtype=torch.long), mask_of(*[2] * 7), scale=scale)
    assert (found == 0).all()


@pytest.mark.parametrize("scale", [True, False])
def test_a_group_of_one_has_no_advantage(scale: bool) -> None:
    found = group_advantages(torch.tensor([0.3, 5.0]), torch.tensor([4, 9]), mask_of(3, 2), scale=scale)
    assert (found == 0).all()


def test_leave_one_out_takes_away_the_mean_of_the_others() -> None:
    """3, 1, 2: 3 - 1.5, 1 - 2.5, 2 - 2; and 5 against 1 in the other group."""
    scores, group = torch.tensor([3.0, 5.0, 1.0, 1.0, 2.0]), torch.tensor([8, 3, 8, 3, 8])
    found = rloo_advantages(scores, group, mask_of(2, 1, 1, 2, 1))
    close(found, torch.tensor([[1.5, 1.5], [4, 0], [-1.5, 0], [-4, -4], [0, 0]]))


def test_leave_one_out_is_the_unscaled_group_advantage_stretched() -> None:
    scores, group, on = torch.tensor([1.0, -1.0, 0.5, 2.0]), torch.zeros(4, dtype=torch.long), mask_of(1, 2, 3, 1)
    close(rloo_advantages(scores, group, on), 4 / 3 * group_advantages(scores, group, on, scale=False))


@pytest.mark.parametrize("score", [1.0, 0.1, 16777217.0])
def test_without_others_or_differences_leave_one_out_is_zero(score: float) -> None:
    scores, group = torch.tensor([score] * 7 + [0.3]), torch.tensor([0] * 7 + [1])
    assert (rloo_advantages(scores, group, mask_of(*[2] * 8)) == 0).all()


def test_a_step_is_worth_its_rewards_and_the_rise_of_the_value() -> None:
    """Three steps of values .5, .75, .25 and a last reward 1; then two steps with rewards in both."""
    on, nan = mask_of(5, 3), torch.nan
    segments = torch.tensor([[0, 0, 1, 2, 2], [0, 1, 1, 9, -7]])
    values = torch.tensor([[0.5, 0.75, 0.25], [2.0, 3.0, nan]])
    rewards = torch.tensor([[0.0, 0, 0, 0, 1], [10.0, 20, 30, nan, nan]])
    found = segment_advantages(rewards, values, segments, on)
    close(found, torch.tensor([[0.25, 0.25, -0.5, 0.75, 0.75], [11.0, 47, 47, 0, 0]]))


def test_steps_share_out_the_return_less_the_first_value_whatever_the_values() -> None:
    """Sum over steps of A_j = R - V(x)."""
    rewards, values, on = drawn(12, 7, 1)
    starts = torch.rand(on.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    starts[:, 0] = True
    segments = starts.cumsum(1) - 1
    found = segment_advantages(rewards, values, segments, on)
    of_steps = torch.where(starts & on, found, 0.0).sum(1)
    close(of_steps, torch.where(on, rewards, 0.0).sum(1) - values[:, 0])


def test_steps_of_one_token_are_one_step_errors() -> None:
    rewards, values, on = drawn(6, 3, 1)
    segments = torch.arange(6).expand(3, 6)
    close(segment_advantages(rewards, values, segments, on), gae(rewards, values, on, gamma=1.0, gae_lambda=0.0))


def test_one_step_valued_by_the_other_responses_is_leave_one_out() -> None:
    on, scores, group = mask_of(2, 4, 1), torch.tensor([1.0, 0.0, 0.5]), torch.zeros(3, dtype=torch.long)
    others = torch.tensor([[0.25], [0.75], [0.5]])
    found = segment_advantages(outcome(on, scores), others, torch.zeros_like(on, dtype=torch.long), on)
    close(found, rloo_advantages(scores, group, on))


def test_the_value_of_an_action_is_its_reward_and_the_next_value() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [8.0, 9.0, torch.nan]])
    values = torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, torch.nan]])
    found = q_advantages(rewards, values, mask_of(3, 2), gamma=0.1)
    close(found, torch.tensor([[3.0, 5.0, 4.0], [13.0, 9.0, 0.0]]))


def test_the_value_of_an_action_less_that_of_its_state_is_the_one_step_error() -> None:
    rewards, values, on = drawn(9, 4, 1)
    centred = torch.where(on, q_advantages(rewards, values, on, gamma=0.9) - values, 0.0)
    close(centred, gae(rewards, values, on, gamma=0.9, gae_lambda=0.0))


def test_one_step_errors_see_a_constant_in_the_critic_at_the_end_only() -> None:
    rewards, values, on = drawn(4)
    before, after = (gae(rewards, v, on, gamma=1.0, gae_lambda=0.0) for v in (values, values + 3))
    close(after - before, torch.tensor([[0.0, 0, 0, -3]], dtype=torch.float64))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_released_dvpo_by_its_algebra(gae_lambda: float) -> None:
    """A_t = -W_t + (1 - lambda) sum_{l >= 1} lambda^(l - 1) W_{t+l}, W the response's values whitened by themselves."""
    _, values, on = drawn(6, 3)
    found = released_dvpo_advantages(values, torch.zeros_like(values), on, gae_lambda=gae_lambda)
    for row, length in enumerate((6, 3)):
        v = values[row, :length]
        w = (v - v.mean()) / v.std()
        expected = [
            -w[t] + (1 - gae_lambda) * sum(gae_lambda ** (k - t - 1) * w[k] for k in range(t + 1, length))
            for t in range(length)
        ]
        close(found[row, :length], torch.stack(expected), rtol=1e-6, atol=1e-7)  # 1e-8 stands beside the variance
    assert (found[~on] == 0).all()


def test_released_dvpo_forgets_the_level_and_the_scale_of_an_response() -> None:
    _, values, on = drawn(6, 3)
    none = torch.zeros_like(values)
    found = released_dvpo_advantages(100 + 50 * values, none, on, gae_lambda=0.95)
    close(found, released_dvpo_advantages(values, none, on, gae_lambda=0.95), rtol=1e-6, atol=1e-6)


def test_released_dvpo_adds_penalties_up_as_any_reward() -> None:
    penalties, values, on = drawn(6, 1)
    both = released_dvpo_advantages(values, penalties, on, gae_lambda=0.5)
    values_alone = released_dvpo_advantages(values, torch.zeros_like(values), on, gae_lambda=0.5)
    close(both - values_alone, gae(penalties, torch.zeros_like(values), on, gamma=1.0, gae_lambda=0.5))
    assert float(values_alone[1].abs().sum()) == 0  # a single token has nothing to be whitened against


def test_whitened_cells_have_mean_zero_and_std_one() -> None:
    _, x, on = drawn(30, 7, 1)
    white = whiten(5 + 3 * x, on)
    assert float(white[on].mean()) == pytest.approx(0, abs=1e-12)
    assert float(white[on].std()) == pytest.approx(1, rel=1e-8)
    assert (white[~on] == 0).all()


def test_whitening_two_cells_by_hand() -> None:
    """2 and 4: mean 3, Bessel-corrected variance 2."""
    close(whiten(torch.tensor([[2.0, 4.0]]), mask_of(2)), torch.tensor([[-(0.5**0.5), 0.5**0.5]]))


def test_whitening_can_leave_the_mean_where_it_was() -> None:
    _, x, on = drawn(30, 7)
    kept = whiten(5 + 3 * x, on, shift_mean=False)
    assert float(kept[on].mean()) == pytest.approx(float((5 + 3 * x)[on].mean()), rel=1e-12)
    assert float(kept[on].std()) == pytest.approx(1, rel=1e-8)


def test_whitening_does_not_read_what_lies_under_false() -> None:
    _, x, on = drawn(30, 7)
    close(whiten(torch.where(on, x, torch.nan), on), whiten(x, on), rtol=0, atol=0)


def test_whitening_a_single_cell_centres_it() -> None:
    close(whiten(torch.tensor([[3.0, 8.0]]), mask_of(1, width=2)), torch.zeros(1, 2))
    close(whiten(torch.tensor([[3.0, 8.0]]), mask_of(1, width=2), shift_mean=False), torch.tensor([[3.0, 0.0]]))


def test_whitening_rows_is_whitening_each_by_itself() -> None:
    _, x, on = drawn(30, 7, 2, 1)
    found = whiten_rows(torch.where(on, 5 + 3 * x, torch.nan), on)
    close(found, torch.cat([whiten(5 + 3 * x[[row]], on[[row]]) for row in range(4)]))
