"""A cell that has finished, and what MLflow has of it."""

import time
from collections.abc import Callable

from fake_study import FakeStudy

from vcppo.store.cell_folders import CellFolder
from vcppo.tracking.mlflow_client import MlflowStore, Run

ACCURACIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
LENGTHS = [100.0, 50.0, 20.0, 30.0, 40.0, 50.0]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.02)


def values(store: MlflowStore, run: Run, metric: str) -> list[tuple[int, float]]:
    """(step, value) of every stored point, as often as it is stored."""
    return sorted((point.step, point.value) for point in store.points(run, [metric]))


def finished(study: FakeStudy, name: str = "ppo-s0") -> CellFolder:
    return study.finished_cell(name, arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
