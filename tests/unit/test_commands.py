"""What commands say when the work is done."""

from pathlib import Path

from vcppo.cells import CellFolder, CellRecord
from vcppo.commands import best_trials
from vcppo.config import RunSettings
from vcppo.study import load_study


def ended(out: Path, trial: str, seed: int, state: str, accuracy: float | None, gae_lambda: float) -> None:
    record = CellRecord(
        study="search",
        cell=f"{trial}-s{seed}",
        arm=trial,
        seed=seed,
        state=state,
        swept={"gae.lambda_actor": gae_lambda},
        result={} if accuracy is None else {"final_accuracy": accuracy},
    )
    CellFolder.create(out / "studies" / "search" / "cells" / record.cell, record, RunSettings())


def test_the_best_trial_of_a_search_is_told_with_its_mean_and_its_settings(tmp_path):
    ended(tmp_path, "trial-0000", 0, "done", 0.25, 0.9)
    ended(tmp_path, "trial-0000", 1, "done", 0.75, 0.9)
    ended(tmp_path, "trial-0001", 0, "done", 0.75, 0.99)
    ended(tmp_path, "trial-0002", 0, "failed", None, 1.0)
    ended(tmp_path, "trial-0003", 0, "pruned", 1.0, 0.5)
    assert best_trials(load_study("search"), tmp_path) == [
        "trial-0001: final_accuracy 0.750  gae.lambda_actor=0.99",
        "trial-0000: final_accuracy 0.500  gae.lambda_actor=0.9",
    ]
