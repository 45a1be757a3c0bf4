"""Figures of shifted critics and the table of imposed profiles, on runs that are made up."""

import itertools
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from vcppo.analysis import offsets, profile
from vcppo.analysis.data import NoDataError, Results, Study
from vcppo.maths.collapse_law import Chain, push_of_error, true_push
from vcppo.settings.chains import EndingsTaskSettings
from vcppo.settings.task import DigitsTaskSettings
from vcppo.studies.study import load_study

STEPS = 20


def study_of(name: str, runs: list[dict[str, object]], curves: list[dict[str, object]]) -> Study:
    empty = pd.DataFrame({"arm": [], "seed": []})
    return Study(name, pd.DataFrame(runs), pd.DataFrame(curves), empty, empty, empty)


def results_of(study: Study) -> Results:
    return Results(Path("results"), {study.name: study}, {})


def endings(status: str = "done") -> Study:
    """Two bases: length 40 and 20 % cut until step 9; from then on 40 * 2^offset, all cut where the offset is above 0.

    Base 1's responses are 2 tokens longer throughout.
    """
    runs: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    arms = [("exact", 0.95, "critic.offset", x) for x in (-1.0, 0.0, 2.0)]
    arms += [("exact-mc", 1.0, "critic.offset", 0.0), ("fresh", 0.95, "critic.initial_value", -3.0)]
    arms += [("pretrained", 0.95, "critic.initial_value", 3.0)]
    for (name, gae_lambda, setting, at), base in itertools.product(arms, (0, 1)):
        arm = f"{name},{setting}={at:g}"
        key: dict[str, object] = {"study": "endings", "arm": arm, "base_seed": float(base), "seed": 0.0}
        others = {"critic.offset": None, "critic.initial_value": None, "gae.lambda_actor": gae_lambda}
        runs.append({**key, "status": status, "avg_at_k": 0.5, "commit": "abc", **others, setting: at})
        for step in range(STEPS):
            late = step >= STEPS - offsets.LATE
            length = 40 * 2**at if late else 40
            values = {"rollout/length_tokens": length + 2 * base, "rollout/accuracy": 0.6 if late else 0.1}
            values["rollout/truncated_rate"] = float(at > 0) if late else 0.2
            curves += [{**key, "metric": m, "step": float(step), "value": v} for m, v in values.items()]
    return study_of("endings", runs, curves)


def test_the_last_iterations_are_held_against_the_first_one() -> None:
    computed = offsets.compute(endings())
    assert len(computed) == 12
    exact = computed[computed["column"] == "exact, λ actor 0.95"]
    assert exact["at"].tolist() == [-1, -1, 0, 0, 2, 2]
    assert exact["length"].tolist() == pytest.approx([20 / 40, 22 / 42, 1, 1, 160 / 40, 162 / 42])
    assert exact["truncated"].tolist() == pytest.approx([0, 0, 0, 0, 100, 100])
    assert exact["accuracy"].tolist() == pytest.approx([60] * 6)
    fresh = computed[computed["column"] == "fresh, learns"]
    assert fresh["at"].tolist() == [-3, -3]  # over its own setting
    picture = offsets.make(results_of(endings()), "endings")
    assert "n = 2 runs an arm over 2 bases" in picture.caption
    assert len(picture.figure.axes) == 12


def test_a_run_that_a_warning_ended_has_last_iterations_of_its_own() -> None:
    study = endings()
    curves = study.curves
    ended = (curves["arm"] == "exact,critic.offset=2") & (curves["base_seed"] == 0) & (curves["step"] > STEPS - 4)
    stopped = replace(study, curves=curves[~ended])
    lengths = offsets.last_iterations(stopped, "rollout/length_tokens")
    late = offsets.LATE - 3  # of them; the others are as before
    assert lengths["exact,critic.offset=2", 0.0, 0.0] == pytest.approx((late * 160 + 3 * 40) / offsets.LATE)
    assert lengths["exact,critic.offset=2", 1.0, 0.0] == pytest.approx(162)


def test_without_finished_runs_or_settings_nothing_is_drawn() -> None:
    with pytest.raises(NoDataError, match=r"endings: no finished run in endings/runs.csv; make it with: vcppo sweep"):
        offsets.make(results_of(endings("failed")), "endings")
    study = endings()
    lacking = replace(study, runs=study.runs.drop(columns="critic.offset"))
    with pytest.raises(NoDataError, match=r"no columns critic\.offset in endings/runs\.csv"):
        offsets.compute(lacking)


def test_the_columns_of_figures_are_arms_of_the_studies() -> None:
    for name, shifted in offsets.STUDIES.items():
        cells = load_study(name).cells()
        arms = {(cell.arm.split(",")[0], cell.settings.gae.lambda_actor) for cell in cells}
        assert {(column.arm, column.gae_lambda) for column in shifted.columns} == arms
        for column in shifted.columns:
            assert any(f"{column.setting}=" in cell.arm for cell in cells if cell.arm.split(",")[0] == column.arm)
    assert all(isinstance(cell.settings.task, EndingsTaskSettings) for cell in load_study("endings").cells())


def profiles(*, pushes: bool = True) -> Study:
    runs: list[dict[str, object]] = []
    curves: list[dict[str, object]] = []
    for (arm, text, gae_lambda), base in itertools.product(
        [("none", "", 0.95), ("low", "0:-1.5", 0.95), ("low-mc", "0:-1.5", 1.0)], (1, 0)
    ):
        key: dict[str, object] = {"study": "profile", "arm": arm, "base_seed": float(base), "seed": 0.0}
        falls = arm == "low"
        score = 0.0 if falls else 0.8 + base / 10
        settings = {"critic.profile": text, "gae.lambda_actor": gae_lambda}
        runs.append({**key, "status": "done", "avg_at_k": score, "commit": "abc", **settings})
        values = {("rollout/length_tokens", 0): 40.0, ("rollout/length_tokens", 3): 20.0 if falls else 50.0}
        values |= {("policy/push", 0): 0.4 + base / 10} if pushes else {}
        curves += [{**key, "metric": m, "step": float(s), "value": v} for (m, s), v in values.items()]
    return study_of("profile", runs, curves)


def test_the_push_of_a_profile_is_computed_and_stands_beside_what_happened() -> None:
    numbers = {row["arm"]: row for row in profile.compute(profiles()).to_dict("records")}
    assert numbers["none"]["computed"] == pytest.approx(true_push(Chain(30, 0.09)))
    assert numbers["low"]["computed"] == pytest.approx(push_of_error(Chain(30, 0.09), -1.5, 0.95))
    assert numbers["low"]["computed"] > 0 > numbers["low-mc"]["computed"]
    assert [numbers["low"][f"measured{end}"] for end in ("", "_low", "_high")] == pytest.approx([0.45, 0.4, 0.5])
    assert (numbers["low"]["grew"], numbers["low"]["better"]) == (0, 0)
    assert (numbers["none"]["grew"], numbers["none"]["better"]) == (2, 2)
    assert numbers["none"]["accuracy"] == pytest.approx((80.0, 90.0))  # by base


def test_the_table_of_profiles_in_words() -> None:
    shown = {row["arm"]: row for row in profile.table(results_of(profiles())).shown.to_dict("records")}
    assert list(shown) == ["low-mc", "none", "low"]  # the least computed push first
    assert shown["none"]["error added, token:units of reward"] == "–"
    assert shown["low"]["push, measured"] == "0.45 (0.40 to 0.50)"
    assert shown["low"]["longer after 3 iterations"] == "0 of 2"
    assert shown["none"]["accuracy at the end, by base (%)"] == "80.0, 90.0"
    assert profile.table(results_of(profiles(pushes=False))).shown["push, measured"].tolist() == ["–"] * 3


def test_the_profiles_chain_is_that_of_the_studys_task() -> None:
    (task,) = {cell.settings.task for cell in load_study("profile").cells()}
    assert isinstance(task, DigitsTaskSettings)
    assert Chain(task.chain_length, task.stop_hazard, task.digits + 1, task.digits + 1) == profile.CHAIN
