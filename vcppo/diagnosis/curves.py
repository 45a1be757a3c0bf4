"""The critic along an axis: by position from the start and from the end, by fraction, by length, by predicted value.

A bin is told if at least `FEWEST` responses have a token in it: fewer say more of those responses than of the critic.
"""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vcppo.diagnosis.estimates import estimates, number
from vcppo.diagnosis.schema import Calibration, Curve
from vcppo.maths.critic_error import end_bins, error_parts, position_bins, quantile_bins
from vcppo.maths.prompt_bootstrap import Array, Index, Measured, PromptBootstrap

FEWEST = 8  # responses behind a bin
MOST_BINS = 24  # along positions
TENTHS = 10  # bins of fraction, length and predicted value


class Cells(Protocol):
    """Numbers that a curve is computed from, as `Tokens` of measures has them. N tokens of B responses."""

    @property
    def value(self) -> Array: ...  # [N]
    @property
    def row(self) -> Index: ...  # [N]
    @property
    def position(self) -> Index: ...  # [N]
    @property
    def lengths(self) -> Index: ...  # [B]
    @property
    def fraction(self) -> Array: ...  # [N]
    @property
    def unit(self) -> Index: ...  # [N]
    @property
    def shift(self) -> float: ...
    @property
    def columns(self) -> list[Array]: ...  # of error_columns
    @property
    def bootstrap(self) -> PromptBootstrap: ...


def from_start(tokens: Cells) -> Curve:
    """By position from 0, in bins of equal width; x is the mean position of a bin's tokens."""
    longest = int(tokens.position.max()) + 1
    return _curve(tokens, tokens.position.astype(np.float64), position_bins(longest, MOST_BINS))


def from_end(tokens: Cells) -> Curve:
    """By tokens still to come after this one, 0 for the last, in bins that grow with the distance from the end."""
    to_come = tokens.lengths[tokens.row] - 1 - tokens.position
    return _curve(tokens, to_come.astype(np.float64), end_bins(int(to_come.max()) + 1))


def by_fraction(tokens: Cells) -> Curve:
    """By fraction of the response, (position + 1/2) / length, in tenths."""
    return _curve(tokens, tokens.fraction, np.linspace(0, 1, TENTHS + 1))


def by_length(tokens: Cells) -> Curve:
    """By the response's length, in bins of about as many responses each, ten at most; x is the mean over tokens."""
    used = tokens.lengths[tokens.lengths > 0].astype(np.float64)
    edges = quantile_bins(used, min(TENTHS, max(1, len(used) // FEWEST)))
    return _curve(tokens, tokens.lengths[tokens.row].astype(np.float64), edges)


def calibration(tokens: Cells) -> Calibration:
    """By predicted value, in bins of about as many tokens each; one bin if all values are equal."""
    edges = quantile_bins(tokens.value, TENTHS)
    index, described, n, _ = _binned(tokens, tokens.value, edges)
    sums = tokens.bootstrap.sums(tokens.unit, tokens.columns, len(edges) - 1, index)[:, described]

    def statistic(s: Array) -> Array:
        return error_parts(s, tokens.shift).return_mean

    value = error_parts(sums.sum(axis=0), tokens.shift)
    result = tokens.bootstrap.interval(value.return_mean, statistic(tokens.bootstrap.drawn(sums)))
    return Calibration(
        predicted_mean=tuple(map(float, value.value_mean)),
        return_mean=estimates(result, tokens.bootstrap, ""),
        n=tuple(map(int, n[described])),
    )


def _curve(tokens: Cells, x: Array, edges: Array) -> Curve:
    """[N] x in bins of edges, [a, b) each."""
    index, described, n, responses = _binned(tokens, x, edges)
    bins = len(edges) - 1
    sums = tokens.bootstrap.sums(tokens.unit, tokens.columns, bins, index)[:, described]
    value, drawn = (error_parts(s, tokens.shift) for s in (sums.sum(axis=0), tokens.bootstrap.drawn(sums)))

    def of(name: str) -> Measured:
        return tokens.bootstrap.interval(getattr(value, name), getattr(drawn, name))

    middle = np.bincount(index, weights=x, minlength=bins)[described] / n[described]
    return Curve(
        x=tuple(map(float, middle)),
        n=tuple(map(int, n[described])),
        responses=tuple(map(int, responses[described])),
        value_mean=tuple(number(mean) for mean in value.value_mean),
        return_mean=tuple(number(mean) for mean in value.return_mean),
        bias=estimates(of("bias"), tokens.bootstrap, ""),
        explained_variance=estimates(of("explained_variance"), tokens.bootstrap, "all returns are equal"),
    )


def _binned(tokens: Cells, x: Array, edges: Array) -> tuple[Index, NDArray[np.bool_], Index, Index]:
    """Bin of each token, [N]; which bins are told, their tokens and responses, [bins] each."""
    bins = len(edges) - 1
    index = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, bins - 1).astype(np.int64)
    n = np.bincount(index, minlength=bins)
    pairs = np.unique(index * len(tokens.lengths) + tokens.row)
    responses = np.bincount(pairs // len(tokens.lengths), minlength=bins)
    fewest = min(FEWEST, int((tokens.lengths > 0).sum()))
    return index, responses >= fewest, n, responses
