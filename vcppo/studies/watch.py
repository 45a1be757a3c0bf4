"""Progress of a running cell: its stage, its step, its latest accuracy and length, and whether it warns."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import JournalTail
from vcppo.store.summary import EARLY_WARNING, LAST_ITERATIONS


@dataclass(frozen=True)
class Glance:
    """A cell at one moment. `total` is None where a stage does not count; accuracy and length are RL's latest."""

    stage: str | None = None
    step: int = 0
    total: int | None = None
    accuracy: float | None = None
    length_tokens: float | None = None
    warned_at: int | None = None  # the first iteration with an early warning


class CellWatch:
    """Follows one cell through its stages by its record and their journals."""

    def __init__(self, folder: CellFolder, out: Path) -> None:
        self.folder, self.out = folder, out
        self.settings = folder.settings()
        self.accuracy: dict[int, float] = {}  # by RL iteration
        self._tails: dict[str, JournalTail] = {}
        self._steps: dict[str, int] = defaultdict(int)
        self._length: float | None = None
        self._warned_at: int | None = None

    def look(self) -> Glance:
        """Return the state of the cell now."""
        stages = self.folder.read().stages
        for record in stages:
            journal = self.out / "cache" / record.stage / record.address / "journal.jsonl"
            tail = self._tails.setdefault(f"{record.stage}/{record.address}", JournalTail(journal))
            for entry in tail.read():
                if entry["kind"] == "metrics":
                    self._take(record.stage, entry["step"], entry["values"])
        if not stages:
            return Glance()
        stage = stages[-1].stage
        latest = self.accuracy[max(self.accuracy)] if self.accuracy else None
        total = stage_steps(self.settings, stage)
        return Glance(stage, self._steps[stage], total, latest, self._length, self._warned_at)

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
