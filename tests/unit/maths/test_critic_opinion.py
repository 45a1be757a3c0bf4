"""Shares of an advantage, by pencil."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vcppo.maths.critic_opinion import opinion
from vcppo.maths.diagnostics import real_reward_share
from vcppo.maths.prompt_bootstrap import Measured, prompt_bootstrap

ON = torch.tensor([[True, True], [True, True]])


def shares(values: Tensor, rewards: Tensor, gae_lambda: float, on: Tensor = ON) -> Measured:
    bootstrap = prompt_bootstrap(range(len(on)), resamples=50, rng=np.random.default_rng(0))
    return opinion(values, rewards, on, bootstrap, gae_lambda=gae_lambda)


def test_lambda_half_by_pencil() -> None:
    """Rewards 0, 8 and values 2, 4 against zeros: A(r, 0) = 4, 8 and A(0, V) = 2 - 2, -4, so A = 4, 4; 0, 0.

    Of the advantages 4, 4, 0, 0 with variance 4, values 0, -4, 0, 0 have covariance -2: a share of -1/2.
    """
    values, rewards = torch.tensor([[2.0, 4], [0, 0]]), torch.tensor([[0.0, 8], [0, 0]])
    result = shares(values, rewards, 0.5)
    assert result.value == pytest.approx([0.75, -0.5])


def test_at_lambda_one_a_calibrated_critic_has_no_opinion() -> None:
    """Values +-1 whose returns are 2 and 0, 0 and -2: V explains half, and Cov(V, G - V) = 0."""
    on = torch.ones(4, 1, dtype=torch.bool)
    values, returns = torch.tensor([[1.0], [1], [-1], [-1]]), torch.tensor([[2.0], [0], [0], [-2]])
    assert shares(values, returns, 1.0, on).value == pytest.approx([1.0, 0.0], abs=1e-12)
    assert shares(2 * values, returns, 1.0, on).value[1] > 0
    assert shares(values / 2, returns, 1.0, on).value[1] < 0


def test_a_constant_below_lambda_one_is_all_opinion_where_rewards_are_equal() -> None:
    values, rewards = torch.full((2, 2), -3.0), torch.zeros(2, 2)
    assert shares(values, rewards, 0.5).value[1] == pytest.approx(1.0)


def test_the_weight_of_the_real_reward_is_that_of_training() -> None:
    on = torch.arange(5) < torch.tensor([5, 2, 3])[:, None]
    values, rewards = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0))
    for gae_lambda in (0.0, 0.9, 1.0):
        expected = real_reward_share(on, gamma=1.0, gae_lambda=gae_lambda)
        assert shares(values, rewards, gae_lambda, on).value[0] == pytest.approx(expected)


def test_equal_advantages_have_no_shares() -> None:
    assert np.isnan(shares(torch.zeros(2, 2), torch.zeros(2, 2), 0.9).value[1])
