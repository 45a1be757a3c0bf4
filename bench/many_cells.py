"""Cost of a study of many cells before it runs and after: python bench/many_cells.py, without training anything.

Three times per number of cells: `vcppo sweep FILE --tracking-uri none` from its start to the first line of its
progress, imports included, where it is stopped; the same when every cell has ended; and the export of journals of 10
iterations and 30 metrics each. The last column is the size of Optuna's journal. Costs that grow linearly show the same
microseconds a cell in every row.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vcppo.store.cache import keys_of
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import Journal
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.execution import Execution
from vcppo.studies.study import Study, parse_study
from vcppo.tracking.export import export
from vcppo.tracking.from_disk import read_study

ITERATIONS, METRICS = 10, 30


def file_of(study: dict[str, Any], file: Path) -> str:
    """Write the study as a file, and return its text's place."""
    arms = "".join(
        f'[[arms]]\nname = "{arm["name"]}"\nset = {{ "policy.learning_rate" = {arm["set"]["policy.learning_rate"]} }}\n'
        for arm in study["arms"]
    )
    head = f'name = "{study["name"]}"\ntitle = "{study["title"]}"\nseeds = {study["seeds"]}\n'
    file.write_text(f"{head}[base]\nsteps = {ITERATIONS}\n{arms}", encoding="utf-8")
    return str(file)


def until_its_first_line(file: str, out: Path) -> float:
    """Return the seconds of processor time that `vcppo sweep` takes, user and system, until it says something."""
    command = [sys.executable, "-m", "vcppo", "sweep", file, "--out", str(out), "--workers", "1"]
    command += ["--tracking-uri", "none"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        os.killpg(process.pid, signal.SIGKILL)
    if not line.startswith(b"many: "):
        raise RuntimeError(f"expected the first line of a study's progress, got {line!r}")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def tree(cells: int, seeds: int) -> dict[str, Any]:
    """Return a study of as many cells, its arms all different."""
    count = cells // seeds
    arms = [{"name": f"arm-{n:05d}", "set": {"policy.learning_rate": 1e-4 * (1 + n / count)}} for n in range(count)]
    return {"name": "many", "title": "many cells", "arms": arms, "seeds": seeds, "base": {"steps": ITERATIONS}}


def opened(study: Study, out: Path) -> StudyLedger:
    """Open it as `vcppo sweep` does, to have its cells played."""
    (out / "studies" / study.name).mkdir(parents=True, exist_ok=True)
    ledger = StudyLedger(study, Execution(tuple(study.seed_list()), out), warn=print)
    ledger.mirror.wait(ledger.mirror.ask(lambda board: None), 600)
    return ledger


def play(folder: CellFolder, out: Path) -> None:
    """Leave what a cell leaves when it has run."""
    stages = []
    for stage, address in keys_of(folder.settings()).items():
        stages.append({"stage": stage, "address": address, "ran": True})
        if stage == "rl":
            values = {f"m/{n}": n / 7 for n in range(METRICS)}
            records = [{"kind": "metrics", "step": step, "time": 1.0, "values": values} for step in range(ITERATIONS)]
            path = Journal(out / "cache" / stage / address / "journal.jsonl").path
            path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    folder.update(state="done", stages=stages, started=1.0, finished=2.0, result={"final_accuracy": 0.5})


@contextmanager
def timed(seconds: list[float]) -> Iterator[None]:
    began = time.process_time()
    yield
    seconds.append(time.process_time() - began)


def main() -> None:
    """Print a row for each number of cells; processor seconds, since other work may run beside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=[100, 1000, 10000], help="(100 1000 10000)")
    parser.add_argument("--seeds", type=int, default=1, help="of each arm; cells are arms times seeds (1)")
    options = parser.parse_args()
    print("  cells   start s  us/cell   again s  us/cell  export s  us/cell   journal MB")
    for cells in options.cells:
        out, study = Path(tempfile.mkdtemp(prefix="vcppo-many-")), tree(cells, options.seeds)
        file = file_of(study, out / "many.toml")
        seconds = [until_its_first_line(file, out)]
        ledger = opened(parse_study(study, "bench"), out)
        while ledger.queue:
            cell = ledger.queue.pop()
            ledger.begin(cell)
            play(ledger.folder_of(cell.name), out)
            ledger.end(ledger.folder_of(cell.name).read())
            ledger.settle(ledger.trial_of(cell.name))
        ledger.mirror.close(600)
        seconds.append(until_its_first_line(file, out))
        with timed(seconds):
            export(read_study(out, "many"), out / "results" / "many")
        journal = (out / "studies" / "many" / "optuna.journal").stat().st_size / 1e6
        figures = "".join(f"{s:10.2f}{1e6 * s / cells:9.0f}" for s in seconds)
        print(f"{cells:7d}{figures}{journal:13.2f}", flush=True)
        shutil.rmtree(out)


if __name__ == "__main__":
    main()
