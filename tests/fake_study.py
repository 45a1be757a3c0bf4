"""A study on disk that nobody ran: journals and records as the stages write them, with numbers easy to know again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord, State
from vcppo.store.journal import Journal
from vcppo.store.manifest import record_files
from vcppo.store.pretrained_critics import MARK

STARTED = 1_700_000_000.0
PROVENANCE = {
    "commit": "0123456789ab",
    "dirty": False,
    "versions": {"python": "3.11.2", "vcppo": "0.1.0"},
    "hardware": {"cpu": "a processor", "cores": 2},
}
SETTINGS = {"rollout.prompts": 10, "policy.minibatches": 2, "task.held_out": 2, "evaluation.samples": 4, "steps": 6}


@dataclass
class FakeStage:
    """One stage folder in the cache."""

    folder: Path

    @classmethod
    def begin(cls, out: Path, stage: str, address: str) -> "FakeStage":
        folder = out / "cache" / stage / address
        folder.mkdir(parents=True, exist_ok=True)
        described = {"stage": stage, "address": address, "settings": {"seed": 0}, "parents": {}}
        (folder / "stage.json").write_text(json.dumps(described | {"provenance": PROVENANCE}))
        return cls(folder)

    @property
    def journal(self) -> Journal:
        return Journal(self.folder / "journal.jsonl")

    def describe(self, task: dict[str, Any], parents: dict[str, str]) -> None:
        """The stage's settings and parents."""
        described = json.loads((self.folder / "stage.json").read_text())
        settings = {**described["settings"], "task": task}
        (self.folder / "stage.json").write_text(json.dumps({**described, "settings": settings, "parents": parents}))

    def checkpoint(self, name: str) -> Path:
        """Weights and configuration of a model, with the mark of a pretrained critic, all in the manifest."""
        checkpoint = self.folder / name
        checkpoint.mkdir()
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "model.safetensors").write_bytes(name.encode())
        if name.startswith("critic-"):
            (checkpoint / MARK).write_text("{}")
        record_files(self.folder)
        return checkpoint

    def finish(self) -> None:
        (self.folder / "done.json").write_text(json.dumps({"result": {}, "wall_s": 1.0}))


@dataclass
class FakeStudy:
    """A study's folder below `out`."""

    out: Path
    name: str = "components"

    def cell(
        self, name: str, *, state: State = "running", arm: str = "ppo", seed: int = 0, **fields: Any
    ) -> CellFolder:
        settings = override(RunSettings(arm=arm, seed=seed), {**SETTINGS, **fields.get("swept", {})})
        record = CellRecord(
            study=self.name,
            cell=name,
            arm=arm,
            seed=seed,
            state=state,
            started=STARTED,
            finished=STARTED + 60 if state in ("done", "failed", "pruned") else None,
            **fields,
        )
        (self.out / "studies" / self.name / "study.json").parent.mkdir(parents=True, exist_ok=True)
        (self.out / "studies" / self.name / "study.json").write_text(json.dumps({"name": self.name, "seeds": 2}))
        return CellFolder.create(self.out / "studies" / self.name / "cells" / name, record, settings)

    def enter(self, cell: CellFolder, stage: str, address: str, *, ran: bool = True) -> FakeStage:
        """The cell is in this stage now."""
        before = [known.model_dump() for known in cell.read().stages if known.stage != stage]
        cell.update(stages=[*before, {"stage": stage, "address": address, "ran": ran}])
        return FakeStage.begin(self.out, stage, address)

    def finished_cell(
        self, name: str, *, arm: str, seed: int, accuracies: list[float], lengths: list[float]
    ) -> CellFolder:
        """A cell that is done, with value pretraining, RL and evaluation of its own."""
        cell = self.cell(name, arm=arm, seed=seed)
        pretraining = self.enter(cell, "value-pretraining", f"pre-{name}")
        pretrain(pretraining.journal, steps=[10, 20, 30])
        pretraining.finish()
        rl = self.enter(cell, "rl", f"rl-{name}")
        for step, (accuracy, length) in enumerate(zip(accuracies, lengths, strict=True)):
            iterate(rl.journal, step, accuracy=accuracy, length=length)
        rl.finish()
        evaluation = self.enter(cell, "evaluation", f"ev-{name}")
        evaluate(evaluation.journal, step=len(accuracies))
        evaluation.finish()
        cell.update(state="done", finished=STARTED + 60, result={"pretrain_steps_done": 20.0})
        return cell


def iterate(journal: Journal, step: int, *, accuracy: float = 0.5, length: float = 100.0) -> None:
    """One RL iteration: two tables at step 0, metrics always."""
    if step == 0:
        journal.table("critic_by_position", step, positions())
        journal.table("critic_calibration", step, calibration())
    values = {"rollout/accuracy": accuracy, "rollout/length_tokens": length, "policy/loss": -0.25 * step}
    times = {"time/iteration_s": 0.5, "time/update_s": 0.25, "time/other_s": 0.05}
    journal.metrics(step, {**values, **times, "system/rss_mb": 700.0})


def pretrain(journal: Journal, steps: list[int]) -> None:
    """Value pretraining measured at these steps."""
    for step in steps:
        journal.metrics(step, {"pretrain/loss": 1.0 / step, "pretrain/held_out_loss": 2.0 / step})
        journal.table("critic_by_position", step, positions())


def evaluate(journal: Journal, step: int) -> None:
    """Two problems, four responses each."""
    journal.metrics(
        step, {"eval/digits/avg_at_4": 0.375, "eval/digits/pass_at_4": 0.5, "eval/digits/length_tokens": 90.0}
    )
    problems: dict[str, list[Any]] = {
        "problem": ["p0", "p1"],
        "samples": [4, 4],
        "correct": [3, 0],
        "unreadable": [0, 1],
    }
    journal.table("problems", step, {**problems, "length_tokens": [80.0, 100.0]})


def positions() -> dict[str, list[Any]]:
    """Two bins from the start, one from the end."""
    return {
        "position": [0, 32, 0],
        "from_end": [False, False, True],
        "n": [96, 50, 96],
        "value_mean": [-0.5, 0.25, 0.75],
        "return_mean": [-0.6, -0.6, -0.6],
        "value_bias": [0.1, 0.85, 1.35],
        "explained_variance": [0.5, float("nan"), 0.0],
        "advantage_mean": [-0.1, -0.85, -1.35],
    }


def calibration() -> dict[str, list[Any]]:
    """Two bins of predicted value."""
    return {
        "bin_low": [-1.0, 0.0],
        "bin_high": [0.0, 1.0],
        "predicted_mean": [-0.5, 0.5],
        "return_mean": [-0.6, 0.1],
        "n": [40, 60],
    }
