"""Metrics of a critic beside the truth, by pencil."""

import pytest
import torch
from torch import Tensor

from vcppo.maths.diagnostics import root_mean_square
from vcppo.rl.continuations import StepValues
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.true_values import truth_metrics

MASK = torch.tensor([[True, True], [True, False], [True, True]])
TRUTH = torch.tensor([[0.0, 0.5], [-1.0, 9.0], [0.5, 1.0]])
RETURNS = torch.tensor([[1.0, 1.0], [-1.0, 9.0], [1.0, 1.0]])


def measured(
    outputs: ModelOutputs, steps: StepValues | None, rows: list[int], with_return: list[int]
) -> dict[str, float]:
    at = (torch.tensor(rows), torch.tensor(with_return, dtype=torch.int64))
    return truth_metrics(TRUTH, RETURNS, MASK, *at, outputs, steps)


def test_a_critic_is_off_by_so_much_in_the_rows_that_are_trained_on() -> None:
    """Off by 0.5, -0.5 and 0.3 at the three tokens of rows 0 and 1; row 2 was not read."""
    values = torch.tensor([[0.5, 0.0], [-0.7, 99.0], [0.0, 0.0]])
    metrics = measured(ModelOutputs(values=values), None, [0, 1], [0, 1])
    assert metrics["value/true_bias"] == pytest.approx(0.1)
    assert metrics["value/true_error"] == pytest.approx((0.59 / 3) ** 0.5)
    # Returns 1, 1, -1 vary by 8/9; less the truth 1, 0.5, 0 they vary by 1/6.
    assert metrics["value/explained_variance_ceiling"] == pytest.approx(1 - (1 / 6) / (8 / 9))


def test_without_a_known_return_there_is_no_ceiling() -> None:
    metrics = measured(ModelOutputs(values=torch.zeros(3, 2)), None, [0, 1], [])
    assert metrics.keys() == {"value/true_bias", "value/true_error"}


def test_values_of_steps_are_compared_where_they_stand() -> None:
    """Off by 1 and -0.5; the state of row 2 is not trained on."""
    at = {(0, 0): 1.0, (1, 0): -1.5, (2, 1): 7.0}
    steps = StepValues(torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3, 1), at, 0, 0)
    metrics = measured(ModelOutputs(), steps, [0, 1], [0, 1])
    assert metrics == {"value/true_bias": pytest.approx(0.25), "value/true_error": pytest.approx((1.25 / 2) ** 0.5)}


def test_a_root_mean_square_is_of_what_counts() -> None:
    x: Tensor = torch.tensor([[3.0, float("nan")], [-4.0, 100.0]])
    assert root_mean_square(x, torch.tensor([[True, False], [True, False]])) == pytest.approx(12.5**0.5)
