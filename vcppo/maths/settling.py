"""When value pretraining has done its work: neither held-out loss nor explained variance improves any more."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measurement:
    """The critic on held-out answers after `step` updates."""

    step: int
    loss: float
    explained_variance: float


def settled_at(measurements: Sequence[Measurement], *, patience: int, tolerance: float) -> int | None:
    """The step at which neither loss nor explained variance has improved for `patience` measurements, None if never.

    An improvement is a loss lower than the best before by more than `tolerance` of it, or an explained variance
    higher by more than `tolerance`.
    """
    best_loss, best_variance, waited = float("inf"), float("-inf"), 0
    for m in measurements:
        better = m.loss < best_loss * (1 - tolerance) or m.explained_variance > best_variance + tolerance
        waited = 0 if better else waited + 1
        best_loss, best_variance = min(best_loss, m.loss), max(best_variance, m.explained_variance)
        if waited >= patience:
            return m.step
    return None
