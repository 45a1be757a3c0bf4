"""The generator's log-probabilities beside the trainer's."""

import math

import pytest
import torch

from vcppo.maths.mismatch import importance_weights, mismatch

ON = torch.tensor([[True, True, False]])


def test_distances_are_over_true_cells() -> None:
    own, told = torch.tensor([[-1.0, -2.0, 50.0]]), torch.tensor([[-1.5, -1.75, -50.0]])
    found = mismatch(own, told, ON)
    assert (found.mean, found.largest) == (0.375, 0.5)
    assert found.kl == pytest.approx(((math.exp(0.5) - 1 - 0.5) + (math.exp(-0.25) - 1 + 0.25)) / 2)


def test_weights_are_ratios_up_to_the_cap_and_one_where_masked() -> None:
    own, told = torch.log(torch.tensor([[0.6, 0.3, 0.9]])), torch.log(torch.tensor([[0.2, 0.6, 0.1]]))
    torch.testing.assert_close(importance_weights(own, told, ON, cap=2.0), torch.tensor([[2.0, 0.5, 1.0]]))
    torch.testing.assert_close(importance_weights(own, told, ON, cap=9.0), torch.tensor([[3.0, 0.5, 1.0]]))


def test_weights_have_no_gradient() -> None:
    own = torch.zeros(1, 3, requires_grad=True)
    assert not importance_weights(own, torch.zeros(1, 3), ON, cap=2.0).requires_grad


def test_weighted_by_the_ratio_what_the_wrong_policy_sampled_has_the_right_mean() -> None:
    """Sum over tokens of generator's probability * weight * value = the trainer's mean, exactly, without a cap."""
    generator, trainer, value = (torch.tensor([x]) for x in ([0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [1.0, -2.0, 4.0]))
    weights = importance_weights(trainer.log(), generator.log(), torch.ones(1, 3, dtype=torch.bool), cap=100.0)
    torch.testing.assert_close((generator * weights * value).sum(), (trainer * value).sum())
