"""Workers on a cluster, as their dispatcher sees them, with replies that no cluster gave."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def test_a_worker_that_ray_ends_for_want_of_memory_is_a_death_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from ray.exceptions import OutOfMemoryError

    from vcppo.studies.ray import pool

    def get(reference: str) -> Any:
        raise OutOfMemoryError("the node was low on memory")

    actor = SimpleNamespace(run=SimpleNamespace(remote=lambda *_: "reference"))
    made = SimpleNamespace(remote=lambda *_: actor)
    monkeypatch.setattr(ray, "remote", lambda cls: SimpleNamespace(options=lambda **_: made))
    monkeypatch.setattr(ray, "wait", lambda references, **_: (references, []))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", lambda actor: None)
    monkeypatch.setattr(ray, "nodes", list)
    needs = {"num_cpus": 1, "num_gpus": 0}
    workers = pool.RayPool(1, runner="x:y", logs=tmp_path / "logs", processes=1, lock=0, needs=needs)
    workers.give(0, tmp_path / "cell", tmp_path)
    (death,) = workers.listen(0.0)
    assert (death.cell, death.machine_lost) == ("cell", False)  # type: ignore[union-attr]
    assert workers.idle() == [0]
