"""A critic's error against Monte-Carlo returns, split into offset, slope and rest, from sums alone.

With value v, return g, means and variances over tokens, and beta = Cov(v, g) / Var(v), the slope of the return on the
value, the mean square error is exactly (Theil 1966, Applied Economic Forecasting, chapter 2; Murphy 1988, "Skill scores
based on the mean square error and their relationships to the correlation coefficient", Monthly Weather Review 116)

    E (v - g)^2 = (E v - E g)^2  +  (1 - beta)^2 Var(v)  +  Var(g) - beta^2 Var(v)
                  offset            slope                  rest

For (v - g) less its mean is (v~ - beta v~) + (beta v~ - g~), v~ and g~ being centred, and the second is the residual of
least squares, which is orthogonal to v~. Offset and slope are what a line through the values would mend; the rest is
what the critic does not know, with the chance that nobody can. Shares cannot be below 0, so where the truth is 0 they
lie a little above it, with their intervals.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NOTHING = 1e-12  # a variance below this share of the mean square is rounding
SUMS = 6  # n, v, g, v^2, v g, g^2


class ErrorParts(NamedTuple):
    """Numbers of a set of tokens, each [...]; NaN where one is not defined."""

    bias: Array
    slope: Array  # of return on value; NaN of a constant value, and where all returns are equal
    intercept: Array
    rmse: Array
    share_offset: Array  # NaN without an error
    share_slope: Array  # 0 of a constant value
    share_rest: Array
    explained_variance: Array  # NaN where all returns are equal
    value_mean: Array
    return_mean: Array
    value_std: Array
    return_std: Array
    correlation: Array  # NaN of a constant value, and where all returns are equal


def error_columns(value: Array, target: Array, shift: float) -> list[Array]:
    """The columns whose sums `error_parts` needs, [N] each; both less `shift`, against cancellation."""
    v, g = value - shift, target - shift
    return [np.ones_like(v), v, g, v * v, v * g, g * g]


def error_parts(sums: Array, shift: float) -> ErrorParts:
    """Numbers from sums.

    Args:
        sums: [..., 6], of `error_columns`; no token: all NaN.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        n = np.where(sums[..., 0] > 0, sums[..., 0], np.nan)
        v, g, vv, vg, gg = (sums[..., k] / n for k in range(1, SUMS))
        value_variance, return_variance = _variance(v, vv), _variance(g, gg)
        covariance = np.where((value_variance > 0) & (return_variance > 0), vg - v * g, 0.0 * n)
        bias = v - g
        slope = np.where(value_variance > 0, covariance / value_variance, np.nan)
        identified = np.where(return_variance > 0, slope, np.nan)
        known = np.where(value_variance > 0, covariance**2 / value_variance, 0.0)
        slope_error = np.where(value_variance > 0, (1 - slope) ** 2 * value_variance, 0.0 * n)
        rest = np.maximum(return_variance - known, 0.0)
        total = bias**2 + slope_error + rest
        some = np.where(total > 0, total, np.nan)
        spread = slope_error + rest  # Var(g - v)
        spreads = np.sqrt(value_variance * return_variance)
        return ErrorParts(
            bias=bias,
            slope=identified,
            intercept=(g + shift) - identified * (v + shift),
            rmse=np.sqrt(total),
            share_offset=bias**2 / some,
            share_slope=slope_error / some,
            share_rest=rest / some,
            explained_variance=np.where(return_variance > 0, 1 - spread / return_variance, np.nan),
            value_mean=v + shift,
            return_mean=g + shift,
            value_std=np.sqrt(value_variance),
            return_std=np.sqrt(return_variance),
            correlation=np.where(spreads > 0, covariance / spreads, np.nan),
        )


def stacked(sums: Array, shift: float) -> Array:
    """`error_parts` as one array, [..., 13], in the order of its fields."""
    return np.stack(np.broadcast_arrays(*error_parts(sums, shift)), axis=-1)


def position_bins(longest: int, most: int) -> Array:
    """Edges of bins of equal width from 0 on: the smallest of 1, 2, 5, 10, 20, ... that makes no more bins than `most`.

    >>> position_bins(45, 10).tolist()
    [0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0, 40.0, 45.0]
    """
    widths = (digit * 10**power for power in range(18) for digit in (1, 2, 5))
    width = next(width for width in widths if width * most >= longest)
    edges: Array = width * np.arange(-(-longest // width) + 1, dtype=np.float64)
    return edges


def end_bins(longest: int) -> Array:
    """Edges of bins that grow from the end: single tokens at first, then half as wide again.

    >>> end_bins(20).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0]
    """
    edges = [0, 1, 2, 3, 4]
    while edges[-1] < longest:
        edges.append(edges[-2] * 2 if len(edges) % 2 == 0 else edges[-1] * 3 // 2)
    upto = next(k for k, edge in enumerate(edges) if edge >= longest)
    return np.asarray(edges[: upto + 1], dtype=np.float64)


def quantile_bins(x: Array, most: int) -> Array:
    """Edges between which about equally many of x lie, [a, b) each; fewer where many are equal. At least one bin."""
    edges = np.unique(np.quantile(x, np.linspace(0, 1, most + 1), method="higher"))
    edges[-1] = np.nextafter(edges[-1], np.inf)
    return edges if len(edges) > 1 else np.array([edges[0] - 1.0, edges[0]])


def _variance(mean: Array, square: Array) -> Array:
    variance = square - mean**2
    result: Array = np.where(variance > NOTHING * square, variance, 0.0 * variance)
    return result
