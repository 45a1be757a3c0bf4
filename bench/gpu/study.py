"""A study's cells on one GPU, in pieces: stop at any moment, the next call goes on.

Needs neither Optuna nor MLflow, which a machine lent for half an hour may lack. Cells lie on disk as `vcppo sweep` has
them, so it can go on with them, and `vcppo export` delivers them where MLflow is.
"""

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from vcppo.errors import StudyError
from vcppo.store.cell_folders import ENDED, CellFolder, CellRecord, check_same_settings
from vcppo.studies.cell_run import Runner, run_and_record
from vcppo.studies.study import Study, load_study
from vcppo.system.files import write_json
from vcppo.system.processes import INTERRUPTED, die_with, interrupts, locked, shielded

STOPPING_S = 60.0  # for workers to write their last checkpoint
POLL_S = 1.0
KEPT = ("journal.jsonl", "stage.json", "done.json")  # of a stage: its records, without models and responses


def run(study: Study, out: Path, *, workers: int, until: float, to: Path) -> bool:
    """Have worker processes run what is left, till `until` (time.monotonic()); whether all is done.

    Every worker takes the first cell that nobody has. Stages that cells share are computed by whoever comes first.
    The records of what has ended, without models, are packed into `to`/<study>.tar.gz.

    Raises:
        StudyError: cells failed, or a worker ended by itself; the rest is run and packed all the same.
        KeyboardInterrupt: after Ctrl-C, when the workers have ended and what there is has been packed.
    """
    make_cells(study, out)
    command = [sys.executable, "-m", "bench.gpu.study", str(os.getpid()), study.name, str(out)]
    environment = {"OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", **os.environ}
    with interrupts() as interrupted:
        with shielded():  # till a worker says what Ctrl-C is to do; the terminal's is for this process alone
            running = [
                subprocess.Popen(command, env=environment, start_new_session=True)
                for _ in range(min(workers, len(left(study, out))))
            ]
        while any(worker.poll() is None for worker in running) and time.monotonic() < until:
            if interrupted.wait(POLL_S):
                break
        _stop(running)
    pack(study, out, to)
    failed = _tell(study, out)
    dead = [worker.returncode for worker in running if worker.returncode not in (0, INTERRUPTED, -signal.SIGINT)]
    if failed or dead:
        raise StudyError(
            f"study {study.name}: {failed} cells failed, workers ended with exit codes {dead or 'as asked'}"
        )
    if interrupted.is_set():
        raise KeyboardInterrupt
    return not left(study, out)


def _stop(running: Sequence[subprocess.Popen[bytes]]) -> None:
    """Have workers write their last checkpoint and end."""
    for worker in running:
        if worker.poll() is None:
            worker.send_signal(signal.SIGINT)
    for worker in running:
        try:
            worker.wait(STOPPING_S)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


def make_cells(study: Study, out: Path) -> None:
    """The folders that a sweep would make.

    Raises:
        StudyError: a cell is there with other settings.
    """
    study.validate_all()
    folder = out / "studies" / study.name
    for cell in study.cells():
        path = CellFolder(folder / "cells" / cell.name)
        if path.exists():
            check_same_settings(path, cell.settings)
        else:
            record = CellRecord(study=study.name, cell=cell.name, arm=cell.arm, seed=cell.seed, swept=cell.swept)
            CellFolder.create(path.path, record, cell.settings)
    summary = {"study": study.name, "title": study.title, "why": study.why, "seeds": list(study.seed_list())}
    own = {"definition": study.model_dump(mode="json"), "optuna_study": "", "space": ""}
    if not (folder / "study.json").exists():
        write_json(folder / "study.json", summary | own)


def left(study: Study, out: Path) -> list[Path]:
    """Folders of the cells that have not ended, seed by seed so that the first seed is whole first."""
    folder = out / "studies" / study.name / "cells"
    cells = sorted(study.cells(), key=lambda cell: cell.seed)
    paths = [folder / cell.name for cell in cells]
    return [path for path in paths if CellFolder(path).exists() and CellFolder(path).read().state not in ENDED]


def work(study: Study, out: Path, run_cell: Runner) -> None:
    """One worker: cell after cell, until nobody has anything left."""
    for path in left(study, out):
        try:
            with locked(path, "this cell"):
                if CellFolder(path).read().state not in ENDED:
                    run_and_record(CellFolder(path), out, run_cell)
        except StudyError:  # another worker has it
            continue


def pack(study: Study, out: Path, to: Path) -> Path:
    """Everything that exporting needs, in one file."""
    to.mkdir(parents=True, exist_ok=True)
    packed = to / f"{study.name}.tar.gz"
    partial = packed.with_name(f".{packed.name}.{os.getpid()}")
    with tarfile.open(partial, "w:gz") as archive:
        archive.add(out / "studies" / study.name, f"studies/{study.name}")
        for path in sorted(path for name in KEPT for path in (out / "cache").glob(f"*/*/{name}")):
            archive.add(path, str(path.relative_to(out)))
    os.replace(partial, packed)
    return packed


def _tell(study: Study, out: Path) -> int:
    """Print how every cell fares; how many have failed."""
    failed = 0
    for cell in study.cells():
        record = CellFolder(out / "studies" / study.name / "cells" / cell.name).read()
        scores = [value for name, value in record.result.items() if "/avg_at_" in name and value is not None]
        said = record.error or "".join(f"{100 * score:.1f} % right" for score in scores)
        stage = record.stages[-1].stage if record.stages and record.state == "queued" else ""
        print(f"{cell.name:36} {record.state:8} {stage} {said}")
        failed += record.state == "failed"
    return failed


def main(parent: int, name: str, out: Path) -> None:
    """A worker's process; it ends with the one that started it, and with a checkpoint if it is asked to."""
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # till the libraries are loaded there is nothing to keep
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    from vcppo.stages.pipeline import run_cell

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
        raise KeyboardInterrupt

    try:
        signal.signal(signal.SIGINT, stop)
        work(load_study(name), out, run_cell)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
