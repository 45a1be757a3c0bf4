"""The numbers of every stage on a tiny model, to be held against those of before (tests/golden/stages.json)."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from tiny import tiny, tiny_method

from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import VERSIONS, StageFolder
from vcppo.store.journal import read_journal

COMMAND = "python tests/golden/make_stages_golden.py"
FILE = Path(__file__).with_name("golden") / "stages.json"
RELATIVE, ABSOLUTE = 1e-3, 1e-5  # what another processor's rounding may change; a stage that computes otherwise is off
VARYING = ("time/", "system/", "cost/elapsed_s", "cost/peak_memory_mb")  # between two runs of the same code
SMALL = ("cold_start.steps=40", "steps=2", "pretrain.steps=2", "pretrain.evaluate_every=1", "evaluation.every=1")

Stage = dict[str, Any]


def runs() -> list[RunSettings]:
    """Of all stages together; each takes from the cache what one before it has left there."""
    without_pretraining = [text for text in SMALL if not text.startswith("pretrain.")]
    scores_that_differ = "reward.unreadable=-0.5"  # though no response is right yet
    forecast = tiny(*SMALL, scores_that_differ, "record.forecast_responses=32")
    return [tiny(*SMALL), forecast, tiny_method("rto", "token_reward.dpo_steps=2", shared=tuple(without_pretraining))]


def measure(out: Path) -> dict[str, Stage]:
    """The numbers of every stage, in the order of a pipeline."""
    stages: dict[str, Stage] = {}
    for settings in runs():
        for name, use in run_stages(settings, out).items():
            stages.setdefault(name, numbers(name, use.folder))
    return {name: stages[name] for name in VERSIONS if name in stages}


def numbers(stage: str, folder: StageFolder) -> Stage:
    """What a stage reported, its curves, and a digest of the tokens that it sampled."""
    curves: dict[str, list[float | None]] = {}
    sampled: list[Any] = []
    for record in read_journal(folder.path / "journal.jsonl"):
        for name, value in record.get("values", {}).items():
            if not name.startswith(VARYING):
                curves.setdefault(name, []).append(value)
        if record.get("name") in ("samples", "problems"):
            sampled.append(record["columns"])
    if (folder.path / "answers.safetensors").exists():
        sampled.append(load_file(folder.path / "answers.safetensors")["input_ids"].tolist())
    for path in sorted((folder.path / "samples").glob("*.json")):
        sampled.append([sample["text"] for sample in json.loads(path.read_text())["samples"]])
    digest = hashlib.sha256(json.dumps(sampled, sort_keys=True).encode()).hexdigest()[:16] if sampled else None
    in_order = {name: curves[name] for name in sorted(curves)}
    return {"version": VERSIONS[stage], "result": folder.result, "curves": in_order, "sampled": digest}


def differences(now: Stage, before: Stage) -> list[str]:
    """What a stage computes otherwise than it did, its version apart."""
    found = []
    if now["sampled"] != before["sampled"]:
        found.append("it samples other tokens")
    for kind in ("result", "curves"):
        if now[kind].keys() != before[kind].keys():
            found.append(f"its {kind} has {', '.join(sorted(now[kind].keys() ^ before[kind].keys()))} in one alone")
        for name in now[kind].keys() & before[kind].keys():
            new, old = (x if isinstance(x, list) else [x] for x in (now[kind][name], before[kind][name]))
            if len(new) != len(old):
                found.append(f"{name} has {len(new)} values, it had {len(old)}")
            found += [f"{name} is {a!r}, it was {b!r}" for a, b in zip(new, old, strict=False) if not near(a, b)]
    return found


def less(now: Stage, before: Stage) -> Stage:
    """A stage without the curves that it had not before."""
    return {**now, "curves": {name: curve for name, curve in now["curves"].items() if name in before["curves"]}}


def near(a: float | None, b: float | None) -> bool:
    """Whether two numbers are one but for rounding."""
    return a == b if a is None or b is None else math.isclose(a, b, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
