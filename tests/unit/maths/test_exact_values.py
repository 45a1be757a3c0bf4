"""Dynamic programming along decisions: by pencil, and its gradient."""

import torch
from torch import Tensor

from vcppo.maths.exact_values import chances_of_success, error_shares, limited_sight


def numbers(*rows: object) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_without_errors_it_is_the_product_of_what_is_left_to_do() -> None:
    """Chances 1/2, 1/4, 1/5 of going on; the second way has ended after two places."""
    on = numbers([[0.5], [0.25], [0.2]], [[0.5], [0.25], [1.0]])
    none = torch.zeros(2, 3, dtype=torch.float64)
    worth = chances_of_success(on, none, numbers([1.0], [1.0]), numbers(0.0, 0.0))
    torch.testing.assert_close(worth[..., 0], numbers([0.025, 0.05, 0.2, 1.0], [0.125, 0.25, 1.0, 1.0]))


def test_exits_errors_and_failures_by_pencil() -> None:
    """One way of two places; right 0.9 with at most one error, else, and after a failure, 0.1.

    At its second place it goes on without an error by 0.5, with one by 0.3, and fails by 0.2:
        W(0) = 0.8 * 0.9 + 0.2 * 0.1 = 0.74;   W(1) = 0.5 * 0.9 + 0.5 * 0.1 = 0.5;   W(2) = 0.1.
    At its first it goes on by 0.4, with an error by 0.2, exits to a worth of 0.6 by 0.3, and fails by 0.1:
        W(0) = 0.4 * 0.74 + 0.2 * 0.5 + 0.3 * 0.6 + 0.1 * 0.1 = 0.586
        W(1) = 0.4 * 0.5 + 0.2 * 0.1 + 0.18 + 0.01 = 0.41;   W(2) = 0.6 * 0.1 + 0.18 + 0.01 = 0.25.
    """
    on = numbers([[0.4, 0.2], [0.5, 0.3]])
    exits = numbers([0.3 * (0.6 - 0.1), 0.0])
    worth = chances_of_success(on, exits, numbers([0.9, 0.9, 0.1]), numbers(0.1))
    torch.testing.assert_close(worth[0], numbers([0.586, 0.41, 0.25], [0.74, 0.5, 0.1], [0.9, 0.9, 0.1]))


def test_how_many_errors_a_response_on_its_way_has_made() -> None:
    """First 2:1 for none; then 5:3, so that 10, 6 + 5 and 3 of 24 have made 0, 1 and 2 errors or more."""
    shares = error_shares(numbers([[0.4, 0.2], [0.5, 0.3]]), 3)
    torch.testing.assert_close(shares[0], numbers([1, 0, 0], [2 / 3, 1 / 3, 0], [10 / 24, 11 / 24, 3 / 24]))
    torch.testing.assert_close(
        error_shares(numbers([[0.0, 0.0], [0.5, 0.5]]), 2)[0], numbers([1, 0], [1, 0], [0.5, 0.5])
    )


def test_its_gradient_is_that_of_the_equation() -> None:
    rng = torch.Generator().manual_seed(0)
    on = (0.3 * torch.rand(2, 5, 3, generator=rng, dtype=torch.float64)).requires_grad_()
    exits = (0.1 * torch.rand(2, 5, generator=rng, dtype=torch.float64)).requires_grad_()
    right, failed = numbers([1.0, 1.0, 0.0], [1.0, 0.0, 0.0]), numbers(0.0, 0.2)
    assert torch.autograd.gradcheck(lambda a, b: chances_of_success(a, b, right, failed), (on, exits))


def test_a_blind_critic_knows_the_position_alone() -> None:
    """The mean over the others that have it: (3 + 8) / 2 = 5.5 in the first row; where none has, over their tokens."""
    values = torch.tensor([[1.0, 2.0], [3.0, float("nan")], [8.0, float("nan")]])
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    expected = torch.tensor([[5.5, 5.5], [4.5, 0.0], [2.0, 0.0]])
    torch.testing.assert_close(limited_sight(values, mask, sight=0.0), expected)
    torch.testing.assert_close(limited_sight(values, mask, sight=1.0), torch.where(mask, values, 0.0))
    half = torch.tensor([[3.25, 3.75], [3.75, 0.0], [5.0, 0.0]])
    torch.testing.assert_close(limited_sight(values, mask, sight=0.5), half)
    torch.testing.assert_close(limited_sight(values[:1], mask[:1], sight=0.0), torch.zeros(1, 2))


def test_what_a_response_does_is_nothing_to_a_critic_that_is_blind() -> None:
    values, mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)), torch.ones(4, 6, dtype=torch.bool)
    other = values.clone()
    other[1] += 1.0
    before, after = limited_sight(values, mask, sight=0.0), limited_sight(other, mask, sight=0.0)
    torch.testing.assert_close(before[1], after[1])
    assert (after[[0, 2, 3]] > before[[0, 2, 3]]).all()
