"""When a stage saves the state that it resumes from: by its steps, and by the time since it last did."""

import time
from collections.abc import Callable

from vcppo.models.distributed import world


class CheckpointClock:
    """Of several processes the main one's clock counts, so that all save or none does."""

    def __init__(self, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s, self._clock = every_s, clock
        self._last = clock()

    def is_due(self, by_steps: bool) -> bool:
        """Whether to save now: the steps say so, or the last time is long enough ago; if so, time counts anew."""
        due = world().from_main(by_steps or self._clock() - self._last >= self._every_s)
        if due:
            self._last = self._clock()
        return due
