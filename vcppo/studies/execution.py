"""Options of running the cells of a study, whatever the study is."""

from dataclasses import dataclass
from pathlib import Path

from vcppo.store.cache import keys_of
from vcppo.studies.local_pool import WorkerPool
from vcppo.studies.outdated import AddressesOf
from vcppo.studies.pool import MakePool
from vcppo.studies.worker import PIPELINE


@dataclass(frozen=True)
class Execution:
    """Options of a call of `vcppo sweep` beside the study.

    Attributes:
        storage: URL of a database for Optuna; by default a journal file in the study's folder.
        retry_failed: run cells again that failed; otherwise they stay failed.
        recompute: run ended cells again whose results would be others now, since weights at a path or a stage's code
            have changed; otherwise they are refused.
        fresh: move an old study of this name aside and begin anew; the cache of stages stays.
        runner: module:function called with (cell folder, out) in a worker.
        processes: by which the runner has each cell run; a worker finds the number in its environment.
        addresses_of: the addresses of a cell's stages, by that runner.
        make_pool: makes the workers, here or on other machines.
    """

    seeds: tuple[int, ...]
    out: Path
    workers: int = 1
    storage: str | None = None
    retry_failed: bool = False
    recompute: bool = False
    fresh: bool = False
    runner: str = PIPELINE
    processes: int = 1
    addresses_of: AddressesOf = keys_of
    make_pool: MakePool = WorkerPool
