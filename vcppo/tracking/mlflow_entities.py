"""Records of a study as MLflow's entities: points, parameters, tags, tables."""

import getpass
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vcppo.settings.loading import flatten
from vcppo.store.cell_folders import CellRecord
from vcppo.store.study_folders import Stage, provenance_of
from vcppo.tracking.mlflow_client import LONGEST_TAG, Point, to_split

STATUS = {"queued": "SCHEDULED", "running": "RUNNING", "done": "FINISHED", "failed": "FAILED", "pruned": "KILLED"}

MEASURED = "model/"  # prefix of the metrics of logged models; the run that they belong to has them too

Record = dict[str, Any]


def points_of(records: Iterable[Record]) -> list[Point]:
    """Return the metrics of journal records as points, at the journal's times; null is NaN."""
    return [
        Point(name, record["step"], math.nan if value is None else value, int(record["time"] * 1000))
        for record in records
        if record["kind"] == "metrics"
        for name, value in record["values"].items()
    ]


def table_files(records: Iterable[Record]) -> dict[str, str]:
    """Return the tables among journal records as files by their path below a run."""
    return {
        f"tables/{record['name']}/{record['step']:06d}.json": to_split(record["columns"])
        for record in records
        if record["kind"] == "table"
    }


def list_tables(listed: str, paths: Iterable[str]) -> str:
    """Add tables to the tag that lists a run's; the oldest are dropped when it becomes too long."""
    entries = json.loads(listed)
    entries += [entry for path in paths if (entry := {"path": path, "type": "table"}) not in entries]
    while len(json.dumps(entries)) > LONGEST_TAG:
        entries.pop(0)
    return json.dumps(entries)


def as_params(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return dotted names and values as MLflow's parameters."""
    return {
        re.sub(r"[^\w\-. :/]", "_", name): value if isinstance(value, str) else json.dumps(value)
        for name, value in flatten(settings).items()
    }


def cell_tags(record: CellRecord, stages: list[Stage]) -> dict[str, str]:
    """Return the tags of a cell's run, without those of its end and of its settings."""
    return {
        "cell": record.cell,
        "arm": record.arm,
        "seed": str(record.seed),
        "swept": json.dumps(record.swept),
        "stages": json.dumps({stage.name: stage.address for stage in stages}),
        "attempts": str(record.attempts),
        "cached": str(any(stage.name == "rl" and not stage.ran for stage in stages)).lower(),
        **provenance_tags(provenance_of(stages)),
    }


def end_tags(record: CellRecord, state: str) -> dict[str, str]:
    """Return the tags of a cell's state and result."""
    times = {} if record.finished is None else {"wall_s": repr(record.finished - (record.started or 0.0))}
    outcome = {
        "error": record.error or "",
        "pruned": str(state == "pruned").lower(),
        "result": json.dumps(record.result),
    }
    return {"state": state, **outcome, **times}


def warning_tags(since: Mapping[str, int]) -> dict[str, str]:
    """Return the tag of a run's early warnings, the first of them first; none of a run that did not warn.

    >>> warning_tags({"length_falls": 3, "alignment": 0})
    {'early_warning': 'alignment since iteration 0, length_falls since iteration 3'}
    """
    in_order = sorted(since.items(), key=lambda warned: (warned[1], warned[0]))
    words = ", ".join(f"{rule} since iteration {step}" for rule, step in in_order)
    return {"early_warning": words} if words else {}


def stage_tags(stage: Stage) -> dict[str, str]:
    """Return the tags of a stage's run."""
    return {
        "vcppo.address": stage.address,
        "cell": stage.cell,
        "stage": stage.name,
        "cached": str(not stage.ran).lower(),
        **provenance_tags(stage.description().get("provenance", {})),
    }


def provenance_tags(recorded: Mapping[str, Any]) -> dict[str, str]:
    """Return a stage's provenance as tags; one of them is the column `Source version` of the UI."""
    if not recorded:
        return {}
    return {
        "commit": str(recorded["commit"]),
        "dirty": json.dumps(recorded["dirty"]),
        "versions": json.dumps(recorded["versions"]),
        "hardware": json.dumps(recorded["hardware"]),
        "mlflow.source.git.commit": str(recorded["commit"]),
    }


def user_name() -> str:
    """Return the user of this process, `unknown` where the machine has no name for it."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without an entry in passwd
        return "unknown"
