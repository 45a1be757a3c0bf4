"""Workers of a study on the nodes of a Ray cluster, as its dispatcher sees them.

A worker is an actor that is started with its first cell, wherever Ray finds room, and given back when it has had
nothing to do for a while. Ray ends it when the study's process ends, however it ends.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from vcppo.errors import StudyError, VcppoError, first_line
from vcppo.settings.fixed import SILENT_S
from vcppo.studies.pool import Death, Reply
from vcppo.studies.ray.worker import Job, RemoteWorker
from vcppo.studies.worker_locks import await_free, held, lock_of, node_and_host
from vcppo.system.files import is_locked

KEPT_S = 10.0  # that a worker without a cell keeps its place on a node
LOST = (RayActorError, OutOfMemoryError)  # the second: Ray ended the actor, its node being short of memory
VERDICT_S = 30.0  # for Ray to find that a node, which does not reply, is dead


@dataclass
class _Worker:
    index: int
    actor: Any = None  # its handle, None while it has no place
    cell: str | None = None
    reply: Any = None  # reference of what `run` will return
    given: float = 0.0  # when it got its cell, or ended it
    lost: RayError | None = None  # why there will be no reply
    announced: bool = False  # the user knows what its cell waits for


class RayPool:
    """At most `size` workers on a cluster; see `Pool`.

    The study's lock stays with the study's process: see `worker_locks` for what keeps others out.

    Args:
        needs: what each worker asks of its node, as options of an actor.
    """

    def __init__(
        self, size: int, *, runner: str, logs: Path, processes: int, lock: int, needs: Mapping[str, int]
    ) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self._job, self._needs = Job.here(logs.parent, runner, processes), needs
        self._actors = ray.remote(RemoteWorker).options(**needs)
        self._workers = [_Worker(index) for index in range(size)]

    def idle(self) -> list[int]:
        """See Pool."""
        return [worker.index for worker in self._workers if worker.cell is None]

    def running(self) -> dict[str, int]:
        """See Pool; cells among them for which the cluster has no room yet."""
        return {worker.cell: worker.index for worker in self._workers if worker.cell is not None}

    def give(self, index: int, folder: Path, out: Path) -> None:
        """See Pool."""
        worker = self._workers[index]
        if worker.actor is None:
            worker.actor = self._actors.remote(index, self._job)
        worker.cell, worker.given, worker.announced = folder.name, time.monotonic(), False
        worker.reply = worker.actor.run.remote(folder, out)

    def listen(self, timeout: float) -> Iterator[Reply | Death]:
        """See Pool.

        Raises:
            StudyError: the cluster is gone, or a node does not see the study's folder or cannot start a worker.
        """
        try:
            events = [*self._replies(timeout), *self._deaths()]
            self._give_places_back()
        except RayError as error:
            raise StudyError(f"the Ray cluster is gone ({first_line(error)}); the same command goes on") from error
        yield from events

    def news(self) -> list[str]:
        """See Pool: cells that wait for a place, or for a worker to be gone that cannot be reached."""
        late = [w for w in self._workers if w.cell and not w.announced and time.monotonic() - w.given > SILENT_S]
        without_place = [w for w in late if w.lost is None and not is_locked(self._lock_of(w))]
        hanging = [w for w in late if w.lost is not None]
        for worker in (*without_place, *hanging):
            worker.announced = True
        lines = [f"{worker.cell} waits: {held(self._lock_of(worker))}" for worker in hanging]
        if without_place:
            cells = ", ".join(str(worker.cell) for worker in without_place[:3])
            more = f" and {len(without_place) - 3} more" if len(without_place) > 3 else ""
            lines.append(f"{cells}{more}: waiting for a node with {_described(self._needs)} free")
        return lines

    def stop(self, index: int) -> None:
        """See Pool.

        Raises:
            StudyError: it still lives on a node that cannot be reached.
        """
        worker = self._workers[index]
        self._take_place(worker)
        await_free([self._lock_of(worker)])
        worker.cell = worker.lost = None

    def close(self) -> None:
        """See Pool; a worker that cannot be reached is left to its node."""
        with suppress(RayError):
            for worker in self._workers:
                self._take_place(worker)
        with suppress(StudyError):
            await_free(map(self._lock_of, self._workers))

    def _lock_of(self, worker: _Worker) -> Path:
        return lock_of(self._job.logs, worker.index)

    def _replies(self, timeout: float) -> Iterator[Reply | Death]:
        """Yield what workers reply, waiting at most so long; note those that will not reply."""
        waiting = {worker.reply: worker for worker in self._workers if worker.reply is not None}
        if not waiting:
            time.sleep(timeout)
            return
        ray.wait(list(waiting), timeout=timeout)
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        for reference in ready:
            worker = waiting[reference]
            worker.reply, worker.given = None, time.monotonic()
            try:
                event: Reply | Death = ray.get(reference)
            except LOST as error:
                if getattr(error, "actor_init_failed", False):
                    raise StudyError(f"worker {worker.index} cannot start: {_words(error)}") from error
                self._take_place(worker)
                worker.lost, worker.announced = error, False
            except RayTaskError as error:
                if isinstance(error.cause, VcppoError):
                    raise error.cause from None
                raise StudyError(f"worker {worker.index} cannot run: {first_line(error.cause)}") from error
            else:
                worker.cell = None
                yield event

    def _deaths(self) -> Iterator[Death]:
        """Yield the deaths of workers of which no process is left."""
        for worker in self._workers:
            if worker.lost is not None and (death := self._death_of(worker, worker.lost)) is not None:
                yield death

    def _death_of(self, worker: _Worker, error: RayError) -> Death | None:
        """Return a lost worker's death, None until it is certain that none of its processes is left."""
        if is_locked(self._lock_of(worker)):
            return None
        node, host = node_and_host(self._job.logs, worker.index)
        machine_lost = node in {one["NodeID"] for one in ray.nodes() if not one["Alive"]}
        in_doubt = isinstance(error, ActorUnavailableError) and not machine_lost
        if in_doubt and time.monotonic() - worker.given < VERDICT_S:
            return None
        reason = f"its node {host} was lost" if machine_lost else _words(error)
        death = Death(worker.index, worker.cell, reason, machine_lost)
        worker.cell = worker.lost = None
        self._lock_of(worker).unlink(missing_ok=True)  # the next is on another node
        return death

    def _take_place(self, worker: _Worker) -> None:
        """End a worker's actor, if there is one."""
        if worker.actor is not None:
            ray.kill(worker.actor)
        worker.actor = worker.reply = None

    def _give_places_back(self) -> None:
        for worker in self._workers:
            if worker.actor is not None and worker.cell is None and time.monotonic() - worker.given > KEPT_S:
                self._take_place(worker)


def _described(needs: Mapping[str, int]) -> str:
    """Describe what a worker needs.

    >>> _described({"num_cpus": 2, "num_gpus": 2})
    '2 CPUs and 2 GPUs'
    >>> _described({"num_cpus": 1, "num_gpus": 0})
    '1 CPU'
    """
    named = (("CPU", needs["num_cpus"]), ("GPU", needs["num_gpus"]))
    return " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in named if count)


def _words(error: RayError) -> str:
    """Return what Ray says of an actor's end, in one line without the actor's names."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("\t")]
    return " ".join(lines[1:] or lines)[:300]
