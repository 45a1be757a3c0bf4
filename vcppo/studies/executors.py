"""Machines for the workers of a study: this one, or the nodes of a Ray cluster. What differs between the two is here.

`vcppo --help` lists them, so what they need is imported when they are used.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vcppo.errors import ConfigError
from vcppo.studies.pool import Machines

if TYPE_CHECKING:
    from vcppo.studies.runners import CellRunner


class Executor(Protocol):
    """Has the machines on which the workers of a study run."""

    def check(self, runner: str) -> None:
        """Refuse what it cannot do, before anything is written.

        Raises:
            ConfigError: an option does not apply to it, or it is not installed.
        """
        ...

    def machines(self, runner: "CellRunner", out: Path) -> AbstractContextManager[Machines]:
        """Return the machines that share the folder `out`, to be used within the context.

        Raises:
            ConfigError: it cannot tell for how many workers they have room.
            StudyError: they cannot be reached, or do not share the folder.
        """
        ...


class LocalExecutor:
    """This machine."""

    def __init__(
        self, *, workers: int | None, processes: int | None, address: str | None, gpus_per_worker: int | None
    ) -> None:
        self.workers, self.address, self.gpus_per_worker = workers, address, gpus_per_worker

    def check(self, runner: str) -> None:
        """See Executor."""
        if self.address is not None:
            raise ConfigError(f"--address {self.address}: it would be ignored, expected --executor ray beside it")
        if self.gpus_per_worker is not None:
            raise ConfigError(
                f"--gpus-per-worker {self.gpus_per_worker}: it would be ignored, expected --executor ray beside it; "
                "here a worker has a GPU for each process of a cell where there are as many"
            )

    @contextmanager
    def machines(self, runner: "CellRunner", out: Path) -> Iterator[Machines]:
        """See Executor."""
        from vcppo.studies.local_pool import WorkerPool

        yield Machines(self.workers or runner.default_workers(), WorkerPool)


class RayExecutor:
    """The nodes of a Ray cluster that runs already, and that this machine is part of."""

    def __init__(
        self, *, workers: int | None, processes: int | None, address: str | None, gpus_per_worker: int | None
    ) -> None:
        self.workers, self.processes, self.address = workers, processes or 1, address or "auto"
        self.gpus_per_worker = gpus_per_worker

    def check(self, runner: str) -> None:
        """See Executor."""
        if runner == "verl":
            raise ConfigError(
                "--executor ray with --runner verl: verl starts Ray itself, and joins a cluster by "
                "--verl +ray_kwargs.ray_init.address=auto; see docs/verl.md"
            )
        if self.address.startswith("ray://"):
            raise ConfigError(f"--address {self.address}: expected HOST:PORT of the cluster's head, or auto")
        if find_spec("ray") is None:
            raise ConfigError("--executor ray: Ray is not installed; expected pip install 'vcppo[ray]', on every node")

    @contextmanager
    def machines(self, runner: "CellRunner", out: Path) -> Iterator[Machines]:
        """See Executor."""
        from vcppo.studies.ray.cluster import connected

        with connected(self.address, self.processes, out.resolve(), self.gpus_per_worker) as cluster:
            workers = self.workers or cluster.workers
            if not workers:
                and_gpus = f" and {self.gpus_per_worker} GPUs" if self.gpus_per_worker else ""
                raise ConfigError(
                    f"--executor ray: no node of the cluster has {self.processes} CPUs{and_gpus}; expected --workers N "
                    "where an autoscaler will bring such nodes"
                )
            yield Machines(workers, cluster.make_pool)


class MakeExecutor(Protocol):
    """Makes an executor from the command line's options for all of them."""

    def __call__(
        self, *, workers: int | None, processes: int | None, address: str | None, gpus_per_worker: int | None
    ) -> Executor:
        """Return the executor."""
        ...


EXECUTORS: dict[str, MakeExecutor] = {"local": LocalExecutor, "ray": RayExecutor}
