"""MLflow out: a study read back from its runs, as the tidy CSV files that figures are drawn from."""

import csv
import io
import json
import math
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from vcppo.errors import StudyError
from vcppo.store.summary import summary
from vcppo.tracking.mlflow_client import MlflowStore, Point, Run

Row = dict[str, Any]
Curves = dict[str, dict[int, float]]  # metric -> step -> value
Tables = dict[int, dict[str, list[Any]]]  # step -> columns

METRICS = (  # patterns of what curves.csv holds unless asked otherwise: not every time, nothing of the machine
    *(f"{stage}/*" for stage in ("rollout", "policy", "value", "advantage", "select", "cost", "pretrain", "eval")),
    *(f"time/{part}_s" for part in ("generate", "score", "update", "iteration")),
)
COSTS = ("answers", "generated_tokens", "forward_tokens", "backward_tokens", "compute_tokens")

PROVENANCE = ("run_id", "commit", "settings_hash", "n", "origin")  # the seed stands further left
SCORES = (
    "avg_at_k",
    "pass_at_k",
    "k",
    "problems",
    "final_length_tokens",
    "start_length_tokens",
    "min_length_fraction",
    "min_accuracy",
    "final_accuracy",
    "pretrain_steps_done",
    *COSTS,
    "train_s",
    "peak_memory_mb",
)
POSITION_COLUMNS = (
    "position",
    "from_end",
    "n",
    "value_mean",
    "return_mean",
    "value_bias",
    "explained_variance",
    "advantage_mean",
)
CALIBRATION_COLUMNS = ("bin_low", "bin_high", "predicted_mean", "return_mean", "n")
TRUTH_COLUMNS = ("answer", "position", "fraction", "truth", "estimate")
PROBLEM_COLUMNS = ("problem", "samples", "correct", "unreadable", "length_tokens")
FILES = ("runs.csv", "curves.csv", "positions.csv", "calibration.csv", "problems.csv", "truth.csv")
SHOWN_OF_AN_INSTANCE = 12  # digits


@dataclass(frozen=True)
class Pretraining:
    """A value pretraining, which several cells may have started from."""

    curves: Curves
    tables: dict[str, Tables]  # by name


@dataclass(frozen=True)
class CellRun:
    """A cell as its run tells it, with the value pretraining that it started from."""

    run: Run
    curves: Curves  # of RL and evaluation
    pretraining: Pretraining | None = None
    problems: Tables = field(default_factory=dict)  # of the final evaluation

    @property
    def arm(self) -> str:
        return self.run.tags["arm"]

    @property
    def seed(self) -> int:
        return int(self.run.tags["seed"])

    @property
    def done(self) -> bool:
        return self.run.tags["state"] == "done"

    def setting(self, name: str) -> Any:
        """A resolved setting by its dotted name."""
        text = self.run.params[name]
        try:
            return json.loads(text)
        except ValueError:
            return text

    @property
    def answers(self) -> int:
        """Answers that an RL iteration samples."""
        return int(self.setting("rollout.prompts") * self.setting("rollout.samples_per_prompt"))

    @property
    def asked(self) -> int:
        """Problems of an evaluation."""
        if self.problems:
            return len(self.problems[max(self.problems)]["problem"])
        searched = self.run.params.get("evaluation.problems") == "search"
        return int(self.setting("task.held_out_for_search" if searched else "task.held_out"))

    @property
    def pretrain_steps(self) -> int:
        """Updates of value pretraining behind the critic that RL began with; its journal may go on for others."""
        result = json.loads(self.run.tags["result"])
        if "pretrain_steps_done" in result:
            return int(result["pretrain_steps_done"])
        if self.pretraining is None:
            return 0
        asked = self.setting("pretrain.steps")
        if asked != "converge":
            return int(asked)
        return max((max(by_step) for by_step in self.pretraining.curves.values()), default=0)

    def provenance(self, n: int | None) -> Row:
        """The columns that say where a row comes from; n: answers, problems or tokens that its number is taken over."""
        tags = self.run.tags
        made = {"commit": tags.get("commit", "unknown"), "settings_hash": tags["settings_hash"]}
        return {"run_id": self.run.id, **made, "n": n, "origin": "measured"}


def export_experiment(
    tracking_uri: str,
    experiment: str,
    destination: Path,
    *,
    study: str | None = None,
    instance: str | None = None,
    allow_incomplete: bool = False,
    metrics: Sequence[str] = METRICS,
) -> list[Path]:
    """Write runs.csv, curves.csv, positions.csv, calibration.csv and problems.csv of a study in an experiment.

    Where runs measured true values, truth.csv too. All files are replaced, or none; what an earlier export left and
    this one has nothing for goes.

    n is the number of answers behind a row of runs.csv and curves.csv, of tokens in positions.csv and
    calibration.csv, of answers to the problem in problems.csv. Runs that failed or were pruned have a row in
    runs.csv, without scores, and no other. The same store gives the same bytes.

    Args:
        destination: the folder of the files, results/<study>.
        study: its name, if the experiment holds several.
        instance: which of the studies of that name, by the first digits of its `vcppo.instance`, if there are several:
            on a shared server each user's folder has its own.
        allow_incomplete: leave out what is missing instead of refusing.
        metrics: patterns of the names that curves.csv holds.
    Raises:
        StudyError: no such experiment or study, several that it could be, cells of it are missing or still running, or
            none has ended; the files stay as they are.
        TrackingError: the store cannot be reached.
    """
    store = MlflowStore(tracking_uri, experiment)
    parent = find_study(store, study, instance)
    family = store.find({"vcppo.instance": parent.tags["vcppo.instance"]})
    children = [run for run in family if run.tags["vcppo.kind"] == "cell"]
    ended = [run for run in children if run.tags.get("state") in ("done", "failed", "pruned")]
    if not allow_incomplete:
        _refuse_holes(store, parent, children)
    pretrainings = {
        run.tags["vcppo.address"]: _load_pretraining(store, run)
        for run in family
        if run.tags["vcppo.kind"] == "stage" and run.tags["stage"] == "value-pretraining"
    }
    if not ended:
        raise StudyError(
            f"study {parent.tags['study']} ({_described(parent)}): no cell of it has ended, so there is nothing to "
            f"export; {destination} is left as it is"
        )
    cells = [_load(store, run, pretrainings) for run in sorted(ended, key=_order)]
    done = [cell for cell in cells if cell.done]
    name = parent.tags["study"]
    swept = sorted({key for cell in cells for key in json.loads(cell.run.tags["swept"])})
    truth = [row for cell in done for row in truth_rows(name, cell, store.tables(cell.run, "true_values"))]
    truth_columns = ("study", "arm", "seed", "step", *TRUTH_COLUMNS, *PROVENANCE)
    return write_csv_files(
        destination,
        {
            **({"truth.csv": (truth_columns, truth)} if truth else {}),
            "runs.csv": (run_columns(swept), [run_row(name, cell, swept) for cell in cells]),
            "curves.csv": (
                ("study", "arm", "seed", "step", "metric", "value", *PROVENANCE),
                (row for cell in done for row in curve_rows(name, cell, metrics)),
            ),
            "positions.csv": _critic_table(store, name, done, "critic_by_position", POSITION_COLUMNS),
            "calibration.csv": _critic_table(store, name, done, "critic_calibration", CALIBRATION_COLUMNS),
            "problems.csv": (
                ("study", "arm", "seed", *PROBLEM_COLUMNS, *PROVENANCE),
                (row for cell in done for row in problem_rows(name, cell)),
            ),
        },
    )


def run_columns(swept: Sequence[str]) -> tuple[str, ...]:
    """Header of runs.csv."""
    return ("study", "cell", "arm", "seed", "status", "error", "wall_s", "steps", *swept, *SCORES, *PROVENANCE)


def run_row(study: str, cell: CellRun, swept: Sequence[str]) -> Row:
    """A row of runs.csv."""
    tags = cell.run.tags
    values = json.loads(tags["swept"])
    scored = scores(cell) if cell.done else {}
    answers = scored["k"] * scored["problems"] if scored.get("k") and scored.get("problems") else None
    return {
        "study": study,
        "cell": tags["cell"],
        "arm": cell.arm,
        "seed": cell.seed,
        "status": tags["state"],
        "error": tags["error"],
        "wall_s": float(tags["wall_s"]) if "wall_s" in tags else None,
        "steps": len(cell.curves.get("rollout/accuracy", {})),
        **{name: values.get(name) for name in swept},
        **scored,
        **cell.provenance(answers),
    }


def scores(cell: CellRun) -> Row:
    """What a finished run came to: its evaluation, and the extremes and the end of its RL curves."""
    k, curves = cell.setting("evaluation.samples"), cell.curves
    row: Row = {"pretrain_steps_done": cell.pretrain_steps, "k": k, "problems": cell.asked}
    for kind in ("avg", "pass"):
        found = [by_step for name, by_step in curves.items() if re.fullmatch(rf"eval/.+/{kind}_at_{k}", name)]
        row[f"{kind}_at_k"] = found[0][max(found[0])] if found else None
    row |= summary(curves)
    ends = {"train_s": "elapsed_s", "peak_memory_mb": "peak_memory_mb", **{name: name for name in COSTS}}
    for column, metric in ends.items():
        by_step = curves.get(f"cost/{metric}")
        row[column] = by_step[max(by_step)] if by_step else None
    return row


def curve_rows(study: str, cell: CellRun, metrics: Sequence[str] = METRICS) -> list[Row]:
    """Rows of curves.csv: RL and evaluation, and value pretraining as far as this cell's critic has seen it."""
    rows = []
    before = {
        name: {step: value for step, value in by_step.items() if step <= cell.pretrain_steps}
        for name, by_step in (cell.pretraining.curves.items() if cell.pretraining is not None else ())
    }
    for name, by_step in sorted({**before, **cell.curves}.items()):
        if not any(fnmatch(name, pattern) for pattern in metrics):
            continue
        for step, value in sorted(by_step.items()):
            own = {"study": study, "arm": cell.arm, "seed": cell.seed, "step": step, "metric": name}
            own["value"] = None if math.isnan(value) else value
            rows.append(own | cell.provenance(answers_behind(cell, name, step)))
    return rows


def answers_behind(cell: CellRun, metric: str, step: int) -> int:
    """How many answers a point of a curve is taken over."""
    if metric in ("pretrain/loss", "pretrain/grad_norm"):
        return int(cell.setting("pretrain.batch"))
    if metric.startswith("pretrain/"):
        return int(cell.setting("pretrain.held_out"))
    if metric.startswith("eval/"):
        at_k = re.search(r"_at_(\d+)$", metric)
        final = step == max(cell.curves[metric])
        samples = cell.setting("evaluation.samples" if final else "evaluation.samples_during")
        return int(cell.asked * (int(at_k[1]) if at_k else samples))
    return cell.answers


def table_rows(study: str, cell: CellRun, stage: str, tables: Tables, columns: Sequence[str]) -> list[Row]:
    """Rows of positions.csv and calibration.csv: columns of a table by step, a row for each bin."""
    rows = []
    for step, table in sorted(tables.items()):
        own = {"study": study, "arm": cell.arm, "seed": cell.seed, "stage": stage, "step": step}
        for i, n in enumerate(table["n"]):
            rows.append(own | cell.provenance(n) | {name: table[name][i] for name in columns})
    return rows


def problem_rows(study: str, cell: CellRun) -> list[Row]:
    """Rows of problems.csv: the final evaluation."""
    if not cell.problems:
        return []
    table = cell.problems[max(cell.problems)]
    own = {"study": study, "arm": cell.arm, "seed": cell.seed}
    return [
        own | {name: table[name][i] for name in PROBLEM_COLUMNS} | cell.provenance(samples)
        for i, samples in enumerate(table["samples"])
    ]


def truth_rows(study: str, cell: CellRun, tables: Tables) -> list[Row]:
    """Rows of truth.csv: states with their true values and the estimates that training used."""
    samples = cell.setting("record.truth_samples") if tables else 0
    return [
        {"study": study, "arm": cell.arm, "seed": cell.seed, "step": step}
        | {name: table[name][i] for name in TRUTH_COLUMNS}
        | cell.provenance(samples)
        for step, table in sorted(tables.items())
        for i in range(len(table["truth"]))
    ]


def write_csv_files(destination: Path, files: Mapping[str, tuple[Sequence[str], Iterable[Row]]]) -> list[Path]:
    """Write every file beside its place, then put all in place: all of them, or, after an error, none.

    Those of FILES that are not written now go: they are of another export.
    """
    destination.mkdir(parents=True, exist_ok=True)
    gone = [name for name in FILES if name not in files and (destination / name).exists()]
    with tempfile.TemporaryDirectory(prefix=".export-", dir=destination) as folder, ExitStack() as undo:
        new, old = Path(folder, "new"), Path(folder, "old")
        new.mkdir()
        old.mkdir()
        for name, (columns, rows) in files.items():
            (new / name).write_text(as_csv(columns, rows), encoding="utf-8")
        for name in (*files, *gone):
            if (destination / name).exists():
                shutil.copy2(destination / name, old / name)
        for name in (*files, *gone):
            undo.callback(_put_back, old / name, destination / name)
            if name in files:
                os.replace(new / name, destination / name)
            else:
                (destination / name).unlink()
        undo.pop_all()
    return [destination / name for name in files]


def _put_back(old: Path, place: Path) -> None:
    if old.exists():
        os.replace(old, place)
    else:
        place.unlink(missing_ok=True)


def as_csv(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Rows as CSV; a float in its shortest form that reads back the same, what is missing left empty.

    >>> as_csv(("a", "b", "c"), [{"a": 0.1, "b": None, "c": True}])
    'a,b,c\\n0.1,,True\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def curves_of(points: Iterable[Point]) -> Curves:
    """Points by metric and step; of several at one step the latest counts."""
    curves: Curves = {}
    for point in sorted(points, key=lambda point: point.time_ms):
        curves.setdefault(point.name, {})[point.step] = point.value
    return curves


def find_study(store: MlflowStore, study: str | None = None, instance: str | None = None) -> Run:
    """The run of the one study that is meant: never one of several, since the others are somebody else's.

    Raises:
        StudyError: there is none, or several; the message lists them.
    """
    where = f"experiment {store.experiment!r}"
    wanted = {"vcppo.kind": "study"} if study is None else {"vcppo.kind": "study", "study": study}
    by_instance: dict[str, Run] = {}
    for run in store.find(wanted):
        by_instance.setdefault(run.tags["vcppo.instance"], run)
    parents = list(by_instance.values())
    named = "" if study is None else f" {study!r}"
    if not parents:
        raise StudyError(f"{where}: holds no study{named} of vcppo")
    listed = "; ".join(f"{_short(run)} ({_described(run)})" for run in parents)
    if instance is not None:
        parents = [run for run in parents if run.tags["vcppo.instance"].startswith(instance)]
        if not parents:
            raise StudyError(f"{where}: holds no study{named} of the instance {instance}; it holds {listed}")
    names = sorted({run.tags["study"] for run in parents})
    if len(names) > 1:
        raise StudyError(f"{where}: holds the studies {', '.join(names)}; name one")
    if len(parents) > 1:
        raise StudyError(
            f"{where}: holds {len(parents)} studies {names[0]!r}, of different folders: {listed}; choose one, for "
            f"example with --instance {_short(parents[-1])}, or give the --out that yours was run with"
        )
    return parents[0]


def _short(parent: Run) -> str:
    return parent.tags["vcppo.instance"][:SHOWN_OF_AN_INSTANCE]


def _described(parent: Run) -> str:
    begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(parent.started_ms / 1000))
    done, cells = (parent.tags.get(name, "0") for name in ("cells.done", "cells"))
    return f"begun {begun} by {parent.tags.get('mlflow.user', 'unknown')}, {done} of {cells} cells done"


def _refuse_holes(store: MlflowStore, parent: Run, children: list[Run]) -> None:
    states = {run.tags["cell"]: run.tags.get("state", "running") for run in children}
    expected = json.loads(store.read(parent, "cells.json") or "[]")
    holes = [f"{cell} ({states.get(cell, 'not begun')})" for cell in sorted({*expected, *states})]
    holes = [hole for hole in holes if not hole.endswith(("(done)", "(failed)", "(pruned)"))]
    if holes or not expected:
        missing = ", ".join(holes) or "its list of cells"
        raise StudyError(
            f"study {parent.tags['study']} is incomplete, {len(holes)} of {len(expected)} cells missing: {missing}; "
            "finish the study, or deliver what is still on disk with `vcppo track replay`"
        )


def _load(store: MlflowStore, run: Run, pretrainings: Mapping[str, Pretraining]) -> CellRun:
    pretraining = pretrainings.get(json.loads(run.tags["stages"]).get("value-pretraining", ""))
    problems = store.tables(run, "problems") if run.tags["state"] == "done" else {}
    return CellRun(run, curves_of(store.points(run, run.metrics)), pretraining, problems)


def _load_pretraining(store: MlflowStore, run: Run) -> Pretraining:
    names = [name for name in run.metrics if name.startswith("pretrain/")]
    tables = {name: store.tables(run, name) for name in ("critic_by_position", "critic_calibration")}
    return Pretraining(curves_of(store.points(run, names)), tables)


def _critic_table(
    store: MlflowStore, study: str, cells: list[CellRun], name: str, columns: Sequence[str]
) -> tuple[Sequence[str], Iterable[Row]]:
    """A table of value pretraining and RL, all steps of all cells."""
    rows: list[Row] = []
    for cell in cells:
        if cell.pretraining is not None:
            all_steps = cell.pretraining.tables[name]
            within = {step: table for step, table in all_steps.items() if step <= cell.pretrain_steps}
            rows += table_rows(study, cell, "value-pretraining", within, columns)
        rows += table_rows(study, cell, "rl", store.tables(cell.run, name), columns)
    others = [column for column in PROVENANCE if column not in columns]
    return ("study", "arm", "seed", "stage", "step", *columns, *others), rows


def _order(run: Run) -> tuple[str, int, str]:
    return run.tags["arm"], int(run.tags["seed"]), run.tags["cell"]
