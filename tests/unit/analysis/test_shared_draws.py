"""Studies whose runs of a seed share draws on all bases: every interval over runs resamples both, crossed."""

import itertools
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from committed_results import COMMITTED

from vcppo.analysis import costs, critic_worth, crossover, picture, summary, tables, task_tables, values
from vcppo.analysis.data import ACCURACY, BadResultsError, Study, read_study
from vcppo.analysis.table_text import markdown
from vcppo.tracking.table_files import write_files

BASES, SEEDS = 5, 3
COMMIT = "0123456789ab"
PROVENANCE = {"run_id": "r", "commit": COMMIT, "settings_hash": "h", "n": 1, "origin": "measured"}
BASES_DRAW = "5d9a0d9cdbdff5f879b4fc01a5fbe67b4c017091"  # the commit since which bases draw by themselves


def ends(seed: int) -> float:
    """What a run ends with is its seed's alone."""
    return 0.5 + 0.1 * seed


def write(root: Path, shared: str = "") -> Path:
    """An export of one arm whose runs differ by their seed alone, and, of the commit `shared`, that its draws do."""
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for base, seed in itertools.product(range(BASES), range(SEEDS)):
        key = {"study": "s", "arm": "vcppo", "base_seed": base, "seed": seed}
        row = {"cell": f"vcppo-b{base}-s{seed}", "status": "done", "error": "", "k": 10, "problems": 2}
        numbers = ("avg_at_k", "pass_at_k", "final_accuracy", "min_accuracy", "min_length_fraction")
        lengths = {"final_length_tokens": 90.0, "start_length_tokens": 50.0}
        runs.append(key | row | dict.fromkeys(numbers, ends(seed)) | lengths | PROVENANCE)
        curves += [key | {"step": step, "metric": ACCURACY, "value": ends(seed)} | PROVENANCE for step in (0, 1)]
        counts = {"samples": 10, "correct": round(10 * ends(seed)), "unreadable": 0, "length_tokens": 9.0}
        problems += [key | {"problem": problem} | counts | PROVENANCE for problem in ("p", "q")]
    files = {"runs.csv": runs, "curves.parquet": curves, "problems.csv": problems}
    write_files(root / "s", {name: (list(rows[0]), rows) for name, rows in files.items()})
    if shared:
        (root / "shared-draws.csv").write_text(f"commit,studies,origin\n{shared},s,computed\n")
    return root / "s"


def intervals(study: Study) -> dict[str, tuple[float, float]]:
    """Each way that an interval over runs is made, in points."""
    curves = summary.metric(study.curves, ACCURACY, scale=100)
    shared = study.shared_draws
    last = summary.over_seeds(curves, ["arm", "step"], shared_draws=shared).iloc[-1]
    runs = pd.Series(100 * study.runs["avg_at_k"].to_numpy(), index=study.runs.set_index(["base_seed", "seed"]).index)
    mean = costs.mean_interval(runs, "x", shared_draws=shared)[1]
    along = task_tables.along(study, ["vcppo"]).iloc[0]
    outcome = tables.measured(study, ["vcppo"]).iloc[0]
    gain = critic_worth.mean_gain(
        study.runs.assign(gain=100 * study.runs["avg_at_k"]), "gain", "x", shared_draws=shared
    )
    rows = study.runs.assign(quality=study.runs["avg_at_k"], gain_mean=100 * study.runs["avg_at_k"] - 55)
    zero = crossover.crossing_interval(rows, "quality", "x", shared_draws=shared)
    states = study.runs[["base_seed", "seed"]].assign(
        step=0, answer=0, truth=0.0, n=256, estimate=study.runs["avg_at_k"]
    )
    error = values.interval(values.with_errors(states), values.mean_absolute, "x", shared_draws=shared)
    return {
        "curve": (last["low"], last["high"]),
        "mean": (mean.low, mean.high),
        "along": (along["along_low"], along["along_high"]),
        "outcome": (outcome["avg_low"], outcome["avg_high"]),
        "gain": gain[1:],
        "crossing": (zero.low, zero.high),
        "error of values": (100 * error[1], 100 * error[2]),
    }


def test_every_interval_is_wider_where_effects_cluster_by_seed_and_captions_say_why(tmp_path: Path) -> None:
    """Seeds end at 50, 60 and 70 on each base: crossed all three may be one of them, nested fifteen runs are drawn."""
    alone, shared = read_study(write(tmp_path / "a")), read_study(write(tmp_path / "b", COMMIT))
    assert (alone.shared_draws, shared.shared_draws) == (False, True)
    crossed, nested = intervals(shared), intervals(alone)
    assert crossed.pop("crossing")[0] == float("-inf")  # resamples without the seed that loses
    assert nested.pop("crossing")[0] == pytest.approx(0.5)
    for name, ends_of in crossed.items():
        assert list(ends_of) == pytest.approx([50, 70]), name
        assert nested[name][1] - nested[name][0] < 11, name
    assert picture.over(shared) == "bases and seeds (resampled crossed, since runs of a seed share draws)"
    assert picture.over(alone) == "bases and the seeds within them"
    assert "bootstrap over bases and seeds (resampled crossed, since" in picture.curve_interval(shared)
    assert "over bases and seeds (resampled crossed, since runs of a seed" in markdown(tables.components(shared))
    assert picture.over_all([alone, shared]) == f"{picture.over(alone)} in `s`, {picture.over(shared)} in `s`"
    assert picture.over_all([shared, shared]) == picture.over(shared)


def test_runs_of_another_commit_share_nothing(tmp_path: Path) -> None:
    assert not read_study(write(tmp_path, "ba9876543210")).shared_draws


def test_with_one_seed_there_is_nothing_to_cross(tmp_path: Path) -> None:
    folder = write(tmp_path, COMMIT)
    for name in ("runs.csv", "problems.csv"):
        frame = pd.read_csv(folder / name)
        frame[frame["seed"] == 0].to_csv(folder / name, index=False)
    study = read_study(folder)
    assert study.shared_draws
    assert picture.over(study) == "bases and the seeds within them"


def test_a_file_of_shared_draws_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (tmp_path / "shared-draws.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadResultsError, match=r"shared-draws\.csv: columns commit, studies, origin missing"):
        read_study(folder)


def test_the_committed_file_names_every_study_of_several_bases_from_before_bases_drew_by_themselves() -> None:
    """By git's history. Base 0 draws as it always did, so a study whose older runs are of base 0 shares nothing."""
    git = shutil.which("git")
    known = git and subprocess.run([git, "cat-file", "-e", BASES_DRAW], cwd=COMMITTED, capture_output=True).returncode
    if known != 0:
        pytest.skip(f"no git, or no commit {BASES_DRAW[:7]} in its history (a shallow clone)")
    found = set()
    for path in sorted(COMMITTED.glob("*/runs.csv")):
        runs = pd.read_csv(path, dtype=str)
        if "base_seed" not in runs:
            continue
        for commit in runs.loc[runs["base_seed"] != "0", "commit"].unique():
            command = [str(git), "merge-base", "--is-ancestor", BASES_DRAW, commit]
            if subprocess.run(command, cwd=COMMITTED, capture_output=True).returncode == 1:
                found.add((commit, path.parent.name))
    listed = pd.read_csv(COMMITTED / "shared-draws.csv", dtype=str)
    pairs = {(row.commit, study) for row in listed.itertuples() for study in str(row.studies).split()}
    assert pairs == found
    assert {study for _, study in pairs} >= {"credit", "lambda-critic", "null"}
