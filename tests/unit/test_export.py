import csv
import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_study import PROVENANCE, STARTED, FakeStudy, iterate, positions

from vcppo.errors import StudyError
from vcppo.export import (
    CellRun,
    Pretraining,
    answers_behind,
    as_csv,
    curves_of,
    export_experiment,
    scores,
    write_csv_files,
)
from vcppo.mlflow_store import MlflowStore, Point, Run
from vcppo.tracking import Courier

ACCURACIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
LENGTHS = [100.0, 50.0, 20.0, 30.0, 40.0, 50.0]

Rows = list[dict[str, str]]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def study(tmp_path: Path) -> FakeStudy:
    return FakeStudy(tmp_path / "out")


@pytest.fixture
def deliver(database: str, study: FakeStudy, request: pytest.FixtureRequest) -> Callable[[], None]:
    def call() -> None:
        courier = Courier(study.out, study.name, database, request.node.name)
        courier.deliver()
        courier.close()

    return call


@pytest.fixture
def export(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., dict[str, Rows]]:
    """Exports this test's experiment; rows by file name."""

    def call(**options: Any) -> dict[str, Rows]:
        paths = export_experiment(database, request.node.name, tmp_path / "results", **options)
        return {path.name: list(csv.DictReader(path.read_text().splitlines())) for path in paths}

    return call


def four_cells(study: FakeStudy) -> None:
    for arm in ("vcppo", "ppo"):
        for seed in (1, 0):
            study.finished_cell(f"{arm}-s{seed}", arm=arm, seed=seed, accuracies=ACCURACIES, lengths=LENGTHS)


def test_runs_csv_has_a_row_a_run_in_order_with_its_scores(study, deliver, export):
    four_cells(study)
    deliver()
    rows = export()["runs.csv"]
    assert [(row["arm"], row["seed"], row["cell"]) for row in rows] == [
        ("ppo", "0", "ppo-s0"),
        ("ppo", "1", "ppo-s1"),
        ("vcppo", "0", "vcppo-s0"),
        ("vcppo", "1", "vcppo-s1"),
    ]
    row = rows[0]
    expected = {
        "study": "components",
        "status": "done",
        "error": "",
        "wall_s": "60.0",
        "steps": "6",
        "avg_at_k": "0.375",
        "pass_at_k": "0.5",
        "k": "4",
        "problems": "2",
        "start_length_tokens": "100.0",
        "min_length_fraction": "0.2",
        "min_accuracy": "0.1",
        "final_accuracy": "0.4",  # mean of 0.2 to 0.6
        "final_length_tokens": "38.0",  # mean of the last five
        "pretrain_steps_done": "20",
        "commit": PROVENANCE["commit"],
        "origin": "measured",
        "n": "8",
    }
    assert expected.items() <= row.items()
    assert len(row["settings_hash"]) == 12
    assert len(row["run_id"]) == 32


def test_curves_csv_has_rl_evaluation_and_the_pretraining_that_the_critic_has_seen(study, deliver, export):
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    deliver()
    rows = export()["curves.csv"]
    of = {
        name: [(row["step"], row["value"]) for row in rows if row["metric"] == name]
        for name in {r["metric"] for r in rows}
    }
    assert of["rollout/accuracy"] == [(str(step), str(value)) for step, value in enumerate(ACCURACIES)]
    assert of["pretrain/loss"] == [("10", "0.1"), ("20", "0.05")]  # its journal goes on to 30, for others
    assert of["eval/digits/pass_at_4"] == [("6", "0.5")]
    assert "time/iteration_s" in of
    assert "time/update_s" in of
    assert "time/other_s" not in of
    assert "system/rss_mb" not in of
    assert rows == sorted(rows, key=lambda row: (row["metric"], int(row["step"])))


def test_all_metrics_are_there_when_asked_for(study, deliver, export):
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    deliver()
    metrics = {row["metric"] for row in export(metrics=["*"])["curves.csv"]}
    assert {"time/update_s", "system/rss_mb"} <= metrics


def test_positions_and_calibration_come_from_both_stages(study, deliver, export):
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    deliver()
    files = export()
    rows = files["positions.csv"]
    assert [(row["stage"], row["step"]) for row in rows[::3]] == [
        ("value-pretraining", "10"),
        ("value-pretraining", "20"),
        ("rl", "0"),
    ]
    first, second, third = rows[6:9]
    assert (first["position"], first["from_end"], first["n"]) == ("0", "False", "96")
    assert [row["value_mean"] for row in (first, second, third)] == [str(x) for x in positions()["value_mean"]]
    assert second["explained_variance"] == ""
    assert [row["return_mean"] for row in files["calibration.csv"]] == ["-0.6", "0.1"]


def test_problems_csv_is_the_final_evaluation(study, deliver, export):
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    deliver()
    rows = export()["problems.csv"]
    keys = ("arm", "seed", "problem", "samples", "correct", "unreadable", "length_tokens", "n")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("ppo", "0", "p0", "4", "3", "0", "80.0", "4"),
        ("ppo", "0", "p1", "4", "0", "1", "100.0", "4"),
    ]


def test_every_row_says_where_it_comes_from(study, deliver, export):
    four_cells(study)
    deliver()
    for rows in export().values():
        assert rows
        for row in rows:
            assert row["origin"] == "measured"
            assert row["run_id"]
            assert row["commit"]
            assert row["settings_hash"]
            assert row["seed"]
            assert int(row["n"]) > 0


def test_an_export_again_is_the_same_to_the_byte_and_leaves_nothing_behind(study, deliver, export, tmp_path):
    four_cells(study)
    deliver()
    export()
    before = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    export()
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert sorted(before) == ["calibration.csv", "curves.csv", "positions.csv", "problems.csv", "runs.csv"]


def test_a_failed_cell_has_its_error_and_no_scores(study, deliver, export):
    cell = study.cell("ppo-s0", state="failed", error="TrainingError: ratio, 1e5")
    stage = study.enter(cell, "rl", "a")
    iterate(stage.journal, 0)
    study.cell("ppo-s1", seed=1, state="pruned")
    deliver()
    files = export()
    failed, pruned = files["runs.csv"]
    assert (failed["status"], failed["error"], failed["steps"]) == ("failed", "TrainingError: ratio, 1e5", "1")
    assert failed["final_accuracy"] == failed["avg_at_k"] == failed["n"] == ""
    assert pruned["status"] == "pruned"
    assert files["curves.csv"] == files["positions.csv"] == []


def test_swept_settings_are_columns_by_their_dotted_names(study, deliver, export):
    for seed, value in ((0, 0.9), (1, None)):
        swept = {"gae.lambda_critic": 0.9, "gae.length_adaptive_alpha": value}
        study.cell(f"x-s{seed}", state="failed", error="x", seed=seed, swept=swept)
    deliver()
    rows = export()["runs.csv"]
    assert [(row["gae.lambda_critic"], row["gae.length_adaptive_alpha"]) for row in rows] == [
        ("0.9", "0.9"),
        ("0.9", ""),
    ]
    assert list(rows[0])[7:10] == ["steps", "gae.lambda_critic", "gae.length_adaptive_alpha"]


def test_cells_that_share_a_pretraining_each_have_its_rows(study, deliver, export):
    for name, ran in (("a", True), ("b", False)):
        cell = study.finished_cell(name, arm=name, seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
        stages = [stage.model_dump() for stage in cell.read().stages]
        stages[0] |= {"address": "pre-a", "ran": ran}
        cell.update(stages=stages)
    deliver()
    files = export()
    for arm in ("a", "b"):
        steps = [row["step"] for row in files["curves.csv"] if row["arm"] == arm and row["metric"] == "pretrain/loss"]
        assert steps == ["10", "20"]
        tables = [row for row in files["positions.csv"] if row["arm"] == arm and row["stage"] == "value-pretraining"]
        assert len(tables) == 6


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_study_with_holes_is_refused_with_their_names_unless_allowed(study, deliver, export, tmp_path, state):
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    study.cell("ppo-s1", state=state, seed=1)
    deliver()
    named = {"queued": "not begun", "running": "interrupted"}[state]  # nobody works on it any more
    with pytest.raises(StudyError, match=rf"components is incomplete, 1 of 2 cells missing: ppo-s1 \({named}\)"):
        export()
    assert not (tmp_path / "results").exists()
    assert [row["cell"] for row in export(allow_incomplete=True)["runs.csv"]] == ["ppo-s0"]


def test_the_latest_of_two_studies_of_a_name_is_exported(study, deliver, export, database, request, tmp_path):
    study.cell("old-s0", state="failed", error="x")
    deliver()
    time.sleep(0.01)
    again = FakeStudy(tmp_path / "again")
    again.cell("new-s0", state="failed", error="x")
    courier = Courier(again.out, again.name, database, request.node.name)
    courier.deliver()
    courier.close()
    assert [row["cell"] for row in export()["runs.csv"]] == ["new-s0"]


def test_an_experiment_with_several_studies_asks_for_one(study, deliver, export, database, request, tmp_path):
    study.cell("a-s0", state="failed", error="x")
    deliver()
    other = FakeStudy(tmp_path / "other", "lambda-grid")
    other.cell("b-s0", state="failed", error="x")
    courier = Courier(other.out, other.name, database, request.node.name)
    courier.deliver()
    courier.close()
    with pytest.raises(StudyError, match="holds the studies components, lambda-grid; name one"):
        export()
    assert [row["cell"] for row in export(study="lambda-grid")["runs.csv"]] == ["b-s0"]
    with pytest.raises(StudyError, match="holds no study 'nope'"):
        export(study="nope")


def test_a_store_or_experiment_that_is_not_there_is_told_and_not_made(study, deliver, database, tmp_path):
    with pytest.raises(StudyError, match=r"none.db: no such file"):
        export_experiment(f"sqlite:///{tmp_path}/none.db", "x", tmp_path / "results")
    assert not (tmp_path / "none.db").exists()
    MlflowStore(database, "there", tmp_path)
    with pytest.raises(StudyError, match="no experiment 'nowhere'"):
        export_experiment(database, "nowhere", tmp_path / "results")
    with pytest.raises(StudyError, match="experiment 'there': holds no study of vcppo"):
        export_experiment(database, "there", tmp_path / "results")


def test_of_several_points_at_a_step_the_latest_counts():
    points = [Point("a", 1, 5.0, 200), Point("a", 1, 4.0, 100), Point("a", 0, 1.0, 0), Point("b", 1, 2.0, 0)]
    for seed in range(5):
        random.Random(seed).shuffle(points)
        assert curves_of(points) == {"a": {0: 1.0, 1: 5.0}, "b": {1: 2.0}}


def test_floats_read_back_as_they_were():
    numbers = [random.Random(seed).uniform(-1, 1) * 10 ** (seed - 10) for seed in range(20)]
    text = as_csv(("x",), [{"x": number} for number in numbers])
    assert [float(row["x"]) for row in csv.DictReader(text.splitlines())] == numbers


def test_a_failing_export_leaves_the_old_files_alone(tmp_path):
    (tmp_path / "a.csv").write_text("old")

    def broken() -> Any:
        yield {"x": 1}
        raise StudyError("no")

    with pytest.raises(StudyError):
        write_csv_files(tmp_path, {"a.csv": (("x",), [{"x": 1}]), "b.csv": (("x",), broken())})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


def cell_run(curves: dict[str, dict[int, float]], *, result: str = "{}", **settings: Any) -> CellRun:
    params = {"rollout.prompts": "10", "rollout.samples_per_prompt": "2", "evaluation.samples": "8"}
    params |= {
        "evaluation.samples_during": "1",
        "task.held_out": "50",
        "pretrain.batch": "96",
        "pretrain.held_out": "384",
    }
    params |= {"pretrain.steps": "converge"} | {name: str(value) for name, value in settings.items()}
    return CellRun(Run("id", {"result": result, "stages": "{}"}, params, (), "FINISHED", 0), curves)


@pytest.mark.parametrize(
    ("metric", "step", "n"),
    [
        ("rollout/accuracy", 0, 20),
        ("value/loss", 3, 20),
        ("pretrain/loss", 10, 96),
        ("pretrain/explained_variance", 10, 384),
        ("eval/digits/avg_at_1", 50, 50),
        ("eval/digits/avg_at_8", 60, 400),
        ("eval/digits/length_tokens", 50, 50),
        ("eval/digits/length_tokens", 60, 400),
    ],
)
def test_n_is_the_number_of_answers_behind_a_point(metric, step, n):
    evaluations = {"eval/digits/length_tokens": {50: 1.0, 60: 2.0}, "eval/digits/avg_at_8": {60: 1.0}}
    cell = cell_run({"eval/digits/avg_at_1": {50: 0.5}, **evaluations})
    assert answers_behind(cell, metric, step) == n


def test_the_evaluation_that_counts_is_the_one_with_all_samples():
    cell = cell_run({"eval/digits/avg_at_1": {50: 0.9}, "eval/digits/avg_at_8": {60: 0.5}})
    assert (scores(cell)["avg_at_k"], scores(cell)["k"]) == (0.5, 8)


def test_pretrain_steps_are_what_the_run_says_else_what_was_asked_else_what_was_done():
    done = Pretraining({"pretrain/loss": {10: 1.0, 70: 0.5}}, {})
    said = cell_run({}, result='{"pretrain_steps_done": 40.0}')
    assert said.pretrain_steps == 40
    assert cell_run({}).pretrain_steps == 0
    assert CellRun(cell_run({}, **{"pretrain.steps": 25}).run, {}, done).pretrain_steps == 25
    assert CellRun(cell_run({}).run, {}, done).pretrain_steps == 70


def test_a_nan_is_an_empty_cell(study, deliver, export):
    cell = study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.enter(cell, "rl", "rl-ppo-s0").journal
    journal.metrics(6, {"value/explained_variance": math.nan})
    cell.update(state="done", finished=STARTED + 60)
    deliver()
    (row,) = [row for row in export()["curves.csv"] if row["metric"] == "value/explained_variance"]
    assert row["value"] == ""
