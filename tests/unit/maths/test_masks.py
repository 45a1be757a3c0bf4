"""A mask of numbers is refused: it would index rows, and a wrong number would come out."""

import pytest
import torch

from vcppo.maths.advantages import gae, monte_carlo_returns
from vcppo.maths.diagnostics import by_position, calibration, explained_variance, root_mean_square, value_bias

VALUES = torch.tensor([[0.0, 0.1, 0.2], [0.5, 0.6, 0.7]])
RETURNS = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0]])


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float32])
def test_a_mask_of_numbers_is_refused(dtype: torch.dtype) -> None:
    mask = torch.ones(2, 3, dtype=dtype)
    for compute in (
        lambda: gae(RETURNS, VALUES, mask, gamma=1.0, gae_lambda=0.95),
        lambda: monte_carlo_returns(RETURNS, mask, gamma=1.0),
        lambda: explained_variance(VALUES, RETURNS, mask),
        lambda: value_bias(VALUES, RETURNS, mask),
        lambda: root_mean_square(VALUES, mask),
        lambda: by_position(VALUES, RETURNS, mask, width=1),
        lambda: calibration(VALUES, RETURNS, mask, bins=2),
    ):
        with pytest.raises(ValueError, match=f"^response_mask of {dtype}: expected torch.bool, True on a response"):
            compute()
