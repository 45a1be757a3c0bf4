"""The ledger of a study: its cells, the state of each, and their trials in Optuna.

A cell's state is that of its folder; the states here are read from there, and Optuna's trials follow them.
"""

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.run import RunSettings
from vcppo.store.cache import addresses
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord, State, check_same_settings
from vcppo.studies.cells import Cell
from vcppo.studies.study import Study
from vcppo.studies.trials import (
    Scoreboard,
    distributions,
    grid_params,
    open_storage,
    signature,
    trial_name,
    trial_number,
)
from vcppo.system.files import read_json_or_move, write_json
from vcppo.system.temporaries import sweep


@dataclass
class TrialCells:
    """The cells that one trial is the score of: one in a grid, one per base and seed in a search."""

    name: str
    params: dict[str, Any]
    cells: list[Cell] = field(default_factory=list)


class StudyLedger:
    """Cells, their states and their trials, made to agree at opening and from then on.

    The caller holds the study's lock.

    Args:
        storage: URL of a database for Optuna; by default a journal file in the study's folder.
        retry_failed: queue cells again that failed; otherwise they stay failed.
        warn: receives proposals that are no valid configuration.
    Raises:
        StudyError: the study has changed under its cells, or the storage cannot be opened.
    """

    def __init__(
        self,
        study: Study,
        seeds: tuple[int, ...],
        out: Path,
        storage: str | None,
        *,
        retry_failed: bool,
        warn: Callable[[str], None],
    ) -> None:
        self.study, self.seeds, self.out = study, seeds, out
        self.folder = out / "studies" / study.name
        self.queue: list[Cell] = []
        self.states: dict[str, State] = {}
        self.stages: dict[str, set[str]] = {}  # of each cell, as stage/address
        self._retry_failed, self._warn = retry_failed, warn
        self._trials: dict[str, TrialCells] = {}
        self._trial_of: dict[str, TrialCells] = {}
        grid = study.cells(seeds) if study.search is None else []
        sweep(self.folder, below=True)
        for cell in grid:
            self.folder_of(cell.name).move_unreadable_aside(warn)
            if self.folder_of(cell.name).exists():
                check_same_settings(self.folder_of(cell.name), cell.settings)
        space = distributions(study)
        opened = open_storage(storage, self.folder, warn)
        self.board = Scoreboard(opened, self._optuna_name(signature(space)), study, space)
        for cell in grid:
            self._enlist(TrialCells(cell.name, grid_params(cell, space), [cell]))
        if study.search is not None:
            self._resume_search(own_journal=storage is None)

    # What there is

    def settings_of(self, cell: str) -> RunSettings:
        """The settings of a cell, by its name."""
        return next(one.settings for one in self._trial_of[cell].cells if one.name == cell)

    def folder_of(self, cell: str) -> CellFolder:
        """Return the folder of a cell, made or not."""
        return CellFolder(self.folder / "cells" / cell)

    def trial_of(self, cell: str) -> TrialCells:
        """Return the trial that a cell counts for, with all of its cells."""
        return self._trial_of[cell]

    def count(self, *states: State) -> int:
        """Count the cells in these states, or in any."""
        counts = Counter(self.states.values())
        return sum(counts[state] for state in states) if states else len(self.states)

    def in_state(self, state: State) -> list[str]:
        """Return the cells in a state."""
        return [cell for cell, current in self.states.items() if current == state]

    def unproposed(self) -> int:
        """Count the cells of a search's trials that have not been proposed yet."""
        return self._proposals_left() * len(self.study.base_list()) * len(self.seeds)

    def _proposals_left(self) -> int:
        return max(0, self.study.search.trials - len(self._trials)) if self.study.search is not None else 0

    # What happens to cells

    def propose(self) -> None:
        """Queue the cells of new proposals until there are some, or no proposals left."""
        while not self.queue and self._proposals_left():
            self._enlist_proposal(*self.board.propose())

    def begin(self, cell: Cell) -> None:
        """Record that a cell, which the caller has taken from the queue, runs from now on."""
        self.board.begin(self._trial_of[cell.name].name)
        self.states[cell.name] = "running"

    def requeue(self, cell: str) -> None:
        """Put a cell that did not end first in the queue."""
        self.folder_of(cell).update(state="queued")
        self.states[cell] = "queued"
        self.queue.insert(0, next(c for c in self._trial_of[cell].cells if c.name == cell))

    def withdraw(self, trial: TrialCells) -> list[str]:
        """Take a trial's cells off the queue; return those of its cells that have not ended."""
        names = {cell.name for cell in trial.cells}
        self.queue = [cell for cell in self.queue if cell.name not in names]
        return [cell.name for cell in trial.cells if self.states[cell.name] not in ENDED]

    def end(self, record: CellRecord) -> CellRecord:
        """Record how a cell ended, before its trial is settled; return its record, failed where a score is missing."""
        record = self._scored(record)
        self.states[record.cell] = record.state
        return record

    def settle(self, trial: TrialCells) -> None:
        """Report a trial's end to Optuna, once all its cells have ended, and once only."""
        verdict, stored = self._verdict(trial), self.board.trial(trial.name)
        if verdict is None or stored is None or stored.state.is_finished():
            return
        records = [self.folder_of(cell.name).read() for cell in trial.cells]
        scores = [score for record in records if (score := record.result.get(self.study.objective)) is not None]
        errors = [f"{record.cell}: {record.error}" for record in records if record.state == "failed"]
        value = sum(scores) / len(scores) if verdict == TrialState.COMPLETE else None
        self.board.finish(trial.name, verdict, value, "; ".join(errors) or None)

    # Opening it

    def _optuna_name(self, space: str) -> str:
        """Return the Optuna study's name, unique to the folder, so that two folders may share a database.

        A grid whose choices have changed gets a new one, into which its ended cells are entered again.
        """
        file = self.folder / "study.json"
        before = read_json_or_move(file, self._warn)
        fresh = before is None or before["space"] != space
        if before is not None and self.study.search is not None:
            if fresh:
                raise self._changed("[search.space] has other dimensions or choices")
            if before["seeds"] != list(self.seeds):
                raise self._changed(f"its trials were scored on seeds {before['seeds']}, now {list(self.seeds)}")
            if before.get("bases") != self._bases():
                raise self._changed(f"its trials were scored on bases {before.get('bases')}, now {self._bases()}")
        name = f"{self.study.name}-{uuid.uuid4().hex[:6]}" if before is None or fresh else before["optuna_study"]
        summary = {"study": self.study.name, "title": self.study.title, "why": self.study.why}
        definition = self.study.model_dump(mode="json")
        counted = {"seeds": list(self.seeds)} | ({"bases": bases} if (bases := self._bases()) is not None else {})
        identity = {"definition": definition, **counted, "optuna_study": name, "space": space}
        write_json(file, summary | identity)
        return str(name)

    def _bases(self) -> list[int] | None:
        """The base seeds that are counted through; None where there is the one that is set."""
        return None if self.study.bases is None else [base for base in self.study.base_list() if base is not None]

    def _changed(self, what: str) -> StudyError:
        return StudyError(
            f"search {self.study.name} in {self.folder} has changed: {what}; its trials can no longer be compared. "
            "Give another --out, another study name, or --fresh to move the old study aside and begin anew"
        )

    def _resume_search(self, *, own_journal: bool) -> None:
        if not self.board.names() and own_journal:
            self._enter_trials_of_cells()
        if not self.board.names() and any((self.folder / "cells").glob("*/cell.json")):
            raise StudyError(
                f"{self.folder} holds cells of a search whose trials are not in this storage: give the --storage it "
                "was begun with, or --fresh to move the old study aside and begin anew"
            )
        for name in self.board.names():
            if self.board.is_lost(name):
                self._trials[name] = TrialCells(name, {})
                continue
            self._enlist_proposal(name, self.board.params(name))

    def _enter_trials_of_cells(self) -> None:
        """Make the trials of a search whose journal is lost: each cell knows what was proposed for it.

        A trial that had no cell leaves a gap, which a failed one fills: numbers name the trials to come.
        """
        proposed: dict[str, dict[str, Any]] = {}
        for path in sorted((self.folder / "cells").glob("*")):
            folder = CellFolder(path)
            folder.move_unreadable_aside(self._warn)
            if folder.exists():
                record = folder.read()
                proposed[record.arm] = {name: record.swept[name] for name in self.board.space}
        for number in range(1 + max((trial_number(name) for name in proposed), default=-1)):
            name = trial_name(number)
            if name in proposed:
                self.board.enqueue(name, proposed[name])
            else:
                self.board.enter_lost(name)

    def _enlist_proposal(self, name: str, params: dict[str, Any]) -> None:
        try:
            cells = self.study.trial_cells(name, params, self.seeds)
        except ConfigError as error:
            self._trials[name] = TrialCells(name, params)
            self._warn(f"{name} FAILED: {error}")
            stored = self.board.trial(name)
            if stored is not None and not stored.state.is_finished():
                self.board.finish(name, TrialState.FAIL, error=str(error))
            return
        self._enlist(TrialCells(name, params, cells))

    def _enlist(self, trial: TrialCells) -> None:
        """Make the trial and the folders of its cells consistent, and queue what is still to run."""
        self._trials[trial.name] = trial
        for cell in trial.cells:
            self._trial_of[cell.name] = trial
            self.stages[cell.name] = {f"{a.stage}/{a.key}" for a in addresses(cell.settings).values()}
            self.states[cell.name] = self._prepare(cell)
        unfinished = [cell for cell in trial.cells if self.states[cell.name] not in ENDED]
        stored = self.board.trial(trial.name)
        outdated = stored is not None and stored.state.is_finished() and stored.state != self._verdict(trial)
        if stored is None or outdated:
            self.board.enqueue(trial.name, trial.params)
        self.queue += unfinished
        if not unfinished:
            self.settle(trial)

    def _prepare(self, cell: Cell) -> State:
        folder = self.folder_of(cell.name)
        folder.move_unreadable_aside(self._warn)
        if not folder.exists():
            record = CellRecord(study=self.study.name, cell=cell.name, arm=cell.arm, seed=cell.seed, swept=cell.swept)
            CellFolder.create(folder.path, record, cell.settings)
            return "queued"
        check_same_settings(folder, cell.settings)
        state = self._scored(folder.read()).state
        if state in ENDED and not (state == "failed" and self._retry_failed):
            return state
        folder.update(state="queued")
        return "queued"

    def _scored(self, record: CellRecord) -> CellRecord:
        """Return the record; as failed, if the run lacks the result that the study scores it by."""
        objective = self.study.objective
        if record.state != "done" or record.result.get(objective) is not None:
            return record
        have = ", ".join(name for name, value in record.result.items() if value is not None) or "none"
        error = f"the run has no finite result {objective}, by which the study scores it; it has {have}"
        return self.folder_of(record.cell).update(state="failed", error=error)

    def _verdict(self, trial: TrialCells) -> TrialState | None:
        """Return the state that the trial should have, None while a cell has not ended."""
        states = {self.states[cell.name] for cell in trial.cells}
        if not states <= set(ENDED):
            return None
        if "failed" in states or not states:
            return TrialState.FAIL
        return TrialState.PRUNED if "pruned" in states else TrialState.COMPLETE
