"""What a study has on disk in MLflow's words: points, parameters, tags, tables."""

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

Record = dict[str, Any]


def points_of(records: Iterable[Record]) -> list[Point]:
    """The values of journal records, at the time that the journal gives them; null is NaN."""
    return [
        Point(name, record["step"], math.nan if value is None else value, int(record["time"] * 1000))
        for record in records
        if record["kind"] == "metrics"
        for name, value in record["values"].items()
    ]


def table_files(records: Iterable[Record]) -> dict[str, str]:
    """The tables among journal records as files by their path below a run."""
    return {
        f"tables/{record['name']}/{record['step']:06d}.json": to_split(record["columns"])
        for record in records
        if record["kind"] == "table"
    }


def list_tables(listed: str, paths: Iterable[str]) -> str:
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


def cell_tags(record: CellRecord, stages: list[Stage]) -> dict[str, str]:
    """What a cell's run says of it, its end apart."""
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
    """How a cell stands or ended."""
    times = {} if record.finished is None else {"wall_s": repr(record.finished - (record.started or 0.0))}
    told = {"error": record.error or "", "pruned": str(state == "pruned").lower(), "result": json.dumps(record.result)}
    return {"state": state, **told, **times}


def stage_tags(stage: Stage) -> dict[str, str]:
    """What a stage's run says of it."""
    return {
        "vcppo.address": stage.address,
        "cell": stage.cell,
        "stage": stage.name,
        "cached": str(not stage.ran).lower(),
        **provenance_tags(stage.description().get("provenance", {})),
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


def user_name() -> str:
    """Whoever runs this process, `unknown` where the machine has no name for them."""
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without an entry in passwd
        return "unknown"
