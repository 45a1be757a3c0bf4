"""Studies whose cells do nothing but sleep, fail, or kill whoever runs them, run by real worker processes."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.trial import FrozenTrial, TrialState

from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.studies.execution import Execution
from vcppo.studies.progress import Event
from vcppo.studies.study import Study, parse_study
from vcppo.studies.sweep import StudyOutcome, Uploader, run_study
from vcppo.studies.trials import open_storage

# What a cell does stands in OUT/plan.json: {cell: [what it does at its first start, its second, ...]}. What it did
# goes to OUT/log.jsonl.
FAKE = """
import json, os, signal, time
from pathlib import Path

from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import Journal


def run_cell(cell, out):
    folder, plan = CellFolder(cell), json.loads((out / "plan.json").read_text())
    attempt, settings = folder.read().attempts, folder.settings()

    def say(event):
        record = {"cell": cell.name, "event": event, "pid": os.getpid(), "attempt": attempt, "time": time.time()}
        with open(out / "log.jsonl", "a") as file:
            file.write(json.dumps({**record, "settings": settings.model_dump(mode="json")}) + "\\n")

    say("begin")
    actions = plan.get(cell.name) or ["ok"]
    action = actions[min(attempt, len(actions)) - 1]
    print("a cell that prints does not disturb the protocol", flush=True)
    if action == "fail":
        raise ZeroDivisionError("the cell's\\nown fault")
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "die silent":
        say("end")
        folder.update(state="done", finished=time.time(), result={"final_accuracy": 0.5})
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "nan":
        return {"final_accuracy": float("nan"), "other": 1.0}
    if action == "iterate":
        folder.add_stage("rl", cell.name, ran=True)
        journal = Journal(out / "cache" / "rl" / cell.name / "journal.jsonl")
        for step in range(settings.steps):
            journal.metrics(step, {"rollout/accuracy": settings.gae.lambda_actor, "rollout/length_tokens": 9.0})
            time.sleep(plan["nap"])
    patience = time.monotonic() + 60
    while action == "wait" and not (out / "go").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    time.sleep(plan["nap"])
    say("end")
    return {"final_accuracy": settings.gae.lambda_actor * settings.gae.lambda_critic - settings.seed / 100}
"""

PARENT = """
import json, sys
from pathlib import Path
from vcppo.studies.study import parse_study
from vcppo.studies.execution import Execution
from vcppo.studies.sweep import run_study
out = Path(sys.argv[1])
study = parse_study(json.loads(sys.argv[2]), "test")
outcome = run_study(study, Execution((0, 1), out, workers=2, runner="fake:run_cell"))
sys.exit(outcome.exit_code)
"""


class Bench:
    """A folder, a plan for its cells, and what came of it."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.events: list[Event] = []
        self.plan({})

    def plan(self, actions: dict[str, list[str]], nap: float = 0.01) -> None:
        (self.out / "plan.json").write_text(json.dumps({**actions, "nap": nap}))

    def run(
        self,
        study: Study,
        seeds: list[int] | None = None,
        workers: int = 2,
        uploader: Uploader | None = None,
        on_event: Callable[[Event], None] | None = None,
        **options: Any,
    ) -> StudyOutcome:
        self.events.clear()
        execution = Execution(
            tuple(seeds or (0, 1)), self.out, workers=workers, **{"runner": "fake:run_cell", **options}
        )
        return run_study(study, execution, on_event=on_event or self.events.append, uploader=uploader)

    def log(self, event: str) -> list[dict[str, Any]]:
        file = self.out / "log.jsonl"
        text = file.read_text() if file.exists() else ""
        records = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]  # whole ones
        return [record for record in records if record["event"] == event]

    def ends(self) -> Counter[str]:
        return Counter(record["cell"] for record in self.log("end"))

    def record(self, cell: str, study: str = "grid") -> CellRecord:
        return self.folder(cell, study).read()

    def folder(self, cell: str, study: str = "grid") -> CellFolder:
        return CellFolder(self.out / "studies" / study / "cells" / cell)

    def trials(self, study: str = "grid", url: str | None = None) -> list[FrozenTrial]:
        folder = self.out / "studies" / study
        name = json.loads((folder / "study.json").read_text())["optuna_study"]
        return optuna.load_study(storage=open_storage(url, folder), study_name=name).get_trials()

    def states(self, study: str = "grid") -> Counter[TrialState]:
        return Counter(trial.state for trial in self.trials(study))


GRID = {
    "name": "grid",
    "title": "four cells a seed",
    "grid": {"gae": {"lambda_actor": [0.9, 1], "lambda_critic": [0.9, 1]}},
}
SEARCH: dict[str, Any] = {
    "name": "search",
    "title": "five trials",
    "base": {"steps": 40},
    "search": {
        "trials": 5,
        "startup_trials": 2,
        "space": {
            "gae.lambda_actor": {"low": 0.5, "high": 1.0},
            "policy.learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "pretrain.steps": {"low": 0, "high": 80, "step": 10},
            "policy.dual_clip": {"choices": ["none", 3.0]},
        },
    },
}
A_CELL = "gae.lambda_actor=0.9,gae.lambda_critic=1.0-s0"
B_CELL = "gae.lambda_actor=1.0,gae.lambda_critic=0.9-s1"


def study(tree: dict[str, Any], **changes: Any) -> Study:
    return parse_study({**tree, **changes}, "test")


def value_at(settings: dict[str, Any], name: str) -> Any:
    for part in name.split("."):
        settings = settings[part]
    return settings


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"waited 20 s for {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
