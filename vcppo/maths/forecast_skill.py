"""Skill of a number, known before a run, at telling whether the run fails: ranks, chances, thresholds.

A score is larger where failure is thought more likely. NumPy and SciPy only, as in `statistics`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vcppo.errors import DataError
from vcppo.maths.statistics import probability_of_improvement

Array = NDArray[np.float64]
Verdict = Literal["uphill", "cannot-tell", "signal-lost", "collapse-forecast"]
VERDICTS: tuple[Verdict, ...] = ("uphill", "cannot-tell", "signal-lost", "collapse-forecast")  # the gravest last
NEWTON_STEPS = 50


def verdict_of(cosine: tuple[float, float], gain_high: float) -> Verdict:
    """The gravest verdict of `vcppo diagnose` on one critic at one lambda (vcppo/diagnosis/uphill.py).

    Args:
        cosine: both ends of the 95 % interval of the cosine with the gradient of the score; NaN if it cannot be told.
        gain_high: upper end of that of an update's gain as a share of Monte-Carlo's; NaN likewise.

    >>> verdict_of((-0.9, -0.8), 0.1), verdict_of((0.8, 0.9), 0.6), verdict_of((0.8, 0.9), 1.1)
    ('collapse-forecast', 'signal-lost', 'uphill')
    """
    if cosine[1] < 0:
        return "collapse-forecast"
    if gain_high < 1:
        return "signal-lost"
    return "uphill" if cosine[0] > 0 else "cannot-tell"


def auc(scores: ArrayLike, failed: ArrayLike) -> float:
    """Chance that a run that failed has a higher score than one that did not, ties half; NaN where all ended alike.

    >>> auc([3.0, 1.0, 2.0], [True, False, False]), auc([1.0, 1.0], [True, False])
    (1.0, 0.5)
    """
    x, y = _both(scores, failed)
    if y.all() or not y.any():
        return float("nan")
    return float(probability_of_improvement(x[y], x[~y]))


def brier(chances: ArrayLike, failed: ArrayLike) -> float:
    """Mean square of what chances of failure were off by (Brier 1950): 0 at best, 0.25 for one half of everything."""
    x, y = _both(chances, failed)
    return float(np.mean((x - y) ** 2))


@dataclass(frozen=True)
class Logistic:
    """A chance of failure that rises or falls with one score."""

    intercept: float
    slope: float  # of the score less `centre`, in units of `spread`
    centre: float
    spread: float

    @classmethod
    def fit(cls, scores: ArrayLike, failed: ArrayLike) -> "Logistic":
        """Fit it by maximum likelihood, the slope with a standard normal prior, so that it stays finite.

        Args:
            scores: [n], standardised here. failed: [n] bool.
        """
        x, y = _both(scores, failed)
        spread = float(np.std(x)) or 1.0
        centre = float(np.mean(x))
        columns = np.stack([np.ones(len(x)), (x - centre) / spread], axis=1)
        weights, prior = np.zeros(2), np.diag([1e-6, 1.0])
        for _ in range(NEWTON_STEPS):
            chance = _chance(columns @ weights)
            slope = columns.T @ (chance - y) + prior @ weights
            curvature = (columns * (chance * (1 - chance))[:, None]).T @ columns + prior
            weights = weights - np.linalg.solve(curvature, slope)
        return cls(float(weights[0]), float(weights[1]), centre, spread)

    def chances(self, scores: ArrayLike) -> Array:
        """[n], of runs with these scores."""
        standard = (np.asarray(scores, dtype=np.float64) - self.centre) / self.spread
        return _chance(self.intercept + self.slope * standard)


def best_threshold(scores: ArrayLike, failed: ArrayLike) -> float:
    """The score from which on a run is best predicted to fail: half-way between two scores, by `balanced_accuracy`.

    Of several as good the one in the widest gap. NaN where all ended alike, or all scores are equal.
    """
    x, y = _both(scores, failed)
    levels = np.unique(x)
    if y.all() or not y.any() or len(levels) < 2:
        return float("nan")
    between = (levels[1:] + levels[:-1]) / 2
    reached = np.array([balanced_accuracy(x > at, y) for at in between])
    best = np.flatnonzero(reached >= reached.max() - 1e-12)
    widths = levels[best + 1] - levels[best]
    return float(between[best[int(np.argmax(widths))]])


def balanced_accuracy(predicted: ArrayLike, failed: ArrayLike) -> float:
    """Mean share of failed runs that were predicted to fail, and of others that were not; NaN if all ended alike."""
    x, y = _both(predicted, failed)
    if y.all() or not y.any():
        return float("nan")
    return float((np.mean(x[y]) + np.mean(1 - x[~y])) / 2)


def _both(scores: ArrayLike, failed: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    x, y = np.asarray(scores, dtype=np.float64), np.asarray(failed, dtype=bool)
    if x.shape != y.shape or x.ndim != 1 or not x.size:
        raise DataError(f"forecasts of shape {x.shape} beside {y.shape} runs: expected one for each of at least 1 run")
    return x, y


def _chance(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return result
