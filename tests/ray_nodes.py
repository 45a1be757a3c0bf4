"""A Ray cluster of several nodes on this machine, to be killed at will."""

import os
import shutil
import signal
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

MISSING = find_spec("ray") is None
MEMORY = 80 * 2**20  # of each node's object store, the least that Ray takes


class Nodes:
    """A head that runs nothing, and `count` nodes of one CPU each."""

    def __init__(self, count: int, **head: Any) -> None:
        from ray._common.utils import get_default_ray_temp_dir
        from ray.cluster_utils import Cluster

        Path(get_default_ray_temp_dir()).mkdir(parents=True, exist_ok=True)  # the address is noted there
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # names of sockets are short
        common = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
        self._cluster = Cluster(initialize_head=True, head_node_args={**common, "temp_dir": str(self.folder), **head})
        self.address = str(self._cluster.address)
        for _ in range(count):
            self.add()

    def add(self, cpus: int = 1) -> Any:
        return self._cluster.add_node(num_cpus=cpus, object_store_memory=MEMORY)

    def alive(self) -> int:
        """Count the nodes, the head among them, as the cluster does."""
        return len(self._cluster.global_state._live_node_ids())

    def all(self) -> list[Any]:
        """Return the nodes but the head, by the time that they were added."""
        return sorted(self._cluster.worker_nodes, key=lambda node: raylet_of(node))

    def kill(self, node: Any) -> None:
        """SIGKILL the raylet, as a machine goes that loses its power; what it started ends by itself."""
        os.kill(raylet_of(node), signal.SIGKILL)
        self._cluster.remove_node(node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)


def raylet_of(node: Any) -> int:
    """Return the number of a node's main process."""
    (raylet,) = node.all_processes["raylet"]
    return int(raylet.process.pid)
