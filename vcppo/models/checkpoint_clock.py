"""Checkpoints by the clock: a stage saves its state by its steps, and by the time since it last did."""

import time
from collections.abc import Callable

from vcppo.models.distributed import world


class CheckpointClock:
    """A clock for checkpoints; of several processes the main one's counts, so that all save or none does."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._last = clock()

    def is_due(self, by_steps: bool) -> bool:
        """True if a save is due, by the steps or by the time since the last; if so, time counts anew."""
        due = world().from_main(by_steps or self._clock() - self._last >= self._every_s)
        if due:
            self._last = self._clock()
        return due
