"""What a run or a study leaves, but for what two undisturbed ones differ in; and what none may leave."""

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import optuna
import psutil
import pyarrow.parquet as pq
from study_processes import ABOUT_THE_RUN, processes

from vcppo.store.journal import read_journal
from vcppo.studies.trials import open_storage
from vcppo.system.files import read_json
from vcppo.system.fingerprints import sha256_of
from vcppo.system.temporaries import is_temporary

OF_THE_MACHINE = ("time/", "system/", "cost/peak", "cost/elapsed")  # metrics that differ between two runs
RUNS = """
SELECT r.run_uuid, r.status, r.lifecycle_stage FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
WHERE t.key = 'vcppo.instance' AND t.value = ?
"""

INSTANCES = """
SELECT DISTINCT t.value FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid
WHERE t.key = 'vcppo.instance' AND r.lifecycle_stage = 'active'
"""

Image = dict[str, Any]  # by what it is of
Counts = Counter[tuple[str, ...]]


def measured(out: Path) -> Image:
    """Return the journals, results and weights of the stages in a cache."""
    left: Image = {}
    for folder in sorted(out.glob("cache/*/*")):
        if ".bad-" in folder.name:
            continue
        name = f"{folder.parent.name}/{folder.name}"
        left[f"{name}/result"] = read_json(folder / "done.json")["result"]
        left[f"{name}/journal"] = [_lasting(record) for record in read_journal(folder / "journal.jsonl")]
        weights = sorted(folder.rglob("*.safetensors"))
        left |= {f"{name}/{file.relative_to(folder)}": sha256_of(file) for file in weights}
    return left


def _lasting(record: dict[str, Any]) -> dict[str, Any]:
    lasting = {key: value for key, value in record.items() if key != "time"}
    if "values" in lasting:
        lasting["values"] = {n: v for n, v in record["values"].items() if not n.startswith(OF_THE_MACHINE)}
    return lasting


def exported(results: Path) -> Image:
    """Return the rows of a study's exported files as text, without times and ids."""
    found: Image = {}
    for path in sorted(results.glob("*.csv")):
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        found[path.name] = [{n: v for n, v in row.items() if n not in ABOUT_THE_RUN} for row in rows]
    for path in sorted(results.glob("*.parquet")):
        rows = pq.read_table(path).drop_columns(["run_id"]).to_pylist()
        found[path.name] = [repr(row) for row in rows if not row.get("metric", "").startswith(OF_THE_MACHINE)]
    return found


def states(study: Path) -> dict[str, str]:
    """Return the states of a study's cells, by their records."""
    return {file.parent.name: json.loads(file.read_text())["state"] for file in sorted(study.glob("cells/*/cell.json"))}


def trials(study: Path, storage: str | None = None) -> Counts:
    """Return name, state and values of a study's trials in Optuna, each with how often it is there."""
    name = json.loads((study / "study.json").read_text())["optuna_study"]
    stored = optuna.load_study(study_name=name, storage=open_storage(storage, study)).get_trials()
    return Counter((t.user_attrs["name"], t.state.name, repr(t.values)) for t in stored)


def runs_in_mlflow(database: Path, study: Path) -> Counts:
    """Return a study's runs in an MLflow server's SQLite file, those in the bin aside, with all their points."""
    instance = json.loads((study / "mlflow.json").read_text())["instance"]
    found: Counts = Counter()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for run, status, stage in connection.execute(RUNS, (instance,)).fetchall():
            if stage != "active":
                continue
            tags = dict(connection.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (run,)).fetchall())
            name = tags["cell"] if tags["vcppo.kind"] == "cell" else tags.get("vcppo.address", "")
            run_name = (tags["vcppo.kind"], name)
            found[(*run_name, status)] += 1
            points = "SELECT key, step, value, is_nan FROM metrics WHERE run_uuid = ?"
            for key, *point in connection.execute(points, (run,)).fetchall():
                if not key.startswith(OF_THE_MACHINE):
                    found[(*run_name, key, *map(str, point))] += 1
    return found


def instances(database: Path) -> set[str]:
    """Return the studies that have runs in an MLflow server's SQLite file outside the bin."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {instance for (instance,) in connection.execute(INSTANCES).fetchall()}


def differing(found: Image, expected: Image) -> str | None:
    """Return what differs first, None if nothing does."""
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            return f"{name} is lost"
        if name not in expected:
            return f"{name} is too many"
        if found[name] != expected[name]:
            return f"{name} differs"
    return None


def miscounted(what: str, found: Counts, expected: Counts) -> str | None:
    """Return what is lost or there too often, None if nothing is."""
    if found == expected:
        return None
    lost, doubled = expected - found, found - expected
    few = [f"{' '.join(map(str, one))} {'lost' if one in lost else 'too often'}" for one in [*lost, *doubled][:3]]
    return f"{what}: {lost.total()} lost, {doubled.total()} too many: {', '.join(few)}"


def temporary_in(folder: Path) -> str | None:
    """Return a temporary that is left, None if none is."""
    left = [path for path in folder.rglob(".*") if is_temporary(path)]
    return f"left {left[0].relative_to(folder)}" if left else None


def processes_in(folder: Path) -> list[str]:
    """Return the processes that were started in a folder or below it, and live."""
    living = []
    for process in processes():
        with suppress(psutil.Error):  # it ends while it is looked at
            if (words := process.cmdline()) and Path(process.cwd()).is_relative_to(folder):
                living.append(" ".join(words))
    return living


def said_in(folder: Path, words: str) -> str | None:
    """Return a file below a folder that has these words, with what stands around them; None if none has."""
    wanted = words.encode()
    for path in files_below(folder):
        content = path.read_bytes()
        at = content.find(wanted)
        if at >= 0:
            around = content[max(at - 40, 0) : at + 300].decode(errors="replace")
            return f"{path.relative_to(folder)}: {' '.join(around.split())}"
    return None


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the plain files below a folder."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())


def first(*checks: Callable[[], str | None]) -> str | None:
    """Return what the first check that fails says; None if all pass."""
    for check in checks:
        if (wrong := check()) is not None:
            return wrong
    return None
