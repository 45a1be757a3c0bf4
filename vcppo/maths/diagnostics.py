"""Quality of a critic: its error overall, by token position, by predicted value, and the reach of the reward.

Every `returns` here means Monte-Carlo returns (`monte_carlo_returns`). Against lambda-returns, which contain the
values themselves, a useless critic looks good. All sums run in float64 on the CPU; cells where the mask is False,
NaN or not, are never read.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vcppo.maths.masks import check_mask

Table = dict[str, list[float]]  # columns of equal length


def explained_variance(values: Tensor, returns: Tensor, response_mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over the True cells.

    1 for a perfect critic, 0 for the best constant, and for any constant: a constant error goes unseen, so
    `value_bias` belongs beside it. NaN where Var(returns) is 0.

    Args:
        values, returns: [B, T] float. response_mask: [B, T] bool.
    Raises:
        DataError: the mask is not of torch.bool.
    """
    value, target = _live(response_mask, values, returns)
    one_bin = torch.zeros(len(target), dtype=torch.long)
    return float(_explained_variance(value, target, one_bin, 1))


def value_bias(values: Tensor, returns: Tensor, response_mask: Tensor) -> float:
    """mean(values - returns) over the True cells; below 0 the critic is a pessimist. NaN without a True cell.

    Args:
        values, returns: [B, T] float. response_mask: [B, T] bool.
    """
    value, target = _live(response_mask, values, returns)
    return float((value - target).mean())


def fitted_line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(slope, intercept) of the least-squares line y = slope * x + intercept; slope 0 where all x are equal.

    Args:
        x, y: [N] float, N at least 1.

    >>> fitted_line(torch.tensor([0.0, 1.0, 2.0]), torch.tensor([1.0, 3.0, 5.0]))
    (2.0, 1.0)
    """
    x, y = (numbers.detach().cpu().to(torch.float64) for numbers in (x, y))
    apart, spread = x - x.mean(), (x - x.mean()).square().sum()
    slope = float((apart * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    return slope, float(y.mean()) - slope * float(x.mean())


def root_mean_square(x: Tensor, response_mask: Tensor) -> float:
    """Root of the mean square over the True cells; NaN without one.

    Args:
        x: [B, T] float. response_mask: [B, T] bool.
    """
    (live,) = _live(response_mask, x)
    return float(live.square().mean().sqrt())


def by_position(values: Tensor, returns: Tensor, response_mask: Tensor, *, width: int, from_end: bool = False) -> Table:
    """The critic by place in the response (arXiv:2503.01491, figure 2), in bins of `width` tokens.

    Args:
        values, returns: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        width: tokens a bin. from_end: count positions backwards from each response's last token, which is 0.
    Returns:
        Columns, a row for each bin with a token in it: position (the bin's left edge), from_end, n (tokens),
        value_mean, return_mean, value_bias, explained_variance (NaN where the bin's returns are all equal), and
        advantage_mean, which is return - value: lambda 1, not whitened.
    """
    value, target = _live(response_mask, values, returns)
    live = response_mask.cpu()
    columns = torch.arange(live.shape[1]).expand(live.shape)
    position = live.sum(dim=1, keepdim=True) - 1 - columns if from_end else columns
    index = position[live] // width
    bins = -(-live.shape[1] // width)
    n = torch.bincount(index, minlength=bins)
    value_mean, return_mean = _means(value, index, bins), _means(target, index, bins)
    spread = _explained_variance(value, target, index, bins)
    some = n > 0
    return {
        "position": (torch.arange(bins) * width)[some].tolist(),
        "from_end": [from_end] * int(some.sum()),
        "n": n[some].tolist(),
        "value_mean": value_mean[some].tolist(),
        "return_mean": return_mean[some].tolist(),
        "value_bias": (value_mean - return_mean)[some].tolist(),
        "explained_variance": spread[some].tolist(),
        "advantage_mean": (return_mean - value_mean)[some].tolist(),
    }


def by_fraction(values: Tensor, returns: Tensor, response_mask: Tensor, *, fractions: Sequence[float]) -> Table:
    """The critic at fractions of each response: its value before token floor(fraction * length).

    Args:
        values, returns: [B, T] float. response_mask: [B, T] bool, True on a prefix of each row.
        fractions: from 0 to less than 1.
    Returns:
        Columns fraction, n (responses), value_mean, return_mean, value_bias; no row without a response.
    """
    live = response_mask.cpu()
    lengths = live.sum(dim=1)[live.any(dim=1)]
    rows = live.any(dim=1).nonzero()[:, 0]
    table: Table = {name: [] for name in ("fraction", "n", "value_mean", "return_mean", "value_bias")}
    for fraction in fractions if len(rows) else ():
        at = (fraction * lengths).long()
        value, target = (x.detach().cpu()[rows, at].to(torch.float64).mean() for x in (values, returns))
        numbers = (fraction, len(rows), float(value), float(target), float(value - target))
        for column, number in zip(table.values(), numbers, strict=True):
            column.append(number)
    return table


def calibration(values: Tensor, returns: Tensor, response_mask: Tensor, *, bins: int) -> Table:
    """Compare predicted values with returns, in bins of the prediction.

    Equal-width bins of the predicted value, from the lowest to the highest return, or value where one lies beyond.

    Args:
        values, returns: [B, T] float. response_mask: [B, T] bool.
    Returns:
        Columns bin_low, bin_high, predicted_mean, return_mean, n; a row for each bin with a token in it. A value on
        an inner edge counts above it.
    """
    value, target = _live(response_mask, values, returns)
    if not len(value):
        return {name: [] for name in ("bin_low", "bin_high", "predicted_mean", "return_mean", "n")}
    both = torch.cat([value, target])
    edges = torch.linspace(float(both.min()), float(both.max()), bins + 1, dtype=torch.float64)
    index = torch.bucketize(value, edges[1:-1], right=True)
    n = torch.bincount(index, minlength=bins)
    some = n > 0
    return {
        "bin_low": edges[:-1][some].tolist(),
        "bin_high": edges[1:][some].tolist(),
        "predicted_mean": _means(value, index, bins)[some].tolist(),
        "return_mean": _means(target, index, bins)[some].tolist(),
        "n": n[some].tolist(),
    }


def real_reward_share(response_mask: Tensor, *, gamma: float, gae_lambda: float | Tensor) -> float:
    """Mean over tokens of (gamma * lambda)^(tokens still to come): the weight of the real reward in an advantage.

    The rest of what an advantage hears of the reward it hears through the critic (arXiv:2503.01491, figure 3).

    Args:
        response_mask: [B, T] bool, True on a prefix of each row. gae_lambda: one number, or [B] for one a row.
    Returns:
        In [0, 1]; NaN without a True cell.
    """
    live = response_mask.cpu()
    to_come = live.sum(dim=1, keepdim=True) - 1 - torch.arange(live.shape[1])
    decay = gamma * torch.as_tensor(gae_lambda, dtype=torch.float64).cpu().reshape(-1, 1)
    return float((decay ** to_come.clamp(min=0))[live].mean())


def _live(response_mask: Tensor, *tensors: Tensor) -> list[Tensor]:
    """The True cells of each tensor: [N] float64 on the CPU; DataError if the mask is not of torch.bool."""
    check_mask(response_mask)
    return [x.detach()[response_mask].cpu().to(torch.float64) for x in tensors]


def _means(x: Tensor, index: Tensor, bins: int) -> Tensor:
    """Mean of x in each bin, NaN in an empty one."""
    return torch.bincount(index, weights=x, minlength=bins) / torch.bincount(index, minlength=bins)


def _variances(x: Tensor, index: Tensor, bins: int) -> Tensor:
    """Population variance in each bin, NaN in an empty one; exactly 0 where all are equal, since it is shift-free."""
    lowest = torch.full((bins,), math.inf, dtype=x.dtype).scatter_reduce(0, index, x, "amin")
    above = x - lowest[index]
    return _means((above - _means(above, index, bins)[index]).square(), index, bins)


def _explained_variance(value: Tensor, target: Tensor, index: Tensor, bins: int) -> Tensor:
    total = _variances(target, index, bins)
    return torch.where(total > 0, 1.0 - _variances(target - value, index, bins) / total, math.nan)
