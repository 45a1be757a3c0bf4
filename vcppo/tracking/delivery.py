"""What a study has on disk, told to MLflow: a run for the study, below it one for each cell, below those the stages.

The store is the truth about what it holds: runs are found by their tags, and the first time that a process adds to a
run it looks which points are there. The files `mlflow.json` beside the study and its cells remember how many records
were delivered, so that nothing has to be compared in the usual case, and a kill between the two does no harm.
"""

import getpass
import json
import math
import re
import time
from collections.abc import Mapping
from typing import Any

from vcppo.errors import DataError
from vcppo.settings.digests import settings_digest
from vcppo.settings.loading import flatten
from vcppo.store.journal import read_journal
from vcppo.store.run_folders import ENDED, CellFolder, CellRecord
from vcppo.store.study_folders import OF_THE_CELL, Stage, read_object
from vcppo.system.redaction import without_credentials
from vcppo.tracking.mlflow_client import LOGGED_TABLES, LONGEST_TAG, MlflowStore, Point, RefusedError, Run, to_split
from vcppo.tracking.position_figure import position_figure
from vcppo.tracking.study_files import Cursors, StudyFiles, stamps

STATUS = {"queued": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}
RECORDS_AT_ONCE = 500


class Delivery:
    """One study's way into one store. After an error of the store make a new one: what it knew may be wrong."""

    def __init__(self, files: StudyFiles, store: MlflowStore) -> None:
        self.files, self.store = files, store
        self.store_name = store_name(store.tracking_uri, store.experiment)
        self.instance = files.instance()
        known = store.find({"vcppo.instance": self.instance}, deleted=True)
        known.sort(key=lambda run: run.deleted)  # one that is there comes before one in the bin
        self._children = [run for run in known if run.tags.get("vcppo.kind") == "cell"]
        self._stage_runs: dict[str, Run] = {}  # by address
        for run in [run for run in known if run.tags.get("vcppo.kind") == "stage"]:
            if self._stage_runs.setdefault(run.tags["vcppo.address"], run) is not run:
                self._put_away(run)
        self._parent = self._one_parent([run for run in known if run.tags.get("vcppo.kind") == "study"])
        self._cursors: dict[str, Cursors] = {}  # by cell
        self._progress: dict[tuple[str, str], int] = {}  # (run, address) -> records delivered, whoever's cursor says so
        self._sure: set[tuple[str, str]] = set()  # (run, address) known to hold nothing beyond the cursor
        self._seen: dict[str, object] = {}  # cell -> its files when it was last delivered whole
        self._said: dict[str, str] = {}  # files of the study's run, as last written

    def deliver(self, *, closing: bool = False) -> int:
        """Everything undelivered; the number of records. `closing`: nobody works on the study any more.

        Raises:
            RefusedError: after all else is delivered, what the store does not take.
            TrackingError: the store cannot be reached.
        """
        count, refused, states = 0, [], {}
        for folder in self.files.cells():
            record = folder.read()
            states[record.cell] = record.state
            try:
                count += self._deliver_cell(folder, record, closing=closing)
            except (RefusedError, DataError) as error:
                refused.append(f"cell {record.cell}: {error}")
        self._describe_study(states)
        if refused:
            raise RefusedError("; ".join(refused))
        finished = bool(states) and all(state in ENDED for state in states.values())
        status = "FINISHED" if finished else "KILLED" if closing else "RUNNING"
        self.store.set_status(self._parent, status, ended=time.time() if status != "RUNNING" else None)
        return count

    def _deliver_cell(self, folder: CellFolder, record: CellRecord, *, closing: bool) -> int:
        stages = self.files.stages(record)
        signature = (stamps(folder, stages), closing)
        if self._seen.get(record.cell) == signature:
            return 0
        child = self._child(folder, record)
        if child is None:
            return 0
        cursors = self._load_cursors(folder, child)
        self._describe_cell(child, folder, record, stages)
        count = 0
        for stage in stages:
            run = child if stage.name in OF_THE_CELL else self._stage_run(stage, record, child)
            if run is not None:
                done = (stage.folder / "done.json").exists()
                count += self._deliver_records(stage, run, cursors)
                if run is not child:
                    self._finish_stage(run, record, done=done, closing=closing)
        self._finish_cell(child, record, stages, closing=closing)
        if cursors.state != record.state:
            cursors.state = record.state
            cursors.save()
        self._seen[record.cell] = signature
        return count

    def _one_parent(self, known: list[Run]) -> Run:
        """The study's one run. A user who deletes it gets it back, rather than a second one beside it."""
        if not known:
            return self._create_parent()
        for run in known[1:]:
            self._put_away(run)
        self.store.restore(known[0])
        return known[0]

    def _put_away(self, run: Run) -> None:
        """To the bin with a run that another stands for, ended: whoever restores it shall not find it running."""
        if run.status in ("RUNNING", "SCHEDULED"):
            self.store.restore(run)
            self.store.set_status(run, "KILLED", ended=time.time())
        if not run.deleted:
            self.store.delete(run)

    def _create_parent(self) -> Run:
        tags = {"vcppo.instance": self.instance, "vcppo.kind": "study", "study": self.files.name}
        tags["mlflow.user"] = user_name()  # who asks a shared server for a study is told whose each is
        return self.store.create(self.files.name, tags, started=time.time())

    def _describe_study(self, states: Mapping[str, str]) -> None:
        """The study's settings and the names of its cells; written again only when they change."""
        settings = read_object(self.files.path / "study.json")
        files = {"cells.json": json.dumps(sorted(states)), "study.json": json.dumps(settings, indent=2)}
        self.store.write(self._parent, {name: text for name, text in files.items() if self._said.get(name) != text})
        self._said = files
        counts = {f"cells.{state}": str(list(states.values()).count(state)) for state in STATUS}
        self.store.log(self._parent, params=as_params(settings), tags={"cells": str(len(states)), **counts})

    def _child(self, folder: CellFolder, record: CellRecord) -> Run | None:
        """The cell's one run, made when the cell first runs; runs of the cell with other numbers go to the bin.

        One that a user has deleted comes back from there.
        """
        settings = read_object(folder.path / "settings.json")
        identity = {"settings_hash": settings_digest(settings), "arm": record.arm}
        now = {stage.stage: stage.address for stage in record.stages}
        own = [run for run in self._children if run.tags["cell"] == record.cell]
        fitting = [
            run
            for run in own
            if identity.items() <= run.tags.items()
            and all(then == now.get(name, then) for name, then in stages_of(run).items() if name in OF_THE_CELL)
        ]
        for run in own:
            if run not in fitting[:1]:
                self._put_away(run)
                self._children.remove(run)
        if not fitting and record.state == "queued":
            return None
        child = fitting[0] if fitting else self._create_child(record, identity)
        self.store.restore(child)
        self.store.log(child, tags={"mlflow.parentRunId": self._parent.id})
        for run in self._stage_runs.values():
            if run.tags["cell"] == record.cell:
                self.store.restore(run)
                self.store.log(run, tags={"mlflow.parentRunId": child.id})
        return child

    def _create_child(self, record: CellRecord, identity: Mapping[str, str]) -> Run:
        tags = {"vcppo.instance": self.instance, "vcppo.kind": "cell", "study": self.files.name, "cell": record.cell}
        started = record.started or time.time()
        child = self.store.create(record.cell, {**tags, **identity}, started=started, parent=self._parent)
        self._children.append(child)
        return child

    def _load_cursors(self, folder: CellFolder, child: Run) -> Cursors:
        cell = folder.path.name
        if cell not in self._cursors:
            self._cursors[cell] = Cursors(folder, self.store_name)
        cursors = self._cursors[cell]
        if cursors.child != child.id:
            cursors.child = child.id
            cursors.save()
        return cursors

    def _describe_cell(self, child: Run, folder: CellFolder, record: CellRecord, stages: list[Stage]) -> None:
        settings = read_object(folder.path / "settings.json")
        params = as_params(settings)
        if not params.keys() <= child.params.keys():
            self.store.write(child, {"settings.json": json.dumps(settings, indent=2)})
        described = [stage.described() for stage in stages if stage.name == "rl"] or [s.described() for s in stages[:1]]
        made = described[0].get("provenance", {}) if described else {}
        self.store.log(
            child,
            params=params,
            tags={
                "seed": str(record.seed),
                "swept": json.dumps(record.swept),
                "stages": json.dumps(stages_of(child) | {stage.name: stage.address for stage in stages}),
                "attempts": str(record.attempts),
                "cached": str(any(stage.name == "rl" and not stage.ran for stage in stages)).lower(),
                **provenance_tags(made),
            },
        )

    def _finish_cell(self, child: Run, record: CellRecord, stages: list[Stage], *, closing: bool) -> None:
        """State and result, last of all: a run that says FINISHED is complete."""
        ended, state, status = record.finished or time.time(), str(record.state), STATUS[record.state]
        if record.state == "done" and child.status != "FINISHED":
            self._draw(child, stages)
        if closing and record.state not in ENDED:
            state, status = "interrupted", "KILLED"
        result = json.dumps(record.result)
        tags = {"state": state, "error": record.error or "", "pruned": str(state == "pruned").lower(), "result": result}
        times = {} if record.finished is None else {"wall_s": repr(record.finished - (record.started or 0.0))}
        self.store.log(child, tags=tags | times)
        self.store.set_status(child, status, ended=None if status in ("RUNNING", "SCHEDULED") else ended)

    def _draw(self, child: Run, stages: list[Stage]) -> None:
        journals = [read_journal(stage.journal) for stage in stages if stage.name == "rl"]
        tables = {
            record["step"]: record["columns"]
            for records in journals
            for record in records
            if record["kind"] == "table" and record["name"] == "critic_by_position"
        }
        figure = position_figure(tables)
        if figure is not None:
            self.store.write(child, {"figures/critic_by_position.png": figure})

    def _stage_run(self, stage: Stage, record: CellRecord, child: Run) -> Run | None:
        """The one run of an address in a study, below the cell that computed it, or else the first done with it."""
        known = self._stage_runs.get(stage.address)
        if known is not None:
            self.store.restore(known)
        if known is not None or not (stage.ran or record.state == "done"):
            return known
        described = stage.described()
        tags = {
            "vcppo.instance": self.instance,
            "vcppo.kind": "stage",
            "vcppo.address": stage.address,
            "study": self.files.name,
            "cell": record.cell,
            "stage": stage.name,
            "cached": str(not stage.ran).lower(),
            **provenance_tags(described.get("provenance", {})),
        }
        began = stage.folder / "stage.json"
        started = began.stat().st_mtime if began.exists() else time.time()
        run = self.store.create(stage.name, tags, started=started, parent=child)
        self.store.write(run, {"stage.json": json.dumps(described, indent=2)})
        self.store.log(run, params=as_params(described.get("settings", {})))
        self._stage_runs[stage.address] = run
        return run

    def _finish_stage(self, run: Run, record: CellRecord, *, done: bool, closing: bool) -> None:
        if done:
            self.store.set_status(run, "FINISHED", ended=time.time())
        elif record.state in ("failed", "pruned"):
            self.store.set_status(run, STATUS[record.state], ended=time.time())
        elif closing:
            self.store.set_status(run, "KILLED", ended=time.time())
        elif record.state == "running":
            self.store.set_status(run, "RUNNING", ended=None)

    def _deliver_records(self, stage: Stage, run: Run, cursors: Cursors) -> int:
        key = (run.id, stage.address)
        start = max(cursors.get(stage, run), self._progress.get(key, 0))
        records = read_journal(stage.journal, start)
        known = self._already_there(stage, run, records)
        for i in range(0, len(records), RECORDS_AT_ONCE):
            chunk = records[i : i + RECORDS_AT_ONCE]
            tables = {table_path(r): to_split(r["columns"]) for r in chunk if r["kind"] == "table"}
            self.store.write(run, tables)
            tags = {LOGGED_TABLES: list_tables(run.tags.get(LOGGED_TABLES, "[]"), list(tables))} if tables else {}
            self.store.log(run, [point for point in points_of(chunk) if not known.has(point)], tags=tags)
            self._progress[key] = start + i + len(chunk)
            cursors.put(stage, run, self._progress[key])
        if start > cursors.get(stage, run):  # another cell that shares the stage has delivered for this one
            cursors.put(stage, run, start)
        return len(records)

    def _already_there(self, stage: Stage, run: Run, records: list[dict[str, Any]]) -> "KnownPoints":
        key = (run.id, stage.address)
        if key in self._sure or not records:
            return KnownPoints([])
        names = {name for record in records if record["kind"] == "metrics" for name in record["values"]}
        self._sure.add(key)
        return KnownPoints(self.store.points(run, names & set(run.metrics)))


class KnownPoints:
    """What a run held before. A resumed stage measures times anew, so a point is known by metric and step.

    Only evaluations are known by their value too: the one during RL and the final one share names.
    """

    def __init__(self, points: list[Point]) -> None:
        self._keys = {self._key(point) for point in points}

    def has(self, point: Point) -> bool:
        return self._key(point) in self._keys

    @staticmethod
    def _key(point: Point) -> tuple[str, int, str]:
        return point.name, point.step, repr(point.value) if point.name.startswith("eval/") else ""


def user_name() -> str:
    """Whoever runs this process, `unknown` where the machine has no name for them."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without an entry in passwd
        return "unknown"


def store_name(tracking_uri: str, experiment: str) -> str:
    """How mlflow.json calls a store."""
    return f"{without_credentials(tracking_uri)}#{experiment}"


def stages_of(child: Run) -> dict[str, str]:
    """The address of each stage of a cell's run, those included that a new attempt has not come to yet."""
    return dict(json.loads(child.tags.get("stages", "{}")))


def points_of(records: list[dict[str, Any]]) -> list[Point]:
    """The values of journal records, at the time that the journal gives them; null is NaN."""
    return [
        Point(name, record["step"], math.nan if value is None else value, int(record["time"] * 1000))
        for record in records
        if record["kind"] == "metrics"
        for name, value in record["values"].items()
    ]


def table_path(record: Mapping[str, Any]) -> str:
    """Where a table lies below its run."""
    return f"tables/{record['name']}/{record['step']:06d}.json"


def list_tables(listed: str, paths: list[str]) -> str:
    """The tag that lists a run's tables, with more of them; the oldest drop out when it becomes too long."""
    entries = json.loads(listed)
    entries += [entry for path in paths if (entry := {"path": path, "type": "table"}) not in entries]
    while len(json.dumps(entries)) > LONGEST_TAG:
        entries.pop(0)
    return json.dumps(entries)


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Dotted names and values as MLflow's parameters."""
    return {
        re.sub(r"[^\w\-. :/]", "_", name): value if isinstance(value, str) else json.dumps(value)
        for name, value in flatten(settings).items()
    }


def provenance_tags(made: Mapping[str, Any]) -> dict[str, str]:
    """A stage's provenance as tags; one of them is the column `Source version` of the UI."""
    if not made:
        return {}
    return {
        "commit": str(made["commit"]),
        "dirty": json.dumps(made["dirty"]),
        "versions": json.dumps(made["versions"]),
        "hardware": json.dumps(made["hardware"]),
        "mlflow.source.git.commit": str(made["commit"]),
    }
