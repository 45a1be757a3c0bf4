"""Studies over several bases: runs told apart, intervals over bases and seeds, arms that end in two ways."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vcppo.analysis import picture, style, summary, tables, training
from vcppo.analysis.costs import by_run, mean_interval
from vcppo.analysis.data import BadResultsError, Study, read_results, read_study
from vcppo.analysis.table_text import markdown
from vcppo.maths.run_statistics import TWO_ENDS, nested_bootstrap
from vcppo.tracking.table_files import write_files

BASES, SEEDS, STEPS = 5, 3, 4
PROVENANCE = {"run_id": "r", "commit": "0123456789ab", "settings_hash": "h", "n": 1, "origin": "measured"}
SCORES = ("avg_at_k", "pass_at_k", "final_accuracy")


def ends(arm: str, base: int, seed: int) -> float:
    """The final accuracy: ppo collapses but for one run, vcppo is told apart by its base alone."""
    if arm == "ppo":
        return 0.75 if (base, seed) == (4, 2) else 0.0
    return 0.85 + 0.02 * base


def write(root: Path, *, parquet: bool = True) -> Path:
    """An export of two arms, 5 bases and 3 seeds; returns its folder."""
    runs: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    problems: list[dict[str, Any]] = []
    for arm, base, seed in itertools.product(("ppo", "vcppo"), range(BASES), range(SEEDS)):
        key = {"study": "components", "arm": arm, "base_seed": base, "seed": seed}
        score = ends(arm, base, seed)
        shortest = {"min_length_fraction": 0.1 if score < 0.5 else 1.0, "min_accuracy": min(score, 0.1)}
        lengths = {"final_length_tokens": 90.0, "start_length_tokens": 50.0}
        row = {"cell": f"{arm}-b{base}-s{seed}", "status": "done", "error": "", "k": 4, "problems": 2}
        runs.append(key | row | dict.fromkeys(SCORES, score) | shortest | lengths | PROVENANCE)
        for step in range(STEPS):
            point = {"step": step, "metric": "rollout/accuracy", "value": score * step / (STEPS - 1)}
            curves.append(key | point | PROVENANCE)
        for problem in ("p", "q"):
            counts = {"problem": problem, "samples": 100, "correct": round(100 * score), "unreadable": 0}
            problems.append(key | counts | {"length_tokens": 9.0} | PROVENANCE)
    files = {"runs.csv": runs, "curves.parquet" if parquet else "curves.csv": curves, "problems.csv": problems}
    write_files(root / "components", {name: (list(rows[0]), rows) for name, rows in files.items()})
    return root / "components"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return read_study(write(tmp_path))


def test_curves_are_read_from_parquet_as_from_csv(tmp_path: Path) -> None:
    first, second = read_study(write(tmp_path / "a")), read_study(write(tmp_path / "b", parquet=False))
    assert len(first.curves) == 2 * BASES * SEEDS * STEPS
    columns = ["arm", "base_seed", "seed", "step", "metric"]
    pd.testing.assert_frame_equal(first.curves[columns], second.curves[columns], check_dtype=False)
    assert first.curves["value"].to_numpy() == pytest.approx(second.curves["value"].to_numpy(), rel=1e-6)
    assert first.curves["value"].dtype == np.float64


def test_runs_of_a_seed_but_other_bases_are_other_runs(study: Study) -> None:
    assert study.command == "vcppo sweep components --bases 5 --seeds 3 && vcppo export components"
    assert len(summary.final_scores(study.runs, "vcppo")) == BASES * SEEDS
    assert summary.accuracy_table(study.problems, "vcppo").shape == (BASES * SEEDS, 2)
    caption = picture.caption("A.", "B.", study, interval=picture.curve_interval(study))
    assert "n = 15 runs an arm over 5 bases" in caption
    assert "bootstrap over bases and the seeds within them" in caption
    assert f"PPO: runs end {TWO_ENDS}, so the line is their median, without a band." in caption


def test_an_interval_over_bases_is_as_wide_as_bases_differ(study: Study) -> None:
    """Bases at 0.85 to 0.93 and no spread within: five draws, where fifteen runs would seem to tell more."""
    numbers = tables.measured(study, ["vcppo"]).iloc[0]
    by_base = {base: [0.85 + 0.02 * base] * SEEDS for base in range(BASES)}
    wanted = nested_bootstrap(by_base, rng=np.random.default_rng(0))
    assert (numbers["avg_low"], numbers["avg_high"]) == pytest.approx((100 * wanted.low, 100 * wanted.high), abs=0.3)
    values = summary.metric(study.curves, "rollout/accuracy", ["vcppo"])
    last = summary.over_seeds(values, ["arm", "step"], shared_draws=False).iloc[-1]
    assert (last["low"], last["high"]) == pytest.approx((wanted.low, wanted.high), abs=0.003)
    assert (last["centre"], last["seeds"]) == (pytest.approx(0.89), BASES * SEEDS)
    points = values.assign(accuracy=values["value"])
    middle, interval = mean_interval(
        by_run(points, "vcppo", lambda run: run["accuracy"].iloc[-1]), "x", shared_draws=False
    )
    assert middle == pytest.approx(0.89)
    assert (interval.low, interval.high) == pytest.approx((wanted.low, wanted.high), abs=0.003)


def test_an_arm_that_ends_in_two_ways_is_counted_and_has_no_band(study: Study) -> None:
    assert summary.arms_apart(study.runs) == {"ppo"}
    table = tables.components(study)
    ppo, vcppo = table.shown.to_dict("records")
    assert ppo["avg@4 (%)"] == "14 of 15 below 2 [68, 100], others 75.0 to 75.0"
    assert ppo["ended below 2 %"] == "14 of 15 [68, 100] in 5 of 5 bases"
    assert (vcppo["ended below 2 %"], vcppo["seeds"]) == ("0 of 15 [0, 22]", "15 (5 bases)")
    assert vcppo["p"] == "< 0.001"
    assert "over bases and the seeds within them, and problems" in markdown(table)
    numbers = table.numbers.set_index("arm").loc["ppo"]
    assert np.isnan(numbers["avg_low"])
    assert (numbers["avg_median"], numbers["below"], numbers["bases"]) == (0, 14, 5)
    assert (numbers["min_length"], numbers["collapsed_bases"]) == (0.1, 5)


def test_the_line_of_an_arm_with_two_ends_is_its_median_with_every_run_beside(study: Study) -> None:
    values, centres = training.compute(
        study.curves, training.ACCURACY, summary.arms_apart(study.runs), shared_draws=False
    )
    of_ppo = centres[centres["arm"] == "ppo"]
    assert of_ppo["centre"].tolist() == [0] * STEPS  # the mean would end at 5
    assert of_ppo[["low", "high"]].isna().all(axis=None)
    assert not centres.loc[centres["arm"] == "vcppo", "low"].iloc[1:].isna().any()
    assert training.two_ends(study) == {"ppo": "14 of 15 end below 2 %"}
    figure = training.draw(values, centres, training.ACCURACY, {}, training.two_ends(study), None)
    panel = figure.axes[0]
    assert panel.get_title() == "PPO\n14 of 15 end below 2 %"
    assert len(panel.get_lines()) == BASES * SEEDS + 1
    assert max(line.get_ydata()[-1] for line in panel.get_lines()) == pytest.approx(75)


def test_every_figure_of_a_study_over_bases_is_drawn(tmp_path: Path) -> None:
    write(tmp_path)
    results = read_results(tmp_path)
    with style.paper_style():
        made = training.make(results, "components", training.ACCURACY, "figure4")
    assert "14 of 15" in made.figure.axes[0].get_title(loc="left")


def test_a_results_folder_of_before_has_the_one_base_0(tmp_path: Path) -> None:
    folder = write(tmp_path)
    for path in folder.glob("*"):
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        path.unlink()
        frame = frame[frame["base_seed"] == 0].drop(columns="base_seed")
        frame.to_csv(folder / f"{path.stem}.csv", index=False)
    study = read_study(folder)
    for kind in ("runs", "curves", "problems"):
        assert set(getattr(study, kind)["base_seed"]) == {0}
    assert study.command == "vcppo sweep components --seeds 3 && vcppo export components"
    assert picture.over(study) == "seeds, all of one base"


def twice(folder: Path) -> None:
    runs = pd.read_csv(folder / "runs.csv")
    pd.concat([runs, runs.tail(1)]).to_csv(folder / "runs.csv", index=False)


BROKEN = {
    "both files": (
        lambda folder: (folder / "curves.csv").write_text("x"),
        "both curves.parquet and curves.csv; expected one, that of the last export",
    ),
    "no parquet": (lambda folder: (folder / "curves.parquet").write_text("x"), "curves.parquet: not a Parquet table ("),
    "a run twice": (twice, "runs.csv line 32: a second row for arm vcppo, base 4, seed 2"),
    "no column": (
        lambda folder: write_files(folder, {"curves.parquet": (("step",), []), "runs.csv": (("a",), [])}),
        "runs.csv: columns study, ",
    ),
}


@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=list(BROKEN))
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, break_it: Any, message: str) -> None:
    folder = write(tmp_path)
    break_it(folder)
    with pytest.raises(BadResultsError) as told:
        read_study(folder)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


def test_numbers_of_a_parquet_file_are_checked_too(tmp_path: Path) -> None:
    folder = write(tmp_path)
    rows: list[dict[str, Any]] = [
        dict(zip(frame.columns, row, strict=True))
        for frame in [pd.read_parquet(folder / "curves.parquet")]
        for row in frame.itertuples(index=False)
    ]
    rows[2]["value"] = math.inf
    rows[1]["value"] = None  # was not finite when logged
    write_files(folder, {"curves.parquet": (list(rows[0]), rows), "runs.csv": (("a",), [])})
    write(tmp_path / "other")
    (folder / "runs.csv").write_bytes((tmp_path / "other" / "components" / "runs.csv").read_bytes())
    with pytest.raises(BadResultsError, match=r"curves\.parquet line 4: value = inf, expected a number"):
        read_study(folder)
