"""The ledger of a study: its cells, the state of each, and their trials in Optuna.

A cell's state is that of its folder; the states here are read from there, and Optuna's trials follow them.
"""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from optuna.trial import TrialState

from vcppo.errors import ConfigError, StudyError
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord, State, check_same_settings
from vcppo.store.study_folders import StudyFolder
from vcppo.studies.cells import Cell
from vcppo.studies.execution import Execution
from vcppo.studies.mirror import TrialMirror
from vcppo.studies.outdated import (
    WITHDRAWN,
    named,
    outdated_cells,
    refuse_outdated,
    withdraw,
)
from vcppo.studies.study import Study
from vcppo.studies.trials import Scoreboard, TrialEnd, distributions, grid_params, open_storage, signature
from vcppo.system.files import read_json_or_move, write_json
from vcppo.system.temporaries import sweep

PROPOSAL_S = 1.0  # that a dispatcher waits for Optuna before it looks after its workers again


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
        warn: receives proposals that are no valid configuration, and what became of cells that the study has no more.
        interrupted: set when the storage is not to be waited for any more.
    Raises:
        StudyError: the study has changed under its cells, or the storage cannot be opened.
        KeyboardInterrupt: the study was interrupted while the storage was opened.
    """

    def __init__(
        self,
        study: Study,
        execution: Execution,
        *,
        warn: Callable[[str], None],
        interrupted: threading.Event | None = None,
    ) -> None:
        self.study, self.seeds, self.out = study, execution.seeds, execution.out
        self.folder = self.out / "studies" / study.name
        self.queue: list[Cell] = []
        self.states: dict[str, State] = {}
        self._execution, self._warn = execution, warn
        self._proposal: Future[tuple[str, dict[str, Any]]] | None = None
        self._judgements: dict[str, Future[bool]] = {}  # of trials, by the pruner
        self._trials: dict[str, TrialCells] = {}
        self._trial_of: dict[str, TrialCells] = {}
        sweep(self.folder, below=True)
        self._refuse_another_kind()
        for folder in StudyFolder(self.out, study.name).cells():
            folder.move_unreadable_aside(warn)
        grid = study.cells(self.seeds) if study.search is None else []
        for cell in grid:
            if self.folder_of(cell.name).exists():
                check_same_settings(self.folder_of(cell.name), cell.settings)
        self._settle_earlier_cells({cell.name: cell.settings for cell in grid})
        space = distributions(study, self.seeds)
        name, storage = self._optuna_name(signature(space)), execution.storage
        self.mirror = TrialMirror(
            lambda: Scoreboard(open_storage(execution.storage, self.folder, warn), name, study, space),
            folder=self.folder,
            interrupted=interrupted,
        )
        for cell in grid:
            self._enlist(TrialCells(cell.name, grid_params(cell, space), [cell]))
        if study.search is not None:
            self._resume_search(space, own_journal=storage is None)
        else:
            ends = {trial.name: self._end_of(trial) for trial in self._trials.values()}
            self.mirror.tell([n for n, end in ends.items() if end.state is not None], lambda board: board.agree(ends))

    # What there is

    def settings_of(self, cell: str) -> RunSettings:
        """The settings of a cell, by its name."""
        return next(one.settings for one in self._trial_of[cell].cells if one.name == cell)

    def stages_of(self, cell: Cell) -> set[str]:
        """Return the stages of a cell, as stage/address."""
        return {f"{stage}/{key}" for stage, key in cell.keys.items()}

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
        """Queue the cells of new proposals until there are some, no proposals left, or Optuna takes its time."""
        while not self.queue and self._proposals_left():
            if self._proposal is None:
                self._proposal = self.mirror.ask(partial(Scoreboard.propose, known=frozenset(self._trials)))
            try:
                name, params = self._proposal.result(PROPOSAL_S)
            except TimeoutError:
                return
            self._proposal = None
            self._enlist_proposal(name, params)

    def begin(self, cell: Cell) -> None:
        """Record that a cell, which the caller has taken from the queue, runs from now on."""
        trial = self._trial_of[cell.name]
        self.mirror.tell([trial.name], lambda board: board.begin(trial.name, trial.params))
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
        """Have Optuna told a trial's end, once all its cells have ended."""
        end = self._end_of(trial)
        if end.state is not None:
            self.mirror.tell([trial.name], lambda board: board.finish(trial.name, end))

    def report(self, trial: TrialCells, values: Sequence[tuple[int, float]]) -> bool:
        """Report a running trial's scores by iteration; return whether its pruner gives it up, as far as is known.

        What was reported before is not reported again. Where the storage takes its time, its verdict is that of a
        later call.
        """
        if trial.name not in self._judgements:
            self._judgements[trial.name] = self.mirror.ask(lambda board: board.report(trial.name, values))
        try:
            given_up = self._judgements[trial.name].result(PROPOSAL_S)
        except TimeoutError:
            return False
        del self._judgements[trial.name]
        return given_up

    def _end_of(self, trial: TrialCells) -> TrialEnd:
        """Return how a trial should stand in Optuna."""
        verdict = self._verdict(trial)
        if verdict is None:
            return TrialEnd(trial.params)
        records = [self.folder_of(cell.name).read() for cell in trial.cells]
        scores = [score for record in records if (score := record.result.get(self.study.objective)) is not None]
        errors = [f"{record.cell}: {record.error}" for record in records if record.state == "failed"]
        value = sum(scores) / len(scores) if verdict == TrialState.COMPLETE else None
        return TrialEnd(trial.params, verdict, value, "; ".join(errors) or None)

    # Opening it

    def _settle_earlier_cells(self, grid: Mapping[str, RunSettings]) -> None:
        """Make what lies in the folder fit for one table: refuse, queue again or put aside what would not."""
        folders = StudyFolder(self.out, self.study.name).cells()
        outdated = outdated_cells(folders, grid, self._execution.addresses_of)
        if not self._execution.recompute:
            refuse_outdated(self.study.name, outdated)
        others = [f for f in folders if f.path.name not in grid] if self.study.search is None else []
        withdrawn = [folder for folder in others if folder.read().state not in ENDED]
        withdrawn += [cell.folder for cell in outdated if cell.folder in others]
        for cell in outdated:
            cell.folder.update(state="queued", stages=(), result={}, finished=None)
        for folder in withdrawn:
            withdraw(folder)
        names, stay = [f.path.name for f in withdrawn], [f.path.name for f in others if f not in withdrawn]
        if names:
            self._warn(
                f"{len(names)} unfinished cells are not of this study any more ({named(names)}): they are in "
                f"{self.folder / WITHDRAWN}, and begin again from the cache when the study has them again"
            )
        if stay:
            self._warn(f"{len(stay)} ended cells of earlier calls stay in this study and its tables ({named(stay)})")

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
        given = {"given": self.study.given} if self.study.given else {}
        write_json(file, summary | identity | given)
        return str(name)

    def _refuse_another_kind(self) -> None:
        """Refuse to go on as another kind of study, or with a search whose trials were scored by another objective."""
        recorded = read_json_or_move(self.folder / "study.json", self._warn)
        definition = None if recorded is None else recorded.get("definition")
        if definition is None:
            return
        before, search = definition.get("search"), self.study.search
        if (before is None) != (search is None):
            was, now = ("a grid", "a search") if search is not None else ("a search", "a grid")
            raise self._changed(f"it was {was}, and is {now} now")
        if before is None or search is None:
            return
        for name in ("objective", "direction"):
            if before[name] != getattr(search, name):
                raise self._changed(f"its trials were scored with {name} = {before[name]}, now {getattr(search, name)}")

    def _bases(self) -> list[int] | None:
        """The base seeds that are counted through; None where there is the one that is set."""
        return None if self.study.bases is None else [base for base in self.study.base_list() if base is not None]

    def _changed(self, what: str) -> StudyError:
        return StudyError(
            f"study {self.study.name} in {self.folder} has changed: {what}; its trials can no longer be compared. "
            "Give another --out, another study name, or --fresh to move the old study aside and begin anew"
        )

    def _resume_search(self, space: Iterable[str], *, own_journal: bool) -> None:
        proposed = self.mirror.wait(self.mirror.ask(Scoreboard.proposed))
        if not proposed and own_journal and (by_cells := self._proposed_to_cells(space)):
            self.mirror.tell(by_cells, lambda board: board.enter(by_cells))
            proposed = self.mirror.wait(self.mirror.ask(Scoreboard.proposed))
        if not proposed and any((self.folder / "cells").glob("*/cell.json")):
            raise StudyError(
                f"{self.folder} holds cells of a search whose trials are not in this storage: give the --storage it "
                "was begun with, or --fresh to move the old study aside and begin anew"
            )
        for name, params in proposed:
            if params is None:
                self._trials[name] = TrialCells(name, {})
            else:
                self._enlist_proposal(name, params)

    def _proposed_to_cells(self, space: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the parameters of a search's trials by the trials' names: each cell knows what was proposed for it."""
        proposed: dict[str, dict[str, Any]] = {}
        for path in sorted((self.folder / "cells").glob("*")):
            folder = CellFolder(path)
            if folder.exists():
                record = folder.read()
                proposed[record.arm] = {name: record.swept[name] for name in space}
        return proposed

    def _enlist_proposal(self, name: str, params: dict[str, Any]) -> None:
        try:
            cells = self.study.trial_cells(name, params, self.seeds)
        except ConfigError as error:
            self._trials[name] = TrialCells(name, params)
            self._warn(f"{name} FAILED: {error}")
            end = TrialEnd(params, TrialState.FAIL, error=str(error))
            self.mirror.tell([name], lambda board: board.finish(name, end))
            return
        self._enlist(TrialCells(name, params, cells))

    def _enlist(self, trial: TrialCells) -> None:
        """Make the trial and the folders of its cells consistent, and queue what is still to run."""
        self._trials[trial.name] = trial
        for cell in trial.cells:
            self._trial_of[cell.name] = trial
            self.states[cell.name] = self._prepare(cell)
        self.queue += [cell for cell in trial.cells if self.states[cell.name] not in ENDED]
        if self.study.search is not None:
            self.settle(trial)  # of a grid, all at once

    def _prepare(self, cell: Cell) -> State:
        folder = self.folder_of(cell.name)
        if not folder.exists():
            record = CellRecord(study=self.study.name, cell=cell.name, arm=cell.arm, seed=cell.seed, swept=cell.swept)
            CellFolder.create(folder.path, record, cell.settings)
            return "queued"
        if self.study.search is not None:  # those of a grid were looked at before anything was written
            check_same_settings(folder, cell.settings)
        state = self._scored(folder.read()).state
        if state in ENDED and not (state == "failed" and self._execution.retry_failed):
            return state
        if state != "queued":
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
