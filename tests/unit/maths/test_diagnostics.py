"""Measures of a critic against numbers worked out by hand and against plain loops."""

import math

import pytest
import torch
from torch import Tensor

from vcppo.maths.diagnostics import (
    by_fraction,
    by_position,
    calibration,
    explained_variance,
    real_reward_share,
    value_bias,
)

POSITION_COLUMNS = [
    "position",
    "from_end",
    "n",
    "value_mean",
    "return_mean",
    "value_bias",
    "explained_variance",
    "advantage_mean",
]


def mask_of(*lengths: int, width: int | None = None) -> Tensor:
    return torch.arange(width or max(lengths)) < torch.tensor(lengths)[:, None]


def drawn(*lengths: int, width: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Values and returns with NaN under the mask's False, and the mask."""
    response_mask = mask_of(*lengths, width=width)
    rng = torch.Generator().manual_seed(0)
    values, returns = torch.randn(2, *response_mask.shape, generator=rng)
    return torch.where(response_mask, values, torch.nan), torch.where(response_mask, returns, torch.nan), response_mask


def test_explained_variance_by_hand() -> None:
    """Returns 0, 4 have variance 4; errors 1, 1 vary by 0, errors 0, 2 by 1."""
    returns, on = torch.tensor([[0.0, 4.0, 77.0]]), mask_of(2, width=3)
    assert explained_variance(torch.tensor([[0.0, 4.0, 5.0]]), returns, on) == 1.0
    assert explained_variance(torch.tensor([[-1.0, 3.0, 5.0]]), returns, on) == 1.0, "a constant error goes unseen"
    assert explained_variance(torch.tensor([[0.0, 2.0, 5.0]]), returns, on) == 0.75
    assert explained_variance(torch.tensor([[9.0, 9.0, 5.0]]), returns, on) == 0.0
    assert explained_variance(torch.tensor([[4.0, 0.0, 5.0]]), returns, on) == -3.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_explained_variance_is_not_a_number_where_returns_do_not_vary(dtype: torch.dtype) -> None:
    """0.1 has no exact mean in binary: a variance of 1e-34 must not count as one."""
    values, _, on = drawn(7, 5, 6)
    assert math.isnan(explained_variance(values.to(dtype), torch.full(on.shape, 0.1, dtype=dtype), on))


def test_value_bias_sees_the_constant_error_and_its_sign() -> None:
    on = mask_of(2, width=3)
    assert value_bias(torch.tensor([[-1.0, 3.0, 9.0]]), torch.tensor([[0.0, 4.0, 77.0]]), on) == -1.0


def test_means_of_a_long_batch_do_not_drift() -> None:
    """A million float32 cells of 1000.1: summed one by one in float32 the mean is off in the third digit."""
    on = torch.ones(1, 1_000_000, dtype=torch.bool)
    values = torch.full((1, 1_000_000), 1000.1)
    assert by_position(values, 0 * values, on, width=1_000_000)["value_mean"] == pytest.approx(
        [values[0, 0].item()], 1e-12
    )


def test_positions_by_hand() -> None:
    """Rows of 3 tokens and 1, in bins of 2 from the start and from the end."""
    values = torch.tensor([[1.0, 2.0, 3.0, 99], [5.0, 99, 99, 99]])
    returns = torch.tensor([[0.0, 0.0, 7.0, 99], [4.0, 99, 99, 99]])
    on = mask_of(3, 1, width=4)
    start = by_position(values, returns, on, width=2)
    assert list(start) == POSITION_COLUMNS
    assert (start["position"], start["from_end"], start["n"]) == ([0, 2], [False, False], [3, 1])
    assert start["value_mean"] == pytest.approx([8 / 3, 3])
    assert start["return_mean"] == pytest.approx([4 / 3, 7])
    assert start["value_bias"] == pytest.approx([4 / 3, -4])
    assert start["advantage_mean"] == pytest.approx([-4 / 3, 4])
    # bin 0: errors -1, -2, -1 vary by 2/9, returns 0, 0, 4 by 32/9; bin 2 holds a single return
    assert start["explained_variance"] == pytest.approx([1 - 2 / 32, math.nan], nan_ok=True)
    end = by_position(values, returns, on, width=2, from_end=True)
    assert (end["position"], end["from_end"], end["n"]) == ([0, 2], [True, True], [3, 1])
    assert end["value_mean"] == pytest.approx([10 / 3, 1]), "the last two of the first row, and the whole of the second"


@pytest.mark.parametrize("from_end", [False, True])
@pytest.mark.parametrize("width", [1, 4, 7, 100])
def test_positions_agree_with_a_plain_loop(width: int, from_end: bool) -> None:
    values, returns, on = drawn(23, 40, 1, 9, width=64)
    bins: dict[int, list[tuple[float, float]]] = {}
    for row in range(4):
        length = int(on[row].sum())
        for t in range(length):
            position = (length - 1 - t if from_end else t) // width * width
            bins.setdefault(position, []).append((values[row, t].item(), returns[row, t].item()))
    found = by_position(values, returns, on, width=width, from_end=from_end)
    assert found["position"] == sorted(bins)
    assert found["n"] == [len(bins[p]) for p in sorted(bins)]
    assert found["value_bias"] == pytest.approx([sum(v - r for v, r in bins[p]) / len(bins[p]) for p in sorted(bins)])
    alone = []
    for p in sorted(bins):
        v, r = torch.tensor([bins[p]], dtype=torch.float64).unbind(-1)
        alone.append(explained_variance(v, r, torch.ones_like(v, dtype=torch.bool)))
    assert found["explained_variance"] == pytest.approx(alone, nan_ok=True)


def test_one_bin_of_everything_is_the_critic_overall() -> None:
    values, returns, on = drawn(23, 40, 1, 9)
    table = by_position(values, returns, on, width=40)
    assert table["explained_variance"] == pytest.approx([explained_variance(values, returns, on)])
    assert table["value_bias"] == pytest.approx([value_bias(values, returns, on)])


def test_a_bin_that_no_response_reaches_is_left_out() -> None:
    values, returns, on = drawn(3, 2, width=50)
    assert by_position(values, returns, on, width=2)["position"] == [0, 2]


def test_fractions_by_hand() -> None:
    """A response of 4 tokens and one of 1, which is read before its only token at every fraction; one of none."""
    values = torch.tensor([[1.0, 2.0, 3.0, 4.0], [7.0, 99, 99, 99], [99.0, 99, 99, 99]])
    returns = torch.tensor([[0.0, 0.0, 0.0, 8.0], [4.0, 99, 99, 99], [99.0, 99, 99, 99]])
    table = by_fraction(values, returns, mask_of(4, 1, 0, width=4), fractions=(0.0, 0.25, 0.7, 0.75))
    assert table == {
        "fraction": [0.0, 0.25, 0.7, 0.75],
        "n": [2, 2, 2, 2],
        "value_mean": [4.0, 4.5, 5.0, 5.5],
        "return_mean": [2.0, 2.0, 2.0, 6.0],
        "value_bias": [2.0, 2.5, 3.0, -0.5],
    }


def test_calibration_by_hand() -> None:
    """Returns from -1 to 1 in four bins; values on an inner edge count above it, the highest in the last bin."""
    values = torch.tensor([[-1.0, -0.6, 0.0, 0.4, 1.0, 55]])
    returns = torch.tensor([[-1.0, 1.0, -1.0, 1.0, 1.0, 55]])
    table = calibration(values, returns, mask_of(5, width=6), bins=4)
    assert list(table) == ["bin_low", "bin_high", "predicted_mean", "return_mean", "n"]
    assert (table["bin_low"], table["bin_high"]) == ([-1.0, 0.0, 0.5], [-0.5, 0.5, 1.0]), "no value from -0.5 to 0"
    assert table["predicted_mean"] == pytest.approx([-0.8, 0.2, 1.0])
    assert table["return_mean"] == [0.0, 0.0, 1.0]
    assert table["n"] == [2, 2, 1]


def test_calibration_reaches_out_to_values_beyond_the_returns() -> None:
    table = calibration(torch.tensor([[-3.0, 5.0]]), torch.tensor([[-1.0, 1.0]]), mask_of(2), bins=2)
    assert (table["bin_low"], table["bin_high"]) == ([-3.0, 1.0], [1.0, 5.0])


def test_calibration_of_a_single_number_is_one_bin_of_no_width() -> None:
    half = torch.full((1, 3), 0.5)
    table = calibration(half, half, mask_of(3), bins=10)
    assert table == {"bin_low": [0.5], "bin_high": [0.5], "predicted_mean": [0.5], "return_mean": [0.5], "n": [3]}


def test_every_token_is_in_a_calibration_bin_that_holds_its_value() -> None:
    values, returns, on = drawn(60, 33, 1)
    table = calibration(values, returns, on, bins=7)
    assert sum(table["n"]) == 94
    for low, mean, high in zip(table["bin_low"], table["predicted_mean"], table["bin_high"], strict=True):
        assert low <= mean <= high


def test_without_a_token_there_is_nothing_to_say() -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    x = torch.ones(2, 3)
    assert math.isnan(explained_variance(x, x, nothing))
    assert math.isnan(value_bias(x, x, nothing))
    assert math.isnan(real_reward_share(nothing, gamma=1.0, gae_lambda=0.95))
    assert by_position(x, x, nothing, width=2) == {name: [] for name in POSITION_COLUMNS}
    assert set(map(tuple, calibration(x, x, nothing, bins=2).values())) == {()}
    assert set(map(tuple, by_fraction(x, x, nothing, fractions=(0.0, 0.5)).values())) == {()}


def test_the_share_of_the_real_reward_is_the_papers_curve() -> None:
    """Figure 3 draws lambda^distance over 200 tokens; this is the mean of that curve, in closed form."""
    q = 1.0 * 0.95
    assert real_reward_share(mask_of(200), gamma=1.0, gae_lambda=0.95) == pytest.approx((1 - q**200) / (1 - q) / 200)
    assert real_reward_share(mask_of(200), gamma=1.0, gae_lambda=1.0) == 1.0
    assert real_reward_share(mask_of(4, 1), gamma=1.0, gae_lambda=0.0) == 2 / 5, "the last token of each response"


def test_the_share_decays_with_gamma_too_and_with_each_rows_own_lambda() -> None:
    on = mask_of(3, 2, width=9)
    assert real_reward_share(on, gamma=0.5, gae_lambda=0.5) == pytest.approx((1 / 16 + 1 / 4 + 1 + 1 / 4 + 1) / 5)
    each = real_reward_share(on, gamma=0.5, gae_lambda=torch.tensor([1.0, 0.0]))
    assert each == pytest.approx((1 / 4 + 1 / 2 + 1 + 0 + 1) / 5)


def test_tensors_that_carry_a_gradient_are_read_all_the_same() -> None:
    values, returns, on = drawn(3, 2)
    assert value_bias(values.requires_grad_(), returns, on) == value_bias(values.detach(), returns, on)
