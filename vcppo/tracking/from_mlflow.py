"""A study's measurements, read from a tracking server: for studies whose folders are on other machines."""

import json
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from vcppo.errors import StudyError
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import ENDED
from vcppo.store.summary import Curves
from vcppo.tracking.from_disk import CRITIC_TABLES, TABLES
from vcppo.tracking.measured import MeasuredCell, MeasuredStudy, Pretraining, refuse_empty, refuse_unfinished
from vcppo.tracking.mlflow_client import MlflowStore, Point, Run
from vcppo.tracking.mlflow_entities import MEASURED

INSTANCE_DIGITS = 12  # shown in messages


def read_study(
    tracking_uri: str,
    experiment: str,
    *,
    study: str | None = None,
    instance: str | None = None,
    allow_incomplete: bool = False,
) -> MeasuredStudy:
    """Read the cells of a study that have ended from an experiment.

    Args:
        study: its name, if the experiment holds several.
        instance: which of the studies of that name, by the first digits of its `vcppo.instance`, if there are several:
            on a shared server each user's folder has another.
    Raises:
        StudyError: no such experiment or study, several that match, cells of it are missing or still running, or
            none has ended.
        TrackingError: the store cannot be reached.
    """
    store = MlflowStore(tracking_uri, experiment)
    parent = find_study(store, study, instance)
    name = parent.tags["study"]
    runs = store.find({"vcppo.instance": parent.tags["vcppo.instance"]})
    children = _one_each([run for run in runs if run.tags["vcppo.kind"] == "cell"])
    if not allow_incomplete:
        _refuse_missing(store, parent, children)
    ended = [run for run in children if run.tags.get("state") in ENDED]
    refuse_empty(name, _describe(parent), len(ended))
    pretrainings = {
        run.tags["vcppo.address"]: _read_pretraining(store, run)
        for run in sorted(runs, key=lambda run: len(run.metrics))  # of twins the one that has them counts
        if run.tags["vcppo.kind"] == "stage" and run.tags["stage"] == "value-pretraining"
    }
    given = str(json.loads(store.read(parent, "study.json") or "{}").get("given", ""))
    return MeasuredStudy.of(name, [_read_cell(store, run, pretrainings) for run in ended], given)


def find_study(store: MlflowStore, study: str | None = None, instance: str | None = None) -> Run:
    """Find the run of one study: never one of several, since the others are another user's.

    Raises:
        StudyError: there is none, or several; the message lists them.
    """
    where = f"experiment {store.experiment!r}"
    tags = {"vcppo.kind": "study"} if study is None else {"vcppo.kind": "study", "study": study}
    by_instance: dict[str, Run] = {}
    for run in store.find(tags):  # one that was made twice, its first reply lost, has a twin that nobody described
        twin = by_instance.get(run.tags["vcppo.instance"])
        if twin is None or ("cells" in run.tags and "cells" not in twin.tags):
            by_instance[run.tags["vcppo.instance"]] = run
    parents = list(by_instance.values())
    label = "" if study is None else f" {study!r}"
    if not parents:
        raise StudyError(f"{where}: holds no study{label} of vcppo")
    listed = "; ".join(f"{_short_id(run)} ({_describe(run)})" for run in parents)
    if instance is not None:
        parents = [run for run in parents if run.tags["vcppo.instance"].startswith(instance)]
        if not parents:
            raise StudyError(f"{where}: holds no study{label} of the instance {instance}; it holds {listed}")
    names = sorted({run.tags["study"] for run in parents})
    if len(names) > 1:
        raise StudyError(f"{where}: holds the studies {', '.join(names)}; name one")
    if len(parents) > 1:
        raise StudyError(
            f"{where}: holds {len(parents)} studies {names[0]!r}, of different folders: {listed}; choose one, for "
            f"example with --instance {_short_id(parents[-1])}, or give the --out that yours was run with"
        )
    return parents[0]


def _one_each(runs: Iterable[Run]) -> list[Run]:
    """Return one run of each cell, of twins the one that has ended: the reply to a run's creation may be lost."""
    by_cell: dict[str, Run] = {}
    for run in runs:
        if run.tags["cell"] not in by_cell or run.tags.get("state") in ENDED:
            by_cell[run.tags["cell"]] = run
    return list(by_cell.values())


def curves_of(points: Iterable[Point]) -> Curves:
    """Return points by metric and step; of several at one step the latest counts."""
    curves: Curves = {}
    for point in sorted(points, key=lambda point: point.time_ms):
        curves.setdefault(point.name, {})[point.step] = point.value
    return curves


def _short_id(parent: Run) -> str:
    return parent.tags["vcppo.instance"][:INSTANCE_DIGITS]


def _describe(parent: Run) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(parent.started_ms / 1000))
    done, cells = (parent.tags.get(name, "0") for name in ("cells.done", "cells"))
    return f"begun {begun} by {parent.tags.get('mlflow.user', 'unknown')}, {done} of {cells} cells done"


def _refuse_missing(store: MlflowStore, parent: Run, children: list[Run]) -> None:
    name, expected = parent.tags["study"], json.loads(store.read(parent, "cells.json") or "[]")
    remedy = "finish the study, or have its owner send what is still on disk with `vcppo track replay`"
    if not expected:
        raise StudyError(f"study {name} is incomplete, its list of cells is missing; {remedy}")
    states = dict.fromkeys(expected, "not begun")
    refuse_unfinished(name, states | {run.tags["cell"]: run.tags.get("state", "running") for run in children}, remedy)


def _read_cell(store: MlflowStore, run: Run, pretrainings: Mapping[str, Pretraining]) -> MeasuredCell:
    tags = run.tags
    tables = {name: store.tables(run, name) for name in TABLES} if tags["state"] == "done" else {}
    return MeasuredCell(
        run_id=run.id,
        cell=tags["cell"],
        arm=tags["arm"],
        seed=int(tags["seed"]),
        state=tags["state"],
        settings=_settings_of(store, run),
        settings_hash=tags["settings_hash"],
        curves=curves_of(store.points(run, [name for name in run.metrics if not name.startswith(MEASURED)])),
        error=tags["error"],
        wall_s=float(tags["wall_s"]) if "wall_s" in tags else None,
        swept=json.loads(tags["swept"]),
        result=json.loads(tags["result"]),
        commit=tags.get("commit", "unknown"),
        pretraining=pretrainings.get(json.loads(tags["stages"]).get("value-pretraining", "")),
        tables={name: by_step for name, by_step in tables.items() if by_step},
    )


def _settings_of(store: MlflowStore, run: Run) -> RunSettings:
    text = store.read(run, "settings.json")
    if text is None:
        raise StudyError(f"cell {run.tags['cell']} (run {run.id}): its file settings.json is missing")
    with tempfile.TemporaryDirectory(prefix="vcppo-") as folder:
        file = Path(folder, "settings.json")
        file.write_text(text, encoding="utf-8")
        return load_settings(file)


def _read_pretraining(store: MlflowStore, run: Run) -> Pretraining:
    names = [name for name in run.metrics if name.startswith("pretrain/")]
    return Pretraining(curves_of(store.points(run, names)), {name: store.tables(run, name) for name in CRITIC_TABLES})
