"""Checkpoints on disk as MLflow's logged models: what each is, its settings, and what it was measured by.

A logged model names the folder of the weights, which stay there. Its metrics are `model/*`: those that its stage
measured of it, and of a critic its bias at fractions of a response.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.settings.digests import digest
from vcppo.settings.known_sets import label
from vcppo.store.journal import read_journal
from vcppo.store.manifest import ManifestError, read_manifest
from vcppo.store.pretrained_critics import saved_steps
from vcppo.store.study_folders import Stage
from vcppo.tracking.mlflow_client import Point
from vcppo.tracking.mlflow_entities import MEASURED, Record, as_params, points_of

_REFUSED = re.compile(r"[/:.%\"']")  # in names of models
PREFIXES = {  # of the metrics of a stage's journal that are a checkpoint's
    ("cold-start", "policy"): "cold_start/",
    ("reward-model", "critic"): "reward_model/",
    ("preference", "policy"): "policy/",
    ("value-pretraining", "critic"): "pretrain/",
    ("rl", "policy"): "rollout/",
    ("rl", "critic"): "value/",
}


@dataclass(frozen=True)
class ProblemSet:
    """Problems that something was measured on."""

    name: str
    digest: str
    source: str  # JSON
    context: str  # what it was used for: training or evaluation

    @classmethod
    def of(cls, task: Mapping[str, Any], context: str) -> "ProblemSet":
        """Return a task's problems of training or evaluation.

        Args:
            task: as addresses know it, see `task_address`.
        """
        part = {"training": "train", "evaluation": "evaluate"}[context]
        name, made_of = str(task.get("name")), dict(task)
        if isinstance(maths := task.get("maths"), Mapping):
            name = label(str(maths[part]))
            made_of = {"source": maths[part], "content": task.get("content", {}).get(part)}
        return cls(f"{name}/{part}", digest(made_of), json.dumps(made_of, sort_keys=True), context)


@dataclass(frozen=True)
class Measured:
    """Metrics of a model, and the problems that they were measured on."""

    points: tuple[Point, ...]
    problems: ProblemSet | None


@dataclass(frozen=True)
class ModelRecord:
    """A checkpoint on disk."""

    name: str
    kind: str  # policy or critic
    step: int  # of its stage: updates, or iterations
    tags: Mapping[str, str]
    params: Mapping[str, str]
    measured: tuple[Measured, ...]


def problem_sets(stages: Sequence[Stage]) -> list[ProblemSet]:
    """Return the problems of a cell's stages, by what they are used for."""
    tasks = [task for stage in stages if (task := stage.description().get("settings", {}).get("task"))]
    contexts = ["training", *(["evaluation"] if any(stage.name == "evaluation" for stage in stages) else [])]
    return [ProblemSet.of(tasks[-1], context) for context in contexts] if tasks else []


def models_of(stage: Stage, tags: Mapping[str, str], evaluation: Stage | None = None) -> list[ModelRecord]:
    """Return the checkpoints in a stage's folder, with what its journal says of each.

    Args:
        tags: of all of them.
        evaluation: of the policy that the stage ended with.
    """
    folders = _checkpoints(stage)
    if not folders:
        return []
    description, records = stage.description(), read_journal(stage.journal)
    settings = description.get("settings", {})
    problems = ProblemSet.of(settings["task"], "training") if settings.get("task") else None
    parents = [f"{name}/{address}" for name, address in description.get("parents", {}).items()]
    last = max((record["step"] for record in records), default=0)
    models = []
    for folder in folders:
        kind, _, updates = folder.name.partition("-")
        step = int(updates) if updates else last
        points = _points(stage.name, kind, [record for record in records if record["step"] <= step], step)
        measured = [Measured(tuple(points), problems)]
        if evaluation is not None and kind == "policy":
            measured.append(_evaluated(evaluation))
        own = {"stage": stage.name, "address": f"{stage.name}/{stage.address}", "parents": ", ".join(parents)}
        own |= {"path": str(folder.resolve()), "sha256sum": _checksums(stage.folder, folder.name)}
        models.append(
            ModelRecord(
                name=_REFUSED.sub("_", _name(stage, folder, tags["cell"])),
                kind=kind,
                step=step,
                tags={**tags, **own},
                params={"stage": stage.name, "step": str(step), **as_params(settings)},
                measured=tuple(one for one in measured if one.points),
            )
        )
    return models


def _name(stage: Stage, checkpoint: Path, cell: str) -> str:
    """A name that tells models apart by its beginning, for the UI cuts it."""
    return f"{cell}-{checkpoint.name}" if stage.name == "rl" else f"{checkpoint.name}-{stage.name}-{stage.address}"


def _checkpoints(stage: Stage) -> list[Path]:
    names = ["policy", "critic", *(f"critic-{step:06d}" for step in saved_steps(stage.folder))]
    return [folder for name in names if ((folder := stage.folder / name) / "config.json").exists()]


def _points(stage: str, kind: str, records: Sequence[Record], step: int) -> list[Point]:
    """Points of `model/*`: the latest of each metric up to a step; of a pretrained critic those of its own step."""
    prefix = PREFIXES.get((stage, kind))
    latest = {point.name: point for point in points_of(records) if prefix and point.name.startswith(prefix)}
    named = [
        Point(MEASURED + point.name.removeprefix(prefix or ""), point.step, point.value, point.time_ms)
        for point in latest.values()
    ]
    found = [*named, *(_biases(records) if kind == "critic" else [])]
    return [point for point in found if stage != "value-pretraining" or point.step == step]


def _biases(records: Sequence[Record]) -> list[Point]:
    """Bias at fractions of a response, with its sign and without it, from the latest table of a critic."""
    tables = [record for record in records if record["kind"] == "table" and record["name"] == "critic_by_fraction"]
    return [
        Point(f"{MEASURED}{name}_at_{100 * fraction:.0f}pct", table["step"], value, int(1000 * table["time"]))
        for table in tables[-1:]
        for fraction, bias in zip(table["columns"]["fraction"], table["columns"]["value_bias"], strict=True)
        if bias is not None
        for name, value in (("bias", bias), ("abs_bias", abs(bias)))
    ]


def _evaluated(evaluation: Stage) -> Measured:
    """What the last evaluation measured, under the last part of its metrics' names."""
    points = [
        Point(MEASURED + point.name.rpartition("/")[2], point.step, point.value, point.time_ms)
        for point in points_of(read_journal(evaluation.journal))
    ]
    task = evaluation.description().get("settings", {}).get("task")
    return Measured(tuple(points), ProblemSet.of(task, "evaluation") if task else None)


def _checksums(stage: Path, folder: str) -> str:
    """Return lines that `sha256sum -c` reads in the checkpoint's folder; none of a stage without a manifest."""
    try:
        recorded = read_manifest(stage)
    except ManifestError:
        return ""
    weights = {
        path.removeprefix(f"{folder}/"): file for path, file in recorded.items() if path.startswith(f"{folder}/")
    }
    return "\n".join(f"{file.sha256}  {name}" for name, file in weights.items() if name.endswith(".safetensors"))
