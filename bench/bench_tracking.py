"""Cost of tracking: processor time of the uploader for one typical run, as a share of that run's time.

    python -m bench.bench_tracking

A run is replayed as its trainer would write it, the uploader delivering every EVERY_S seconds of it into a database
that has a study already. Loading MLflow and matplotlib and making the database happen once a study, not once a run,
and stand apart.
"""

import tempfile
import time
from pathlib import Path

from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.journal import Journal
from vcppo.tracking.uploader import EVERY_S, Uploader

RUN_S = 45.0
STEPS, METRICS, BINS = 60, 45, 32
BAR = 0.03


def write_step(journal: Journal, step: int) -> None:
    """One RL iteration: metrics, and tables at the intervals of RecordSettings."""
    last = step == STEPS - 1
    if step % 5 == 0 or last:
        column = [0.01 * (step + i) for i in range(2 * BINS)]
        names = ("position", "n", "value_mean", "return_mean", "value_bias", "explained_variance", "advantage_mean")
        ends = [i >= BINS for i in range(2 * BINS)]
        journal.table("critic_by_position", step, {"from_end": ends, **dict.fromkeys(names, column)})
        bins = ("bin_low", "bin_high", "predicted_mean", "return_mean", "n")
        journal.table("critic_calibration", step, dict.fromkeys(bins, column[:10]))
        fractions = {"fraction": [0.0, 0.25, 0.5, 0.75], "value_bias": column[:4]}
        journal.table("critic_by_fraction", step, fractions)
    if step % 10 == 0 or last:
        texts = ["12 345 678 " * 60] * 4
        sampled = ("problem", "answer", "response", "verdict", "note", "tokens")
        journal.table("samples", step, dict.fromkeys(sampled, texts))
    journal.metrics(step, {f"part/metric_{i}": 0.1 * step + i for i in range(METRICS)})


def make_cell(out: Path, name: str) -> tuple[CellFolder, Journal]:
    """A cell that has just begun its RL stage."""
    record = CellRecord(study="bench", cell=name, arm=name, seed=0, state="running", started=time.time())
    cell = CellFolder.create(out / "studies" / "bench" / "cells" / name, record, RunSettings(arm=name))
    cell.add_stage("rl", name, ran=True)
    return cell, Journal(out / "cache" / "rl" / name / "journal.jsonl")


def make_checkpoints(rl: Path) -> None:
    """What RL leaves, as far as MLflow lists it."""
    for name in ("policy", "critic"):
        (rl / name).mkdir()
        (rl / name / "config.json").write_text("{}")


def replay(uploader: Uploader, cell: CellFolder, journal: Journal) -> float:
    """Processor seconds of the uploader over one run."""
    steps_a_delivery = round(EVERY_S / RUN_S * STEPS)
    spent = 0.0
    for step in range(STEPS):
        write_step(journal, step)
        if step == STEPS - 1:
            make_checkpoints(journal.path.parent)
            cell.update(state="done", finished=time.time())
        if (step + 1) % steps_a_delivery == 0 or step == STEPS - 1:
            before = time.process_time()
            uploader.send()
            spent += time.process_time() - before
    return spent


def main() -> None:
    """Print what is paid once a study, then the share of each of three runs."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        uploader = Uploader(out, "bench", f"sqlite:///{out}/mlflow.db")
        make_cell(out, "waits")  # what ends a study is paid once
        cell, journal = make_cell(out, "first")
        write_step(journal, 0)
        cell.update(state="done", finished=time.time())
        before = time.process_time()
        uploader.send()
        print(f"once a study: load MLflow and matplotlib, make the database: {time.process_time() - before:.2f} s")
        for number in range(3):
            spent = replay(uploader, *make_cell(out, f"run-{number}"))
            verdict = "met" if spent / RUN_S < BAR else "MISSED"
            print(f"run {number}: {spent:.2f} s of {RUN_S:.0f} s = {spent / RUN_S:.2%} (bar {BAR:.0%}: {verdict})")
        uploader.close()


if __name__ == "__main__":
    main()
