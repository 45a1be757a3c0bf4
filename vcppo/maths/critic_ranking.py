"""A critic as a ranker: how often the response that will be right has the higher value (AUC), ties half.

The Mann-Whitney U statistic over pairs of a right response and one that is not, divided by their number.
"""

import numpy as np
from numpy.typing import NDArray

from vcppo.maths.prompt_bootstrap import Array, Index, Measured, PromptBootstrap
from vcppo.maths.statistics import CELLS_AT_ONCE


def wins_within(value: Array, right: NDArray[np.bool_], prompt: Index, prompts: int) -> Array:
    """Pairs of one prompt: how many the right response wins, and how many there are.

    Args:
        value: [B]. right: [B] bool. prompt: [B] int in 0..prompts-1.
    Returns:
        [prompts, 2]: wins, ties half; pairs.
    """
    order = np.lexsort((value, prompt))
    v, w, p = value[order], ~right[order], prompt[order]
    below, ties = _wrong_beside(
        np.flatnonzero(np.r_[True, (np.diff(p) != 0) | (np.diff(v) != 0)]), w[None].astype(float)
    )
    first = np.searchsorted(p, np.arange(prompts))
    before = np.r_[0.0, np.cumsum(w)][first][p]  # wrong ones of the prompts before
    won = np.where(w, 0.0, below[0] - before + ties[0] / 2)
    wrong = np.bincount(p, weights=w, minlength=prompts)
    return np.stack(
        [np.bincount(p, weights=won, minlength=prompts), (np.bincount(p, minlength=prompts) - wrong) * wrong], axis=1
    )


def auc_within(value: Array, right: NDArray[np.bool_], bootstrap: PromptBootstrap, prompt: Index) -> Measured:
    """AUC over the pairs of one prompt, all pairs of all prompts counting alike. NaN without such a pair.

    Args:
        value: [B], right: [B] bool, prompt: [B] int, those responses whose value is known.
    """
    pairs = bootstrap.per_unit(wins_within(value, right, prompt, bootstrap.prompts))
    return bootstrap.measured(_share, pairs)


def auc_across(value: Array, right: NDArray[np.bool_], bootstrap: PromptBootstrap, prompt: Index) -> Measured:
    """AUC over the pairs of two different prompts. NaN without such a pair.

    A prompt that a resample draws twice makes no pairs with itself. Arguments as of `auc_within`.
    """
    within = bootstrap.per_unit(wins_within(value, right, prompt, bootstrap.prompts))
    order = np.argsort(value, kind="stable")
    v, r = value[order], right[order]
    unit = bootstrap.unit[prompt[order]]
    starts = np.flatnonzero(np.r_[True, np.diff(v) != 0])

    def auc(counts: Array) -> Array:  # [R, U] to [R]
        weights = counts[:, unit]
        wrong = np.where(r, 0.0, weights)
        below, ties = _wrong_beside(starts, wrong)
        ranked = np.where(r, weights, 0.0)
        wins = (ranked * (below + ties / 2)).sum(axis=1)
        pairs = ranked.sum(axis=1) * wrong.sum(axis=1)
        return _share(np.stack([wins, pairs], axis=1) - counts**2 @ within)[:, 0]

    rows = max(1, CELLS_AT_ONCE // max(1, len(v)))
    every = bootstrap.counts
    drawn = np.concatenate([auc(every[start : start + rows]) for start in range(0, len(every), rows)])
    return bootstrap.interval(auc(np.ones((1, bootstrap.units))), drawn[:, None])


def _wrong_beside(starts: Index, wrong: Array) -> tuple[Array, Array]:
    """Weight of wrong responses below each one, and level with it.

    Args:
        starts: where runs of equal values start. wrong: [R, N], in order of value.
    """
    width = wrong.shape[1]
    level = np.add.reduceat(wrong, starts, axis=1)
    below = np.cumsum(level, axis=1) - level
    sizes = np.diff(np.r_[starts, width])
    return np.repeat(below, sizes, axis=1), np.repeat(level, sizes, axis=1)


def _share(pairs: Array) -> Array:
    """[..., 2] wins and pairs to [..., 1]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        result: Array = np.where(pairs[..., 1:] > 0.5, pairs[..., :1] / pairs[..., 1:], np.nan)
    return result
