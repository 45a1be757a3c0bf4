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


@pytest.mark.parametrize(
    ("asked", "by_now", "needs", "workers"),
    [
        (None, 0.0, {"num_cpus": 2, "num_gpus": 0}, 4),  # none are there when the command starts: none are asked for
        (None, 4.0, {"num_cpus": 2, "num_gpus": 2}, 2),
        (1, 0.0, {"num_cpus": 2, "num_gpus": 1}, 0),  # an autoscaler may bring them
        (1, 3.0, {"num_cpus": 2, "num_gpus": 1}, 3),
        (0, 4.0, {"num_cpus": 2, "num_gpus": 0}, 4),
    ],
)
def test_gpus_that_are_asked_for_need_not_be_there_yet(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    asked: int | None,
    by_now: float,
    needs: dict[str, int],
    workers: int,
) -> None:
    import ray

    from vcppo.studies.ray import cluster

    node = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "GPU": by_now}}
    monkeypatch.setattr(ray, "init", lambda **_: None)
    monkeypatch.setattr(ray, "nodes", lambda: [node])
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(cluster, "_sharing", lambda out, nodes: list(nodes))
    with cluster.connected("auto", 2, tmp_path, asked) as machines:
        assert machines.make_pool.keywords["needs"] == needs  # type: ignore[attr-defined]
        assert machines.workers == workers
