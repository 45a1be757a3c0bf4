"""Progress of a stage in tokens, from its first seconds on: a small file in its folder, for those who watch."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vcppo.models.distributed import world
from vcppo.models.token_count import observed_by
from vcppo.planning.lengths import lengths_of
from vcppo.planning.time_estimate import stage_work
from vcppo.stages.context import StageContext
from vcppo.store.stage_progress import read_progress, write_progress

EVERY_S = 2.0  # seconds between writings


class TokenProgress:
    """Counts tokens of a stage, those of earlier processes among them, and writes them now and then."""

    def __init__(self, context: StageContext, clock: Callable[[], float] = time.monotonic) -> None:
        stage, settings = context.folder.address.stage, context.settings
        work = stage_work("rl" if stage == "preference" else stage, settings, lengths_of(settings))
        self._expected = work.prompts + work.generated + work.scored + work.trained
        self._folder, self._clock = context.folder.path, clock
        earlier = read_progress(self._folder)
        self._tokens, self._seconds = (0, 0.0) if earlier is None else (earlier.tokens, earlier.seconds)
        self._last = self._written = clock()

    def __call__(self, tokens: int) -> None:
        """Count tokens of this process; of several processes each does a share."""
        self._tokens += tokens * world().size
        if self._clock() - self._written >= EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the count; of several processes the main one does."""
        now = self._clock()
        self._seconds += now - self._last
        self._last = self._written = now
        if world().is_main:
            write_progress(self._folder, tokens=self._tokens, expected=self._expected, seconds=self._seconds)


@contextmanager
def shown(context: StageContext) -> Iterator[None]:
    """Keep the count of a stage's tokens in its folder while the block runs it."""
    progress = TokenProgress(context)
    with observed_by(progress):
        yield
