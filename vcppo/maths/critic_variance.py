"""Components of a critic's variance: position, prompt, and the response itself; and the information in the last.

The components enter in a fixed order (a nested analysis of variance): first the position, counted from the response's
start, which is all of a position that a critic can know, since how many tokens are still to come it cannot; then the
prompt, alone and with position; what is left is between responses to one prompt at one position. The prompt is here
all that stands before a response, its first state: of a response of several turns the earlier ones too.
All three come from mean squared differences of pairs, which are unbiased however few responses a prompt has (Searle,
Casella & McCulloch 1992, chapter 3, for the one-way case):

    total    = 1/2 E (v - v')^2    two tokens of different prompts, any positions
    within   = 1/2 E (v - v')^2    two tokens of different prompts at one position, mean over tokens' positions
    neither  = 1/2 E (v - v')^2    two responses from one first state at one position, likewise
    position = total - within,  prompt = within - neither

so shares of the total sum to 1; being unbiased, a share that is 0 may come out slightly below. Where no first state has
two responses, prompt and neither cannot be told apart.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vcppo.maths.prompt_bootstrap import Array, Index, Measured, PromptBootstrap

MOST_POSITIONS = 256  # of longer responses so many are looked at, most where most tokens are,
MOST_CELLS = 10**6  # and fewer where prompts times positions would be more than this


@dataclass(frozen=True)
class Composition:
    """M = 6 numbers over tokens, see COMPOSITION, and the pairs behind `neither`."""

    measured: Measured
    pairs: float  # degrees of freedom of the variance between responses from one first state at one position


COMPOSITION = ("position", "prompt", "neither", "first_token", "correlation", "slope")


def looked_at(position: Index, prompts: int) -> Index:
    """Positions that `composition` looks at: all of up to 256, else so many quantiles of those of all tokens.

    A few responses that run on to a limit have few of them so, where no two responses to a prompt would meet.

    Args:
        position: [N] of each token.

    >>> looked_at(np.array([0, 1, 0, 2, 1]), 10).tolist(), len(looked_at(np.arange(5_000), 50_000))
    ([0, 1, 2], 20)
    """
    most = min(MOST_POSITIONS, max(2, MOST_CELLS // prompts))
    places = np.unique(position)
    if len(places) <= most:
        return places
    return np.unique(np.quantile(position, np.linspace(0, 1, most), method="nearest"))


def composition(
    value: Array, target: Array, position: Index, prompt: Index, state: Index, bootstrap: PromptBootstrap
) -> Composition:
    """Shares of the variance of the values, and what the part beyond the position says of the return.

    Args:
        value, target, position, prompt, state: [N], tokens at the positions looked at, `position` numbered from 0; a
            response has one token at each. state: of each response's start, equal for one prompt only.
    Returns:
        position, prompt, neither: shares that sum to 1; prompt and neither NaN without two responses from a state.
        first_token: variance between responses from one first state at position 0 over that at all positions: 0, for
            V(s_0) knows that state alone.
        correlation, slope: of value with return, of return on value, both less their mean at the position. NaN where
            the position explains all values, or all returns; the slope is 1 if what the critic says beyond the position
            is calibrated.
    """
    places, prompts = int(position.max()) + 1, bootstrap.prompts
    v, g = value - np.median(value), target - np.median(target)
    cell = prompt * places + position
    count, first, second = (
        np.bincount(cell, weights=column, minlength=prompts * places).reshape(prompts, places)
        for column in (np.ones_like(v), v, v * v)
    )
    alike = count * second - first**2  # [P, places], sum of squared differences over pairs of responses to one prompt
    squares, freedom = _about_their_mean(v, state * places + position)
    sums = bootstrap.sums(bootstrap.unit[prompt], [np.ones_like(v), v, v * v, g, g * g, v * g], places, position)
    of_responses = bootstrap.sums(bootstrap.unit[prompt], [squares, freedom], places, position)
    everywhere = [count.sum(axis=1), first.sum(axis=1), second.sum(axis=1)]
    same = bootstrap.per_unit(
        np.concatenate(
            [alike, count**2, np.stack([everywhere[0] * everywhere[2] - everywhere[1] ** 2, everywhere[0] ** 2], 1)], 1
        )
    )
    shape = (-1, places, 2)

    def of(counts: Array) -> Array:
        drawn = (counts @ sums.reshape(len(sums), -1)).reshape(len(counts), places, 6)
        pairs = (counts @ of_responses.reshape(len(of_responses), -1)).reshape(shape)
        return _composition(drawn, pairs, counts**2 @ same)

    value_of = of(np.ones((1, bootstrap.units)))[0]
    return Composition(bootstrap.interval(value_of, of(bootstrap.counts)), float(freedom.sum()))


def between_prompts(score: Array, bootstrap: PromptBootstrap) -> Measured:
    """Share of the scores' variance that lies between prompts: what a critic can know before the first token.

    Args:
        score: [B].
    Returns:
        [1]; NaN without two responses to a prompt, or where all scores are equal.
    """
    place = np.zeros(len(score), dtype=np.int64)
    return composition(score, score, place, bootstrap.prompt, bootstrap.prompt, bootstrap).measured.only(1)


def roughness(values: Array, live: NDArray[np.bool_], bootstrap: PromptBootstrap) -> Measured:
    """Mean squared step from one token to the next over twice the variance (von Neumann 1941): 1 of white noise.

    Args:
        values: [B, T] float. live: [B, T] bool, tokens whose value is known.
    Returns:
        [1]; NaN of a constant.
    """
    known = np.where(live, values, 0.0)
    shifted = np.where(live, known - np.median(values[live]), 0.0)
    both = live[:, 1:] & live[:, :-1]
    steps = np.where(both, shifted[:, 1:] - shifted[:, :-1], 0.0)
    columns = [x.sum(axis=1) for x in (live, shifted, shifted**2, both, steps**2)]
    sums = bootstrap.sums(bootstrap.unit[bootstrap.prompt], [column.astype(np.float64) for column in columns])[:, 0]

    def ratio(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = total[..., 2] / total[..., 0] - (total[..., 1] / total[..., 0]) ** 2
            step = total[..., 4] / total[..., 3]
            result: Array = np.where(variance > 0, step / (2 * variance), np.nan)
        return result[..., None]

    return bootstrap.measured(ratio, sums)


def _composition(drawn: Array, own: Array, same: Array) -> Array:
    """[R, places, 6] sums, [R, places, 2] within prompts, [R, 2 places + 2] pairs of one prompt: [R, 6]."""
    places = drawn.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        n, v, vv, g, gg, vg = (drawn[..., k] for k in range(6))
        total = _half_square(n.sum(1), v.sum(1), vv.sum(1), same[:, -2], same[:, -1])
        within = _weighted(_half_square(n, v, vv, same[:, :places], same[:, places:-2]), n)
        apart = np.where(own[..., 1] > 0, own[..., 0] / own[..., 1], np.nan)
        beyond = (own[:, 1:, 1] > 0).any(axis=1) | (places == 1)  # at their first token responses cannot differ yet
        neither = np.where(beyond, _weighted(apart, n), np.nan)
        mean = np.maximum(n, 1)
        spread, covariance = (vv - v * v / mean).sum(1), (vg - v * g / mean).sum(1)
        returns = (gg - g * g / mean).sum(1)
        returns = np.where(returns > 1e-9 * gg.sum(1), returns, np.nan)
        some = np.where(total > 0, total, np.nan)
        spread = np.where(spread > 1e-9 * vv.sum(1), spread, np.nan)
        return np.stack(
            [
                (total - within) / some,
                (within - neither) / some,
                neither / some,
                apart[:, 0] / np.where(neither > 0, neither, np.nan),
                covariance / np.sqrt(spread * returns),
                np.where(returns > 0, covariance, np.nan) / spread,
            ],
            axis=1,
        )


def _about_their_mean(v: Array, cell: Index) -> tuple[Array, Array]:
    """[N] squared deviations from the mean of each one's cell, and degrees of freedom, which sum to a cell's n - 1."""
    _, cell = np.unique(cell, return_inverse=True)
    count, first, second = (np.bincount(cell, weights=column)[cell] for column in (np.ones_like(v), v, v * v))
    squares = (v - first / count) ** 2
    return np.where(squares > 1e-12 * second, squares, 0.0), 1 - 1 / count


def _half_square(n: Array, first: Array, second: Array, alike: Array, pairs: Array) -> Array:
    """Half the mean squared difference over pairs of different prompts; NaN without one.

    The sum over pairs of (v - v')^2 is n sum v^2 - (sum v)^2, less that of one prompt's; twice the pairs n^2 - sum m^2.
    """
    result: Array = np.where(n * n - pairs > 0.5, (n * second - first**2 - alike) / (n * n - pairs), np.nan)
    return np.where((result < 0) & (result > -1e-12 * second / n), 0.0, result)


def _weighted(x: Array, weight: Array) -> Array:
    """Mean along the last axis over those that are known; NaN of none."""
    known = np.isfinite(x)
    result: Array = np.where(known, x * weight, 0.0).sum(-1) / np.where(known, weight, 0.0).sum(-1)
    return result
