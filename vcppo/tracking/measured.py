"""A study's runs as an export reads them, from disk or from a tracking server."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from vcppo.errors import StudyError
from vcppo.maths.settling import Measurement, Settled
from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import ENDED
from vcppo.store.pretrained_critics import end_of
from vcppo.store.summary import Curves

NAMED = 6  # unfinished cells in a message
Tables = dict[int, dict[str, list[Any]]]  # step -> columns


@dataclass(frozen=True)
class Pretraining:
    """A value pretraining, which several cells may have started from."""

    curves: Curves
    tables: dict[str, Tables] = field(default_factory=dict)  # by name


@dataclass(frozen=True)
class MeasuredCell:
    """A cell that has ended, with the value pretraining that it started from."""

    run_id: str
    cell: str
    arm: str
    seed: int
    state: str
    settings: RunSettings
    settings_hash: str
    curves: Curves  # of RL and evaluation
    error: str = ""
    wall_s: float | None = None
    swept: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)
    commit: str = "unknown"
    pretraining: Pretraining | None = None
    tables: dict[str, Tables] = field(default_factory=dict)  # of RL and evaluation, by name; of a cell that is done

    @property
    def base_seed(self) -> int:
        """The seed of its cold start and reward model."""
        return self.settings.base_seed

    @property
    def done(self) -> bool:
        """True where the cell has ended with results."""
        return self.state == "done"

    @property
    def evaluated_problems(self) -> int:
        """Number of problems of the evaluation."""
        tables = self.tables.get("problems")
        if tables:
            return len(tables[max(tables)]["problem"])
        task = self.settings.task
        if not isinstance(task, EmbeddedTaskSettings):
            return 0  # the size of a set is known once its problems are evaluated
        return task.problems(self.settings.evaluation.problems)

    @property
    def pretrain_steps(self) -> int:
        """Updates of value pretraining behind the critic that RL began with; the journal may go on for other cells."""
        done = self.result.get("pretrain_steps_done")
        if done is not None:
            return int(done)
        if self.pretraining is None:
            return 0
        end = self._pretraining_end()
        return end.best if end is not None else self._pretraining_so_far

    @property
    def pretrain_updates(self) -> int:
        """Updates that value pretraining took before it was decided which critic RL begins with: at least its own."""
        if self.pretraining is None:
            return 0
        end = self._pretraining_end()
        return end.stopped if end is not None else self._pretraining_so_far

    @property
    def _pretraining_so_far(self) -> int:
        curves = self.pretraining.curves.values() if self.pretraining is not None else ()
        return max((max(by_step) for by_step in curves), default=0)

    def _pretraining_end(self) -> Settled | None:
        """Return the end of the pretraining by these settings, None while that is undecided."""
        assert self.pretraining is not None
        curves = self.pretraining.curves
        losses, spreads = (curves.get(f"pretrain/{name}", {}) for name in ("held_out_loss", "explained_variance"))
        measurements = [Measurement(step, losses[step], spreads.get(step, math.nan)) for step in sorted(losses)]
        return end_of(measurements, self.settings.pretrain)


@dataclass(frozen=True)
class MeasuredStudy:
    """The cells of a study that have ended, by arm, base seed, seed and name."""

    name: str
    cells: tuple[MeasuredCell, ...]
    given: str = ""  # options of the command line, `--set` among them, as study.json has them

    @classmethod
    def of(cls, name: str, cells: Sequence[MeasuredCell], given: str = "") -> "MeasuredStudy":
        """Build it with the cells sorted."""
        return cls(name, tuple(sorted(cells, key=lambda cell: (cell.arm, cell.base_seed, cell.seed, cell.cell))), given)


def refuse_unfinished(study: str, states: dict[str, str], remedy: str) -> None:
    """Check that every cell has ended.

    Args:
        states: by cell, in the wording of messages.
    Raises:
        StudyError: one has not; the message names the first of them and ends with the remedy.
    """
    cells = [f"{cell} ({state})" for cell, state in sorted(states.items()) if state not in ENDED]
    if cells:
        listed = ", ".join(cells[:NAMED]) + (f" and {len(cells) - NAMED} more" if len(cells) > NAMED else "")
        raise StudyError(
            f"study {study} is incomplete, {len(cells)} of {len(states)} cells missing: {listed}; {remedy}"
        )


def refuse_empty(study: str, where: str, ended: int) -> None:
    """Check that there is something to export.

    Raises:
        StudyError: no cell has ended.
    """
    if not ended:
        raise StudyError(f"study {study} ({where}): no cell of it has ended, so there is nothing to export")
