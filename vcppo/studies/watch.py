"""Progress of a running cell: its stage, its step, its latest accuracy and length, and whether it warns."""

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vcppo.settings.fixed import SILENT_CELL_S
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import JournalTail
from vcppo.store.stage_progress import read_progress
from vcppo.store.summary import EARLY_WARNING, LAST_ITERATIONS
from vcppo.studies.signs import Silence, signs_of, silence_words, stages_in_view


@dataclass(frozen=True)
class Glance:
    """A cell at one moment. `total` is None where a stage does not count; accuracy and length are RL's latest.

    The rate and the time left are the stage's, and None before it has gone through any tokens.
    """

    stage: str | None = None
    step: int = 0
    total: int | None = None
    accuracy: float | None = None
    length_tokens: float | None = None
    warned_at: int | None = None  # the first iteration with an early warning
    tokens_per_s: float | None = None
    seconds_left: float | None = None  # at most: as if every response were as long as it may be
    waits: str | None = None  # for which stage, that another process works on, and who that is
    silent_s: float | None = None  # without a sign of life, once that is worth telling


class CellWatch:
    """Follows one cell through its stages by its record and their journals."""

    def __init__(
        self, folder: CellFolder, out: Path, clock: Callable[[], float] = time.monotonic, log: Path | None = None
    ) -> None:
        self.folder, self.out, self._clock, self._log = folder, out, clock, log
        self._silence, self._remarks = Silence(clock()), list[str]()
        self._waits: str | None = None
        self.settings = folder.settings()
        self.accuracy: dict[int, float] = {}  # by RL iteration
        self._tails: dict[str, JournalTail] = {}
        self._steps: dict[str, int] = defaultdict(int)
        self._length: float | None = None
        self._warned_at: int | None = None

    def look(self) -> Glance:
        """Return the state of the cell now."""
        cell = self.folder.read()
        stages = stages_in_view(cell)
        for record in stages:
            journal = self.out / "cache" / record.stage / record.address / "journal.jsonl"
            tail = self._tails.setdefault(f"{record.stage}/{record.address}", JournalTail(journal))
            restarts, entries = tail.restarts, tail.read()
            if tail.restarts > restarts and record.stage == "rl":
                self.accuracy.clear()  # of an attempt that was cut back: none of it counts beside the next one's
            for entry in entries:
                if entry["kind"] == "metrics":
                    self._take(record.stage, entry["step"], entry["values"])
        waits = None if cell.waits is None else str(cell.waits)
        if waits is not None and waits != self._waits:
            self._remarks.append(waits)
        self._waits = waits
        runs = cell.state == "running"  # a worker on a cluster may have to wait for a place first
        silent_s = self._silence.seconds(signs_of(self.folder, self.out, cell), self._clock()) if runs else 0.0
        if self._silence.is_news(silent_s):
            self._remarks.append(silence_words(cell, self.out, silent_s, self._log))
        shown_s = silent_s if silent_s >= SILENT_CELL_S else None
        if not stages:
            return Glance(silent_s=shown_s)
        stage = stages[-1].stage
        latest = self.accuracy[max(self.accuracy)] if self.accuracy else None
        total = stage_steps(self.settings, stage)
        progress = read_progress(self.out / "cache" / stage / stages[-1].address)
        rates = (None, None) if progress is None else (progress.tokens_per_s, progress.seconds_left)
        return Glance(stage, self._steps[stage], total, latest, self._length, self._warned_at, *rates, waits, shown_s)

    def remarks(self) -> list[str]:
        """Return what the user should read since the last call: whom the cell waits for, that it has been silent."""
        remarks, self._remarks = self._remarks, []
        return [f"{self.folder.path.name} {line}" for line in remarks]

    def recent_accuracy(self, step: int) -> float | None:
        """Return the mean over the last iterations up to `step`; None before the cell has reached it."""
        if step not in self.accuracy:
            return None
        window = [self.accuracy[at] for at in range(step - LAST_ITERATIONS + 1, step + 1) if at in self.accuracy]
        return sum(window) / len(window)

    def _take(self, stage: str, step: int, values: dict[str, float | None]) -> None:
        self._steps[stage] = step
        accuracy = values.get("rollout/accuracy")
        if stage == "rl" and accuracy is not None:
            self.accuracy[step] = accuracy
            self._length = values.get("rollout/length_tokens")
            if any(value for name, value in values.items() if name.startswith(EARLY_WARNING)):
                self._warned_at = step if self._warned_at is None else min(self._warned_at, step)


def stage_steps(settings: RunSettings, stage: str) -> int | None:
    """Return how many steps a stage counts at most, None if it does not count."""
    steps = settings.pretrain.steps
    totals = {
        "cold-start": settings.cold_start.steps,
        "reward-model": settings.reward_model.steps,
        "value-pretraining": settings.pretrain.max_steps if steps == "converge" else steps,
        "rl": settings.steps,
    }
    return totals.get(stage)
