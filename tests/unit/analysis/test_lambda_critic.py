"""The table of λ_critic: runs are compared with those of the same critic, base and seed."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from vcppo.analysis import lambda_critic
from vcppo.analysis.data import NoDataError, read_results
from vcppo.tracking.table_files import write_files

PROVENANCE = {"run_id": "r", "commit": "0123456789ab", "settings_hash": "h", "n": 1, "origin": "measured"}
ARMS = {("raw", 0.95): 0.0, ("raw", 1.0): 0.5, ("fitted", 0.95): 0.9, ("fitted", 1.0): 0.8}  # accuracy at base 0


def write(root: Path, lambdas: tuple[float, ...] = (0.95, 1.0)) -> None:
    """Two bases, two seeds; accuracy rises by 0.1 with the base; biases halve until iteration 5 at 1, at 0.95 not."""
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    for (start, setting), base, seed in itertools.product(ARMS, (5, 6), (0, 1)):
        if setting not in lambdas:
            continue
        arm = f"{start},gae.lambda_critic={setting:g}"
        key = {"study": "lambda-critic", "arm": arm, "base_seed": base, "seed": seed}
        score = ARMS[start, setting] + (0.1 * (base - 5) if ARMS[start, setting] else 0.0)
        row = {"cell": f"{arm}-{base}-{seed}", "status": "done", "error": "", "k": 2, "problems": 2}
        scores = dict.fromkeys(("avg_at_k", "pass_at_k", "final_accuracy"), score)
        extra = {
            "min_length_fraction": 0.5,
            "min_accuracy": 0.0,
            "final_length_tokens": 9.0,
            "start_length_tokens": 9.0,
        }
        runs.append(key | row | {"gae.lambda_critic": setting} | scores | extra | PROVENANCE)
        for step in range(6):
            bias = -1.0 if setting < 1 or step < 5 else -0.5
            for metric, value in (("rollout/accuracy", score), ("value/true_bias", bias)):
                curves.append(key | {"step": step, "metric": metric, "value": value} | PROVENANCE)
    files = {"runs.csv": runs, "curves.csv": curves}
    write_files(root / "lambda-critic", {name: (list(rows[0]), rows) for name, rows in files.items()})


def test_runs_are_compared_with_those_of_the_same_critic_base_and_seed(tmp_path: Path) -> None:
    write(tmp_path)
    numbers = lambda_critic.compute(read_results(tmp_path).studies["lambda-critic"]).set_index("arm")
    raw, fitted = (numbers.loc[f"{start},gae.lambda_critic=1"] for start in ("raw", "fitted"))
    assert raw["less"] == pytest.approx(55.0)  # bases 0.5 and 0.6 against 0
    assert (raw["less_low"], raw["less_high"]) == (pytest.approx(50.0), pytest.approx(60.0))
    assert (raw["above"], raw["nearer"], raw["pairs"]) == (4, 4, 4)
    assert fitted["less"] == pytest.approx(-10.0)
    assert (fitted["above"], fitted["nearer"]) == (0, 4)
    assert (raw["start"], raw["early"]) == (-1.0, -0.5)
    coupled = numbers.loc["raw,gae.lambda_critic=0.95"]
    assert pd.isna(coupled["less"])
    assert (coupled["pairs"], coupled["below"]) == (0, 4)


def test_a_run_that_was_lost_leaves_the_others_pairs(tmp_path: Path) -> None:
    write(tmp_path)
    study = read_results(tmp_path).studies["lambda-critic"]
    lost = (
        (study.curves["arm"] == "raw,gae.lambda_critic=1")
        & (study.curves["base_seed"] == 5)
        & (study.curves["seed"] == 0)
    )
    numbers = lambda_critic.compute(replace(study, curves=study.curves[~lost])).set_index("arm")
    raw = numbers.loc["raw,gae.lambda_critic=1"]
    assert (raw["above"], raw["nearer"], raw["pairs"]) == (3, 3, 3)


def test_the_table_says_it_in_words_and_names_what_is_missing(tmp_path: Path) -> None:
    write(tmp_path)
    shown = lambda_critic.table(read_results(tmp_path)).shown
    assert shown["runs above 0.95"].tolist() == ["–", "0 of 4", "–", "4 of 4"]  # fitted, then raw
    assert shown["less 0.95, by base"].tolist() == ["–", "-10.0, -10.0", "–", "50.0, 60.0"]
    write(tmp_path / "other", lambdas=(1.0,))
    with pytest.raises(NoDataError, match=r"no arm with gae\.lambda_critic = 0\.95"):
        lambda_critic.table(read_results(tmp_path / "other"))
