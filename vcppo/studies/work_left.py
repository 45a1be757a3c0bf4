"""Time that a study has left, by the planned minutes of the stages that it still has to run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vcppo.studies.watch import Glance

LEAST_DONE = 0.02  # of the planned work, before its speed says anything


@dataclass(frozen=True)
class PlannedStage:
    """A stage that a cell runs, or takes from the cache in no time; several cells may share it."""

    stage: str
    address: str
    minutes: float


class WorkLeft:
    """What of a study's work is done. Plans may be wrong by a factor: the study's own speed says which.

    Args:
        planned: by cell, its stages in order; none, where what they take is not known before. Each cell is then one
            stage, `rl`, as long as any other.
        cells: number of those that had not ended at the beginning.
    """

    def __init__(self, planned: Mapping[str, Sequence[PlannedStage]], cells: int) -> None:
        minutes = {stage.address: stage.minutes for stages in planned.values() for stage in stages}
        known = bool(planned) and math.isfinite(sum(minutes.values()))
        self._planned, self._minutes = (planned, minutes) if known else ({}, {})
        self._all = sum(minutes.values()) if known else float(cells)
        self._enough = LEAST_DONE * self._all if known else 0.5  # of a cell: sooner, stages that all share distort it
        # both are replaced, never changed: a live picture reads them from a thread of its own
        self._before, self._shares = dict[str, float](), dict[str, float]()

    def see(self, cell: str, glance: Glance) -> None:
        """Take note of where a running cell is: stages before its present one are done."""
        stages = self._stages(cell)
        names = [stage.stage for stage in stages]
        if glance.stage not in names:
            return
        *earlier, present = stages[: names.index(glance.stage) + 1]
        share = min(glance.step / glance.total, 1.0) if glance.total else 0.0
        self._before = {present.address: share} | self._before  # it may go on from a checkpoint
        share = max(share, self._shares.get(present.address, 0.0))
        self._shares = self._shares | {stage.address: 1.0 for stage in earlier} | {present.address: share}

    def end(self, cell: str) -> None:
        """Take note that a cell has ended, however it did."""
        self._shares = self._shares | {stage.address: 1.0 for stage in self._stages(cell)}

    @property
    def share(self) -> float:
        """Share of the work that is done, in [0, 1]."""
        return min(self._worth(self._shares) / self._all, 1.0) if self._all else 0.0

    def seconds(self, gone: float) -> float | None:
        """Seconds left after `gone` seconds; None while too little is done to say."""
        done = self._worth(self._shares)
        now = done - self._worth(self._before)
        if now <= 0.0 or now < self._enough:
            return None
        return gone * max(self._all - done, 0.0) / now

    def _worth(self, shares: Mapping[str, float]) -> float:
        return sum(share * self._minutes.get(address, 1.0) for address, share in shares.items())

    def _stages(self, cell: str) -> Sequence[PlannedStage]:
        return self._planned.get(cell) or (PlannedStage("rl", cell, 1.0),)
