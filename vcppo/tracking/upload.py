"""A study's records on disk, uploaded to MLflow: a run for the study, below it one for each cell, and their stages.

The process that begins a run uploads it whole, from its journals' first record, and goes on with what they gain. A run
that another process began and did not finish, that has a twin, or whose journals a resumed stage has rewritten goes to
MLflow's bin, and another takes its place. So a run has what its journals have, each point once, whatever was killed on
the way, and its contents are never compared. A batch whose reply was lost is sent again as it was: of equal points
MLflow's databases store one.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vcppo.errors import DataError, StudyError
from vcppo.settings.digests import digest, settings_digest
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord
from vcppo.store.journal import JournalTail, read_journal
from vcppo.store.study_folders import CELL_STAGES, Stage, StudyFolder, read_object
from vcppo.store.summary import Curves, curves_of, warned_since
from vcppo.tracking.from_disk import tables_of
from vcppo.tracking.ledger import Entry, Ledger, Source
from vcppo.tracking.logged_models import models_of, problem_sets
from vcppo.tracking.mlflow_client import LOGGED_TABLES, LONGEST_TAG, MlflowStore, RefusedError, Run, cut
from vcppo.tracking.mlflow_entities import (
    STATUS,
    Record,
    as_params,
    cell_tags,
    end_tags,
    list_tables,
    points_of,
    stage_tags,
    table_files,
    user_name,
    warning_tags,
)
from vcppo.tracking.mlflow_models import (
    delete_models,
    delete_traces,
    log_models,
    log_problem_sets,
    log_traces,
)
from vcppo.tracking.position_figure import position_figure
from vcppo.tracking.sampled_traces import traces_of
from vcppo.tracking.study_note import FIGURE, arms_figure, ended, study_note

RECORDS_AT_ONCE = 500


@dataclass
class RunUpload:
    """One run, and how far the journals behind it have been read and sent."""

    run: Run
    tails: dict[Path, JournalTail] = field(default_factory=dict)
    unsent: list[Record] = field(default_factory=list)  # the first of them may have been sent, and not confirmed
    sent: int = 0
    warned: dict[str, int] = field(default_factory=dict)  # by rule of an early warning, since which iteration

    def read(self, journals: tuple[Path, ...]) -> bool:
        """Read what the journals gained; return False if what was read before is no longer in them.

        Raises:
            DataError: a line is no record.
        """
        if not self.tails.keys() <= set(journals):
            return False
        for path in journals:
            tail = self.tails.setdefault(path, JournalTail(path))
            self.unsent += tail.read()
            if tail.restarts:
                return False
            if tail.unreadable:
                read_journal(path)
        return True


class StudyUpload:
    """Upload of one study to one store. After an error `connect` again: the store may hold other runs by then."""

    def __init__(self, study: StudyFolder, ledger: Ledger) -> None:
        self.study, self.ledger = study, ledger
        self._uploads: dict[str, RunUpload] = {}  # by key of their source
        # Cells that have nothing to send until their record changes, ended or not begun: its age, and the record.
        self._settled: dict[str, tuple[tuple[int, int], CellRecord]] = {}
        self._written: dict[str, str] = {}  # files of the study's run, as last written
        self._note = ""  # description of the study's run, as last written
        self._active: dict[str, Run] = {}  # by id: the study's runs that are in the store and not in its bin

    def connect(self, store: MlflowStore) -> None:
        """Find the study's runs in the store; those that this process does not continue go to the bin.

        One that a user has deleted comes back from there, if it is complete or this process uploads it.
        """
        self.store = store
        self._settled.clear()
        self._note = ""
        self.ledger.save()  # on disk before any run has this instance
        run_ids = {key: entry.run for key, entry in self.ledger.entries.items() if entry.signature or key == "study"}
        run_ids |= {key: upload.run.id for key, upload in self._uploads.items()}
        runs = store.find({"vcppo.instance": self.ledger.instance}, deleted=True)
        self._active = {run.id: run for run in runs if not run.deleted or run.id in run_ids.values()}
        self._uploads = {key: upload for key, upload in self._uploads.items() if upload.run.id in self._active}
        for run in list(self._active.values()):
            if run.id in run_ids.values():
                self.store.restore(run)
            else:
                self._delete_run(run)
        parent = self._active.get(run_ids.get("study", ""))
        if parent is None:
            parent, self._written = self._create(self.study.name, "study", {"mlflow.user": user_name()}), {}
            self.ledger.put("study", Entry(parent.id))
        self._parent = parent

    def send(self, *, closing: bool = False, on_reply: Callable[[], None] = lambda: None) -> int:
        """Send all that the store lacks; return the number of records.

        Args:
            closing: no process runs the study any more; a cell may still be run by itself, by another `vcppo train`.
            on_reply: called after each cell, when the store has replied.
        Raises:
            RefusedError: the store refuses some records; all others are sent first.
            TrackingError: the store cannot be reached.
        """
        try:
            return self._send(closing=closing, on_reply=on_reply)
        finally:
            self.ledger.flush()

    def _send(self, *, closing: bool, on_reply: Callable[[], None]) -> int:
        count, refused, records, running = 0, [], {}, False
        for folder in self.study.cells():
            known = self._settled.get(folder.path.name)
            if known is not None and known[0] == _changed(folder):
                records[folder.path.name] = known[1]
                continue
            try:
                changed, record = _changed(folder), folder.read()
            except StudyError as error:  # damaged, or another version's: the others go on
                refused.append(str(error))
                continue
            records[record.cell] = record
            on_reply()
            held = closing and record.state == "running" and self.study.is_held(folder)
            running |= held
            try:
                count += self._send_cell(folder, record, closing=closing and not held)
                if record.state in ENDED or self._is_waiting(record):
                    self._settled[record.cell] = changed, record
            except (RefusedError, DataError) as error:
                refused.append(f"cell {record.cell}: {error}")
        states = {cell: record.state for cell, record in records.items()}
        self._describe_study(states, list(records.values()))
        if refused:
            raise RefusedError("; ".join(refused))
        if closing:
            self._delete_twins()
        finished = bool(states) and all(state in ENDED for state in states.values())
        self._set_status(self._parent, "FINISHED" if finished else "KILLED" if closing and not running else "RUNNING")
        return count

    def _is_waiting(self, record: CellRecord) -> bool:
        """True of a cell that nobody has begun, and of which the store knows nothing."""
        return record.state == "queued" and not record.stages and not self.ledger.entry(f"cell/{record.cell}").run

    def _describe_study(self, states: Mapping[str, str], records: Sequence[CellRecord]) -> None:
        """Write the study's settings, the names of its cells and a description, only when they changed."""
        settings = read_object(self.study.path / "study.json")
        files = {"cells.json": json.dumps(sorted(states)), "study.json": json.dumps(settings, indent=2)}
        changed = {name: text for name, text in files.items() if self._written.get(name) != text}
        self.store.write(self._parent, changed)
        self._written = files
        counts = {f"cells.{state}": str(list(states.values()).count(state)) for state in STATUS}
        drawn = digest([[record.cell, record.finished] for record in records]) if ended(records) else ""
        if drawn and self._parent.tags.get("vcppo.figure") != drawn:
            self.store.write(self._parent, {FIGURE: self._figure(records)})
            self.store.log(self._parent, tags={"vcppo.figure": drawn})
        self.store.log(self._parent, params=as_params(settings), tags={"cells": str(len(states)), **counts})
        note = study_note(self.study.name, settings, records, figure_of=self._parent.id if drawn else "")
        self._write_note(cut(note, LONGEST_TAG))

    def _write_note(self, note: str) -> None:
        """Describe the study's run, unless a user has."""
        if note == self._note:
            return
        with self.store.translated():
            there = self.store.client.get_run(self._parent.id).data.tags
        if digest(there.get("mlflow.note.content", "")) == there.get("vcppo.note", digest("")):
            self.store.log(self._parent, tags={"mlflow.note.content": note, "vcppo.note": digest(note)})
        self._note = note

    def _figure(self, records: Sequence[CellRecord]) -> bytes:
        curves: dict[str, list[Curves]] = {}
        for record in records:
            for stage in self.study.stages(record):
                if stage.name == "rl" and record.state == "done":
                    curves.setdefault(record.arm, []).append(curves_of(read_journal(stage.journal)))
        return arms_figure(curves)

    def _send_cell(self, folder: CellFolder, record: CellRecord, *, closing: bool) -> int:
        """Send the cell's run, and those of the stages before it."""
        stages = self.study.stages(record)
        source = Source.of_cell(folder, record, stages)
        signature, begun = source.signature(), record.state != "queued" or bool(stages)
        child, upload = self._run_of(source, signature, (lambda: self._create_child(folder, record)) if begun else None)
        if child is None:
            return 0
        self.store.log(child, tags={"mlflow.parentRunId": self._parent.id})
        shared = [stage for stage in stages if stage.name not in CELL_STAGES]
        count = sum(self._send_stage(stage, record, child, closing=closing) for stage in shared)
        if upload is not None:
            self.store.log(child, tags=cell_tags(record, stages))
            count += self._send_records(source, upload, folder)
            self._log_models_of_cell(child, record, stages)
            self._finish_cell(child, record, stages, closing=closing)
            complete = signature if record.state in ENDED else ""
            self.ledger.put(source.key, Entry(child.id, upload.sent, record.state, complete, models=True))
        elif not self.ledger.entry(source.key).models:
            self._log_models_of_cell(child, record, stages)
            self.ledger.put(source.key, replace(self.ledger.entry(source.key), models=True))
        return count

    def _log_models_of_cell(self, child: Run, record: CellRecord, stages: list[Stage]) -> None:
        """Log what RL ended with, with the evaluation of it."""
        if record.state != "done":
            return
        log_problem_sets(self.store, child, problem_sets(stages))
        by_name = {stage.name: stage for stage in stages}
        if "rl" in by_name:
            tags = {"study": self.study.name, "cell": record.cell, "arm": record.arm, "seed": str(record.seed)}
            tags |= {"base_seed": child.tags["base_seed"], **self._owner(record.cell)}
            models = models_of(by_name["rl"], tags, by_name.get("evaluation"))
            log_models(self.store, child, models, self._owner(record.cell))

    def _log_models_of_stage(self, run: Run, stage: Stage, child: Run) -> None:
        log_problem_sets(self.store, run, problem_sets([stage]))
        tags = {"study": self.study.name, "cell": run.tags["cell"], "base_seed": child.tags["base_seed"]}
        log_models(self.store, run, models_of(stage, tags | self._owner(stage)), self._owner(stage))

    def _owner(self, source: str | Stage) -> dict[str, str]:
        """The tag of the models and traces of a cell or a stage."""
        name = f"cell/{source}" if isinstance(source, str) else f"{source.name}/{source.address}"
        return {"vcppo.owner": f"{self.ledger.instance}/{name}"}

    def _send_stage(self, stage: Stage, record: CellRecord, child: Run, *, closing: bool) -> int:
        """Send a stage, which has one run in a study, below the cell that computed it, else the first that is done."""
        source = Source.of_stage(stage)
        signature, begun = source.signature(), stage.ran or record.state == "done"
        run, upload = self._run_of(source, signature, (lambda: self._create_stage_run(stage, child)) if begun else None)
        if run is None:
            return 0
        if run.tags["cell"] == record.cell:
            self.store.log(run, tags={"mlflow.parentRunId": child.id})
        if upload is None:
            if not self.ledger.entry(source.key).models:
                self._log_models_of_stage(run, stage, child)
                self.ledger.put(source.key, replace(self.ledger.entry(source.key), models=True))
            return 0
        count, done = self._send_records(source, upload), (stage.folder / "done.json").exists()
        if done:
            self._log_models_of_stage(run, stage, child)
        if done or record.state in ("failed", "pruned", "running") or closing:
            status = "FINISHED" if done else "KILLED" if closing and record.state not in ENDED else STATUS[record.state]
            self._set_status(run, status)
        self.ledger.put(source.key, Entry(run.id, upload.sent, "", signature if done else "", models=done))
        return count

    def _run_of(
        self, source: Source, signature: str, create: Callable[[], Run] | None
    ) -> tuple[Run | None, RunUpload | None]:
        """Return the run of a source, complete if there is nothing to upload; None if it is too early to create one."""
        entry, upload = self.ledger.entry(source.key), self._uploads.get(source.key)
        if entry.signature == signature and entry.run in self._active:
            return self._active[entry.run], None
        if upload is not None and upload.read(source.journals):
            return upload.run, upload
        self._uploads.pop(source.key, None)
        if entry.run in self._active:
            self._delete_run(self._active[entry.run])
        if create is None:
            return None, None
        upload = self._uploads[source.key] = RunUpload(create())
        self.ledger.put(source.key, Entry(upload.run.id))
        upload.read(source.journals)
        return upload.run, upload

    def _send_records(self, source: Source, upload: RunUpload, cell: CellFolder | None = None) -> int:
        """Send what the run lacks of its journals; of a cell's sampled responses traces too."""
        run, before = upload.run, upload.sent
        while upload.unsent:
            chunk = upload.unsent[:RECORDS_AT_ONCE]
            tables = table_files(chunk)
            self.store.write(run, tables)
            if cell is not None and any(name.startswith("tables/samples/") for name in tables):
                log_traces(self.store, run, traces_of(chunk, run.id, cell.settings()), self._owner(cell.path.name))
            tags = {LOGGED_TABLES: list_tables(run.tags.get(LOGGED_TABLES, "[]"), tables)} if tables else {}
            upload.warned = warned_since(curves_of(chunk)) | upload.warned
            tags |= warning_tags(upload.warned)
            self.store.log(run, points_of(chunk), tags=tags)
            del upload.unsent[: len(chunk)]
            upload.sent += len(chunk)
            self.ledger.put(source.key, Entry(run.id, upload.sent, self.ledger.entry(source.key).state))
        return upload.sent - before

    def _create(
        self, name: str, kind: str, tags: dict[str, str], started: float = 0.0, parent: Run | None = None
    ) -> Run:
        tags = {"vcppo.instance": self.ledger.instance, "vcppo.kind": kind, "study": self.study.name} | tags
        run = self.store.create(name, tags, started=started or time.time(), parent=parent)
        self._active[run.id] = run
        return run

    def _create_child(self, folder: CellFolder, record: CellRecord) -> Run:
        settings = read_object(folder.path / "settings.json")
        tags = {"cell": record.cell, "settings_hash": settings_digest(settings)}
        tags["base_seed"] = str(settings.get("base_seed", 0))
        delete_traces(self.store, self._owner(record.cell))
        delete_models(self.store, self._owner(record.cell))
        child = self._create(record.cell, "cell", tags, record.started or 0.0, self._parent)
        self.store.write(child, {"settings.json": json.dumps(settings, indent=2)})
        self.store.log(child, params=as_params(settings))
        return child

    def _create_stage_run(self, stage: Stage, child: Run) -> Run:
        description, began = stage.description(), stage.folder / "stage.json"
        started = began.stat().st_mtime if began.exists() else 0.0
        delete_models(self.store, self._owner(stage))
        run = self._create(stage.name, "stage", stage_tags(stage), started, child)
        self.store.write(run, {"stage.json": json.dumps(description, indent=2)})
        self.store.log(run, params=as_params(description.get("settings", {})))
        return run

    def _finish_cell(self, child: Run, record: CellRecord, stages: list[Stage], *, closing: bool) -> None:
        """Send state and result, last of all: a FINISHED run is complete."""
        state, status = str(record.state), STATUS[record.state]
        if record.state == "done" and child.status != "FINISHED":
            journals = [entry for stage in stages if stage.name == "rl" for entry in read_journal(stage.journal)]
            figure = position_figure(tables_of(journals, ["critic_by_position"]).get("critic_by_position", {}))
            if figure is not None:
                self.store.write(child, {"figures/critic_by_position.png": figure})
        if closing and record.state not in ENDED:
            state, status = "interrupted", "KILLED"
        self.store.log(child, tags=end_tags(record, state))
        self._set_status(child, status, record.finished)

    def _set_status(self, run: Run, status: str, ended: float | None = None) -> None:
        runs = status in ("RUNNING", "SCHEDULED")
        self.store.set_status(run, status, ended=None if runs else ended or time.time())

    def _delete_twins(self) -> None:
        """Move runs to the bin that the store made of requests which reached it twice; this process knows one each."""
        for run in self.store.find({"vcppo.instance": self.ledger.instance}):
            if run.id not in self._active:
                self._active[run.id] = run
                self._delete_run(run)

    def _delete_run(self, run: Run) -> None:
        """Move a run to the bin, ended: it shall not be running when a user restores it."""
        if run.status in ("RUNNING", "SCHEDULED"):
            self._set_status(run, "KILLED")
        self.store.delete(run)
        del self._active[run.id]


def _changed(folder: CellFolder) -> tuple[int, int]:
    """Return what differs once the cell's record was written again."""
    status = (folder.path / "cell.json").stat()
    return status.st_mtime_ns, status.st_ino
