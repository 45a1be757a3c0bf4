"""The end of value pretraining, the best of its critics, and the end of its first phase.

A run is measured on held-out responses every few updates. Section 4.1 of arXiv:2503.01491 and its figure 6 tell two
phases: first values come into the range of the returns, then the critic learns which tokens matter. The loss may stand
still between the two for as long as the first has taken, so patience is counted in updates, and gains too small to
count by themselves add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass

AS_GOOD = 0.01  # of the best constant's loss: an explained variance of -0.01


@dataclass(frozen=True)
class Measurement:
    """The critic on held-out responses after `step` updates."""

    step: int
    loss: float  # infinite where it was no number
    explained_variance: float
    constant_loss: float = float("nan")  # that of the best constant on the same responses; NaN: not recorded


@dataclass(frozen=True)
class Settled:
    """The end of pretraining and the best of its critics, both in updates."""

    stopped: int
    best: int  # the first with the lowest held-out loss of those measured until `stopped`


def settled(measurements: Sequence[Measurement], *, patience: int, min_delta: float) -> Settled | None:
    """Return a run's end, `patience` updates after the last improvement, and its best critic; None while it goes on.

    An improvement is a loss below (1 - min_delta) times that of the last improvement, the first measurement being
    one. It is not compared with the lowest loss so far: that would creep along with every gain below min_delta, and a
    run that gains 0.9 % at each measurement would count as one that stands still.

    Args:
        measurements: by step, rising.
        patience: updates, at least 1. min_delta: share of the loss, in [0, 1).
    """
    accepted: Measurement | None = None
    for number, m in enumerate(measurements, start=1):
        if accepted is None or m.loss < accepted.loss * (1.0 - min_delta):
            accepted = m
        elif m.step - accepted.step >= patience:
            return Settled(m.step, best_of(measurements[:number]))
    return None


def best_of(measurements: Sequence[Measurement]) -> int:
    """The step of the lowest loss, the earliest of several; at least one measurement."""
    return min(measurements, key=lambda m: m.loss).step


def first_phase_end(measurements: Sequence[Measurement]) -> int | None:
    """The step at which the critic was first as good as the best constant; None if it never was, or is not known.

    Until then its error is offset and range: whatever it knows of tokens, a constant would do better. What the loss
    falls below that constant's from here on, the critic has learnt of tokens; with token-mean losses and without bias
    the share that it falls by is the explained variance. "As good" is within `AS_GOOD` of that constant's loss, so
    that a critic that has the mean and stays blind has ended its first phase too.
    """
    return next((m.step for m in measurements if m.loss <= m.constant_loss * (1.0 + AS_GOOD)), None)
