"""A worker of a study on a node of a Ray cluster: an actor with a local pool of one.

Cells so run in the same process as on one machine, with the same environment, log and secrets kept out of it; and the
kernel ends it with the actor. What is here is imported on the nodes.
"""

import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import vcppo
from vcppo.errors import StudyError
from vcppo.studies.local_pool import THREADS, WorkerPool
from vcppo.studies.pool import Death, Reply
from vcppo.studies.worker_locks import worker_lock
from vcppo.system.processes import holder_of

LISTEN_S = 1.0
SHARED_VARIABLES = (
    *THREADS,
    "CUBLAS_WORKSPACE_CONFIG",
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "MKL_NUM_THREADS",
    "PYTHONPATH",
    "TOKENIZERS_PARALLELISM",
)  # of the study's process, for all workers: what decides on numbers, and where models and modules are


@dataclass(frozen=True)
class Job:
    """What a worker elsewhere has to know of the study that it serves.

    Attributes:
        study: the study's folder, with `logs` in it.
        process: number of the study's process, which signs the study's lock.
        working_folder: that of the study's process, from which relative paths of settings start.
        environment: its `SHARED_VARIABLES`, None for those that it has not.
        version: its vcppo's, since a node may come later, with another.
    """

    study: Path
    runner: str
    processes: int
    process: str
    working_folder: Path
    environment: dict[str, str | None]
    version: str

    @property
    def logs(self) -> Path:
        """The folder of the workers' logs and locks."""
        return self.study / "logs"

    @classmethod
    def here(cls, study: Path, runner: str, processes: int) -> "Job":
        """Return that of this process."""
        environment = {name: os.environ.get(name, THREADS.get(name)) for name in SHARED_VARIABLES}
        return cls(study, runner, processes, str(os.getpid()), Path.cwd(), environment, vcppo.__version__)


class RemoteWorker:
    """Runs cells one after another; once an actor, on some node of the cluster."""

    def __init__(self, index: int, job: Job) -> None:
        self._index, self._job = index, job
        self._pool: WorkerPool | None = None
        self._held = ExitStack()

    def run(self, folder: Path, out: Path) -> Reply | Death:
        """Run a cell in a process of this node.

        Raises:
            StudyError: this node does not see the study's folder or its locks, or processes cannot be started here.
        """
        pool = self._pool = self._pool or self._start()
        while not pool.idle():
            list(pool.listen(LISTEN_S))
        pool.give(self._index, folder, out)
        while True:
            for event in pool.listen(LISTEN_S):
                if event.cell is not None:
                    return event

    def _start(self) -> WorkerPool:
        """Start the process, with the worker's lock; that of the study must be its process's even then.

        So no process starts for one that has been succeeded: its successor signs the study's lock first, and looks
        for locks of workers then.
        """
        job = self._job
        if vcppo.__version__ != job.version:
            raise StudyError(f"node {socket.gethostname()} has vcppo {vcppo.__version__}; expected {job.version}")
        import ray

        for name, value in job.environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        node = ray.get_runtime_context().get_node_id()
        try:
            os.chdir(job.working_folder)
            lock = self._held.enter_context(worker_lock(job.logs, self._index, node))
        except OSError as error:
            raise StudyError(not_shared(job.study, f"{type(error).__name__}: {error}")) from None
        if holder_of(job.study) != job.process:
            raise StudyError(not_shared(job.study, f"process {job.process} does not hold its lock"))
        return WorkerPool(1, runner=job.runner, logs=job.logs, processes=job.processes, lock=lock, first=self._index)


def not_shared(folder: Path, what: str) -> str:
    """Say that this node does not see a folder as the study's process does."""
    return f"{folder}: seen from node {this_node()}, {what}; expected a folder that all nodes share, with its locks"


def this_node() -> str:
    """Return the address of this node of a cluster."""
    import ray

    return str(ray.util.get_node_ip_address())
