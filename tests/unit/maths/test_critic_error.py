"""The split of a critic's error, by pencil and against the plain formulas."""

import math

import numpy as np
import pytest
import torch

from vcppo.maths.critic_error import (
    ErrorParts,
    end_bins,
    error_columns,
    error_parts,
    position_bins,
    quantile_bins,
    stacked,
)
from vcppo.maths.diagnostics import explained_variance, value_bias


def parts(value: list[float], target: list[float], shift: float = 0.3) -> ErrorParts:
    v, g = np.asarray(value, dtype=np.float64), np.asarray(target, dtype=np.float64)
    return error_parts(np.stack(error_columns(v, g, shift)).sum(axis=1), shift)


def test_offset_and_slope_by_pencil() -> None:
    """Errors -1 and -3: mean square 5 = 2^2 + (1 - 2)^2 * 1 + 0, for returns grow by 2 a unit of value."""
    result = parts([0, 2], [1, 5])
    assert (result.bias, result.slope, result.intercept) == pytest.approx((-2, 2, 1))
    assert result.rmse == pytest.approx(math.sqrt(5))
    assert (result.share_offset, result.share_slope, result.share_rest) == pytest.approx((0.8, 0.2, 0))
    assert result.explained_variance == pytest.approx(0.75)
    assert (result.value_mean, result.return_mean, result.value_std, result.return_std) == pytest.approx((1, 3, 1, 2))
    assert result.correlation == pytest.approx(1)


def test_offset_and_rest_by_pencil() -> None:
    """Errors 0, -2, -2, 0: mean square 2 = 1^2 + 0 + (2 - 1), for the slope is 1 and returns vary by 2."""
    result = parts([0, 0, 2, 2], [0, 2, 4, 2])
    assert (result.bias, result.slope) == pytest.approx((-1, 1))
    assert result.correlation == pytest.approx(1 / math.sqrt(2)), "covariance 1 over deviations of 1 and the root of 2"
    assert (result.share_offset, result.share_slope, result.share_rest) == pytest.approx((0.5, 0, 0.5))


def test_a_constant_has_no_slope_and_leaves_all_else_to_the_rest() -> None:
    result = parts([0.1, 0.1, 0.1], [0, 1, 2], shift=0.1)
    assert math.isnan(result.slope)
    assert result.value_std == 0
    assert result.share_slope == 0
    assert result.share_offset + result.share_rest == pytest.approx(1)
    assert result.explained_variance == pytest.approx(0, abs=1e-12)


def test_a_constant_far_from_the_shift_is_a_constant() -> None:
    assert parts([1000.1] * 7, [0, 1, 2, 3, 4, 5, 6], shift=0.0).value_std == 0


def test_a_perfect_critic_has_no_error_to_split() -> None:
    result = parts([0, 1, 3], [0, 1, 3])
    assert result.rmse == pytest.approx(0, abs=1e-7)
    assert result.explained_variance == pytest.approx(1)


def test_returns_that_are_all_equal_explain_nothing() -> None:
    result = parts([0, 1, 3], [2, 2, 2])
    assert np.isnan([result.explained_variance, result.slope, result.intercept]).all()
    assert result.bias == pytest.approx(-2 / 3)
    shares = (result.share_offset, result.share_slope, result.share_rest)
    assert shares == pytest.approx((2 / 9, 7 / 9, 0)), "of 4/9 and 14/9: a line through the values would be level"


def test_no_token_is_nothing() -> None:
    assert np.isnan(stacked(np.zeros((2, 6)), 0.0)).all()


def test_the_same_as_the_diagnostics_of_training() -> None:
    rng = np.random.default_rng(0)
    value, target = rng.standard_normal((2, 200)).astype(np.float32)
    result = parts(value.tolist(), target.tolist())
    v, g, on = torch.from_numpy(value)[None], torch.from_numpy(target)[None], torch.ones(1, 200, dtype=torch.bool)
    assert result.bias == pytest.approx(value_bias(v, g, on), rel=1e-9)
    assert result.explained_variance == pytest.approx(explained_variance(v, g, on), rel=1e-9)


def test_bins_of_positions() -> None:
    assert position_bins(24, 24).tolist() == list(range(25))
    assert position_bins(25, 24).tolist() == list(range(0, 27, 2))
    assert position_bins(1, 24).tolist() == [0, 1]
    assert position_bins(10_000, 24)[:2].tolist() == [0, 500]


def test_bins_from_the_end_hold_every_token() -> None:
    assert end_bins(1).tolist() == [0, 1]
    for longest in (2, 5, 17, 300, 5_000):
        edges = end_bins(longest)
        assert edges[0] == 0
        assert edges[-2] < longest <= edges[-1]
        assert (np.diff(edges) > 0).all()


def test_bins_of_quantiles() -> None:
    edges = quantile_bins(np.arange(100.0), 4)
    assert np.bincount(np.searchsorted(edges, np.arange(100.0), side="right") - 1).tolist() == [25, 25, 25, 25]
    assert len(quantile_bins(np.full(9, 3.0), 10)) == 2
    low, high = quantile_bins(np.full(9, 3.0), 10)
    assert low <= 3 < high
