"""The process of a study, disturbed at each of its writes: records, Optuna's journal, MLflow's ledger, the export.

It is forked, with real workers whose cells are played, and uploads to an SQLite file.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

from fake_cells import FAKE, GRID
from torture import oracle
from torture.faults import Fault, Writes
from torture.kinds import Case, Extent, Result
from torture.stage_faults import REFUSED, end_of, in_child

from vcppo.cli.export import export_study
from vcppo.errors import DiskError, StudyError
from vcppo.settings.run import RunSettings
from vcppo.studies.execution import Execution
from vcppo.studies.study import parse_study
from vcppo.studies.sweep import LAST_WORDS_S, run_study
from vcppo.tracking.mlflow_client import MlflowStore
from vcppo.tracking.uploader import Uploader

STUDY = parse_study({**GRID, "base": {"steps": 3}}, "torture")
UNDELIVERED = 4  # exit code
PATIENCE_S = 600.0  # for the uploader: a busy machine is none of the faults
MOST_CALLS = 3  # of the same command until all is delivered


def _none(settings: RunSettings) -> dict[str, str]:
    """The stages of a played cell, which nothing can change."""
    return {}


class PlayedStudy:
    """A study of four cells below a folder, and what an undisturbed one leaves."""

    def __init__(self, place: Path) -> None:
        self.place, self.log, self.begun = place, place / "log.txt", place / "begun"
        (place / "modules").mkdir()
        (place / "modules" / "fake.py").write_text(FAKE)
        cells = [cell.name for cell in STUDY.cells((0,))]
        self._plan = json.dumps({"nap": 0.0} | {cell: ["iterate"] for cell in cells})
        empty = f"sqlite:///{place}/mlflow.db"
        if in_child(lambda: MlflowStore(empty, "none", place / "mlartifacts"), self.log):
            raise RuntimeError(f"no database can be made: {end_of(self.log)}")
        self.out = place / "loading"  # MLflow keeps what it has opened, by its path
        self.clean()
        with suppress(SystemExit):
            self.run(None)  # in this process, which has then loaded all that those forked from it need
        self.out = place / "out"
        self.clean()
        writes = place / "count.txt"
        began = time.monotonic()
        if code := in_child(partial(self._counted, writes), self.log):
            raise RuntimeError(f"the undisturbed study ended with {code}: {end_of(self.log)}")
        self.seconds, self.count = time.monotonic() - began, int(writes.read_text())
        self.tables, self.trials, self.runs = self._left()

    def _counted(self, file: Path) -> None:
        writes = Writes(self.out)
        self.run(None)
        file.write_text(str(writes.count))

    def clean(self) -> None:
        """Remove what the case before has left; the next begins with an empty database."""
        shutil.rmtree(self.out, ignore_errors=True)
        self.log.unlink(missing_ok=True)
        self.begun.unlink(missing_ok=True)
        self.out.mkdir()
        (self.out / "plan.json").write_text(self._plan)
        shutil.copy(self.place / "mlflow.db", self.out / "mlflow.db")

    def run(self, fault: Fault | None, at: int = 0) -> None:
        """Run the study and export it, as `vcppo sweep` does."""
        if fault is not None:
            Writes(self.out, fault, at, self.begun)
        workers = {"PYTHONPATH": f"{self.place / 'modules'}:{os.environ.get('PYTHONPATH', '')}"}
        with patch.dict(os.environ, workers), patch.dict(LAST_WORDS_S, {False: PATIENCE_S}):
            execution = Execution((0,), self.out, workers=1, runner="fake:run_cell", addresses_of=_none)
            try:
                outcome = run_study(STUDY, execution, uploader=Uploader(self.out, STUDY.name))
                export_study(STUDY.name, self.out / "results" / STUDY.name, out=self.out, allow_incomplete=True)
            except (DiskError, StudyError) as error:
                print(f"{type(error).__name__}: {error}")
                sys.exit(REFUSED)
        if outcome.exit_code or outcome.undelivered:
            sys.exit(outcome.exit_code or UNDELIVERED)

    def case(self, fault: Fault, at: int, codes: tuple[int, ...]) -> Result:
        """Disturb it once, and give the same command again."""
        self.clean()
        began = time.monotonic()
        code = in_child(partial(self.run, fault, at), self.log)
        codes = codes if self.begun.exists() else (0,)  # some times the uploader has less to write, and it never comes
        wrong = None if code in codes else f"ended with {code}: {end_of(self.log)}"
        for _ in range(MOST_CALLS):
            code = in_child(partial(self.run, None), self.log)
            if code != UNDELIVERED:
                break
        if wrong is None and code:
            wrong = f"could not be gone on with, {code}: {end_of(self.log)}"
        return Result(wrong or self._wrong(), int(self.begun.exists()), time.monotonic() - began - self.seconds)

    def _left(self) -> tuple[oracle.Image, oracle.Counts, oracle.Counts]:
        study = self.out / "studies" / STUDY.name
        tables = oracle.exported(self.out / "results" / STUDY.name)
        return tables, oracle.trials(study), oracle.runs_in_mlflow(self.out / "mlflow.db", study)

    def _wrong(self) -> str | None:
        tables, trials, runs = self._left()
        return oracle.first(
            lambda: oracle.temporary_in(self.out),
            lambda: oracle.differing(tables, self.tables),
            lambda: oracle.miscounted("Optuna", trials, self.trials),
            lambda: oracle.miscounted("MLflow", runs, self.runs),
            lambda: f"a traceback: {end_of(self.log)}" if "Traceback" in self.log.read_text() else None,
            lambda: oracle.said_in(self.out, "Traceback (most recent call last)"),
        )


def at_writes(fault: Fault, *codes: int) -> Callable[[Path, Extent], Iterator[Case]]:
    """Return the cases of a fault at each write of a study's process, which then ends with one of these codes."""

    def cases(place: Path, extent: Extent) -> Iterator[Case]:
        study = PlayedStudy(place)
        for at in extent.writes(study.count):
            yield f"write {at}", partial(study.case, fault, at, codes)

    return cases
