"""Intervals over prompts: tokens of a response are not independent, nor are responses to one prompt.

The cluster bootstrap (Davison & Hinkley 1997, section 3.8; Field & Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x):
whole prompts are drawn with replacement, with all that is theirs. A statistic is written as a function of sums over
prompts, so that a resample costs one row of a matrix product and nobody loops over tokens.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats takes half a second to load, and is at its first use
from numpy.typing import ArrayLike, NDArray

from vcppo.errors import DataError

Array = NDArray[np.float64]
Index = NDArray[np.int64]

CONFIDENCE = 0.95
MOST_UNITS = 4096  # beyond so many prompts, groups of them are drawn: intervals hardly change, memory stays
ROUNDING = 1e-9  # resamples that differ by less, as a share of the value, agree
FEWEST_DEFINED = 0.9  # share of resamples in which a statistic must be defined, or its interval is unknown


@dataclass(frozen=True)
class Measured:
    """M numbers with both ends of their intervals; NaN where there is none."""

    value: Array  # [M]
    low: Array  # [M]
    high: Array  # [M]
    agree: NDArray[np.bool_]  # [M] no interval because it comes out the same whichever prompts are drawn

    def only(self, at: int) -> "Measured":
        """One of the numbers, [1]."""
        one = slice(at, at + 1)
        return Measured(self.value[one], self.low[one], self.high[one], self.agree[one])


@dataclass(frozen=True)
class PromptBootstrap:
    """Prompts that each resample draws, and how often. R resamples, U units: prompts, or groups of them."""

    prompt: Index  # [B] of each response, numbered from 0
    unit: Index  # [P] of each prompt, numbered from 0
    counts: Array  # [R, U]

    @property
    def prompts(self) -> int:
        """P."""
        return len(self.unit)

    @property
    def units(self) -> int:
        """U."""
        return int(self.counts.shape[1])

    def per_unit(self, per_prompt: Array) -> Array:
        """Sum [P, ...] over the prompts of each unit: [U, ...]."""
        if self.units == self.prompts:
            return per_prompt
        summed = np.zeros((self.units, *per_prompt.shape[1:]))
        np.add.at(summed, self.unit, per_prompt)
        return summed

    def sums(self, unit: Index, columns: list[Array], bins: int = 1, index: Index | None = None) -> Array:
        """Sums of columns by unit and bin.

        Args:
            unit: [N] of each item. columns: K of [N]. index: [N] in 0..bins-1, one bin for all without it.
        Returns:
            [U, bins, K].
        """
        cell = unit * bins if index is None else unit * bins + index
        size = self.units * bins
        result: list[Array] = [
            np.bincount(cell, weights=column, minlength=size).astype(np.float64) for column in columns
        ]
        return np.stack(result, axis=-1).reshape(self.units, bins, len(columns))

    def drawn(self, per_unit: Array) -> Array:
        """[U, ...] as [R, ...]: the sum of each resample."""
        flat = per_unit.reshape(self.units, -1)
        return (self.counts @ flat).reshape(len(self.counts), *per_unit.shape[1:])

    def measured(self, statistic: Callable[[Array], Array], per_unit: Array) -> Measured:
        """A statistic of sums over units.

        Args:
            statistic: [..., S] to [..., M], NaN where it is not defined. per_unit: [U, S].
        """
        return self.interval(statistic(per_unit.sum(axis=0)), statistic(self.drawn(per_unit)))

    def interval(self, value: Array, resampled: Array) -> Measured:
        """Percentile intervals, levels moved outwards for few units (Hesterberg 2015, The American Statistician 69(4)).

        A percentile interval of n units is too narrow by about sqrt((n - 1) / n) and by normal for Student quantiles;
        taken at Phi(-sqrt(n / (n - 1)) t) it makes up for both.

        Args:
            value: [M], of the data. resampled: [R, M].
        Returns:
            Without an interval: of a single unit, where the value is NaN, where it is in more than a tenth of the
            resamples, and where all resamples agree, which `agree` tells from the others, and which says nothing of
            the prompts that were not drawn.
        """
        value, resampled = np.atleast_1d(value), resampled.reshape(len(resampled), -1)
        low, high = np.full((2, len(value)), math.nan)
        agree = np.zeros(len(value), dtype=bool)
        if self.units == 1:
            return Measured(value, low, high, agree)
        known = np.isfinite(resampled)
        usable = np.isfinite(value) & (known.mean(axis=0) >= FEWEST_DEFINED)
        if usable.any():
            rows = np.where(known, resampled, math.nan)[:, usable]
            tail = outer_tail(self.units, CONFIDENCE)
            ends = np.nanquantile(rows, [tail, 1 - tail], axis=0)
            apart = np.nanmax(rows, axis=0) - np.nanmin(rows, axis=0)
            agree[usable] = apart <= ROUNDING * np.abs(value[usable])
            low[usable], high[usable] = np.where(agree[usable], math.nan, ends)
        return Measured(value, low, high, agree)


def prompt_bootstrap(problem: ArrayLike, *, resamples: int, rng: np.random.Generator) -> PromptBootstrap:
    """Draw the prompts of every resample once: all statistics see the same draws.

    Prompts are numbered by their ids, so that the order of responses changes nothing.

    Args:
        problem: [B] int, equal for responses to the same prompt.
    Raises:
        DataError: no response.
    """
    ids = np.asarray(problem, dtype=np.int64).reshape(-1)
    if not len(ids):
        raise DataError("prompt_bootstrap: no response: expected at least one")
    names, prompt = np.unique(ids, return_inverse=True)
    count = len(names)
    units = min(count, MOST_UNITS)
    unit = np.arange(count) if units == count else rng.permutation(np.arange(count) % units)
    counts = rng.multinomial(units, np.full(units, 1 / units), size=resamples).astype(np.float64)
    return PromptBootstrap(prompt.reshape(-1).astype(np.int64), unit.astype(np.int64), counts)


def outer_tail(units: int, confidence: float) -> float:
    """The share of resamples left out at either end.

    >>> round(outer_tail(1_000_000, 0.95), 4), round(outer_tail(10, 0.95), 4)
    (0.025, 0.0086)
    """
    quantile = scipy.stats.t.ppf((1 + confidence) / 2, units - 1) * math.sqrt(units / (units - 1))
    return float(scipy.stats.norm.cdf(-quantile))
