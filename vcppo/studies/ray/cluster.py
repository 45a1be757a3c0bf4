"""A connection to a Ray cluster, for whose nodes a study's folder is the one that it is here."""

import logging
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import vcppo
from vcppo.errors import StudyError, VcppoError, first_line
from vcppo.studies.pool import Machines
from vcppo.studies.ray.pool import RayPool
from vcppo.studies.ray.worker import not_shared, this_node
from vcppo.system.files import file_lock, is_locked, sync
from vcppo.system.temporaries import remove, temporary_for

REPLY_S = 5.0  # for the head to take a connection
LOOK_S = 120.0  # for all nodes to look at the folder: each starts a process that imports vcppo


@contextmanager
def connected(address: str, processes: int, out: Path, gpus: int | None = None) -> Iterator[Machines]:
    """Connect to a cluster whose nodes share the folder `out`.

    A worker asks for a CPU for each process of a cell, and for as many GPUs where a node has them by now. They are of
    one node, as the processes of a cell are.

    Args:
        gpus: that a worker asks for, whatever nodes have by now: an autoscaler may bring them later.
    Raises:
        StudyError: there is no cluster at the address, or a node does not see the folder, or has another vcppo.
    """
    _connect(address)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        needs = {"num_cpus": processes, "num_gpus": processes if gpus is None else gpus}
        if gpus is None and not any(_room(node, needs) for node in nodes):
            needs["num_gpus"] = 0
        room = {node["NodeID"]: count for node in nodes if (count := _room(node, needs))}
        yield Machines(sum(room[node] for node in _sharing(out, room)), partial(RayPool, needs=needs))
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdigit():
            socket.create_connection((host, int(port)), REPLY_S).close()  # Ray itself tries for a minute
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise StudyError(
            f"--address {address}: no Ray cluster that this machine is part of ({first_line(error)}); "
            "expected that of its head, HOST:PORT, or auto; `ray start --head` starts one"
        ) from None


def _room(node: Mapping[str, Any], needs: Mapping[str, int]) -> int:
    """Return for how many workers a node has what they need."""
    has, wanted = node["Resources"], {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
    return int(min(has.get(name, 0) // count for name, count in wanted.items() if count))


def _sharing(out: Path, nodes: Iterable[str]) -> list[str]:
    """Have nodes look at a file in `out` that this process holds locked; return those that are there.

    A node that is gone is listed by Ray for some seconds more.

    Raises:
        StudyError: one does not see it, or not that it is locked.
    """
    out.mkdir(parents=True, exist_ok=True)
    probe, token = temporary_for(out / "shared"), uuid.uuid4().hex
    try:
        with file_lock(probe) as file:
            file.write(token)
            file.flush()
            sync(probe)  # a file that stays open is not sent to its server otherwise
            look = ray.remote(_look)
            looks = {}
            for node in nodes:
                there = look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
                looks[node] = there.remote(probe, token, vcppo.__version__)
            present = []
            for node, looked in looks.items():
                with suppress(TaskUnschedulableError):
                    ray.get(looked, timeout=LOOK_S)
                    present.append(node)
            return present
    except RayTaskError as error:
        if isinstance(error.cause, VcppoError):
            raise error.cause from None
        raise StudyError(f"a node of the cluster cannot run vcppo: {first_line(error.cause)}") from None
    except RayError as error:
        raise StudyError(f"a node of the cluster cannot run vcppo: {first_line(error)}") from None
    finally:
        remove(probe)


def _look(probe: Path, token: str, version: str) -> None:
    """Look at the probe, on a node.

    Raises:
        StudyError: it is not there as the study's process made it, or this is another version of vcppo.
    """
    folder = probe.parent
    if vcppo.__version__ != version:
        raise StudyError(f"node {this_node()} has vcppo {vcppo.__version__}; expected {version}, as here")
    try:
        seen = probe.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError(not_shared(folder, f"there is no {probe.name} ({type(error).__name__})")) from None
    if seen != token:
        raise StudyError(not_shared(folder, f"{probe.name} has other content"))
    if not is_locked(probe):
        raise StudyError(not_shared(folder, f"the lock on {probe.name} is free"))
