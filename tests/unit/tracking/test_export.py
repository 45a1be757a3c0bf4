import csv
import dataclasses
import getpass
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from fake_study import PROVENANCE, STARTED, FakeStudy, iterate, positions
from mlflow_server import Server

from vcppo.cli.export import export_from_mlflow
from vcppo.cli.main import main
from vcppo.errors import DataError, DiskError, StudyError
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import State
from vcppo.system.processes import locked
from vcppo.tracking import from_disk, from_mlflow
from vcppo.tracking.export import LEFT_OUT, export, responses_behind, scores
from vcppo.tracking.measured import MeasuredCell, Pretraining
from vcppo.tracking.mlflow_client import MlflowStore, Point
from vcppo.tracking.table_files import as_csv, write_files
from vcppo.tracking.uploader import Uploader

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
        uploader = Uploader(study.out, study.name, database, request.node.name)
        uploader.send()
        uploader.close()

    return call


def rows_of(paths: list[Path]) -> dict[str, Rows]:
    """Rows by file name, every cell as the text that it has in CSV."""
    return {path.name: list(csv.DictReader(text_of(path).splitlines())) for path in paths}


def text_of(path: Path) -> str:
    if path.suffix == ".csv":
        return path.read_text()
    table = pq.read_table(path)
    values = table.column("value").to_numpy().astype(str)  # of float32: seven digits
    texts = ["" if value == "nan" else value for value in values]
    return str(table.set_column(table.column_names.index("value"), "value", [texts]).to_pandas().to_csv(index=False))


@pytest.fixture
def exported(study: FakeStudy, tmp_path: Path) -> Callable[..., dict[str, Rows]]:
    """Exports this test's study from its folder; rows by file name."""

    def call(*, allow_incomplete: bool = False, metrics: tuple[str, ...] = ()) -> dict[str, Rows]:
        measured = from_disk.read_study(study.out, study.name, allow_incomplete=allow_incomplete)
        return rows_of(export(measured, tmp_path / "results", metrics=metrics))

    return call


@pytest.fixture
def imported(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., dict[str, Rows]]:
    """Exports this test's experiment; rows by file name."""

    def call(**options: Any) -> dict[str, Rows]:
        measured = from_mlflow.read_study(database, request.node.name, **options)
        return rows_of(export(measured, tmp_path / "results"))

    return call


def four_cells(study: FakeStudy) -> None:
    for arm in ("vcppo", "ppo"):
        for seed in (1, 0):
            study.finished_cell(f"{arm}-s{seed}", arm=arm, seed=seed, accuracies=ACCURACIES, lengths=LENGTHS)


def test_runs_csv_has_a_row_a_run_in_order_with_its_scores(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    four_cells(study)
    rows = exported()["runs.csv"]
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
    assert row["run_id"] == "ppo-s0"  # no tracking server has named it


def test_the_curves_are_of_rl_evaluation_and_the_pretraining_that_the_critic_has_seen(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    rows = exported()["curves.parquet"]
    of = {
        name: [(row["step"], row["value"]) for row in rows if row["metric"] == name]
        for name in {r["metric"] for r in rows}
    }
    assert of["rollout/accuracy"] == [(str(step), str(value)) for step, value in enumerate(ACCURACIES)]
    assert of["pretrain/loss"] == [("10", "0.1"), ("20", "0.05")]  # its journal goes on to 30, for others
    assert of["eval/digits/pass_at_4"] == [("6", "0.5")]
    assert of.keys() == {name for name in written_metrics(study) if not name.startswith("system/")}
    assert "time/other_s" in of
    assert rows == sorted(rows, key=lambda row: (row["metric"], int(row["step"])))


def test_metrics_that_the_docs_say_to_watch_are_there_and_so_is_what_nobody_thought_of(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    cell = study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.enter(cell, "rl", "rl-ppo-s0").journal
    watched = {"mismatch/kl": 0.1, "verify/no_answer_rate": 0.2, "later/thought_of": 0.3}
    journal.metrics(6, watched)
    assert watched.keys() <= {row["metric"] for row in exported()["curves.parquet"]}


def test_patterns_choose_metrics_and_what_is_left_out_can_be_asked_for(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    every = {row["metric"] for row in exported(metrics=("*",))["curves.parquet"]}
    assert every == written_metrics(study)
    assert "system/rss_mb" in every
    few = {row["metric"] for row in exported(metrics=("eval/*", "rollout/accuracy"))["curves.parquet"]}
    assert few == {name for name in every if name.startswith("eval/") or name == "rollout/accuracy"}


def test_the_help_says_what_is_left_out() -> None:
    told = " ".join(CliRunner().invoke(main, ["export", "--help"]).output.split())
    assert LEFT_OUT
    assert all(f"all but '{pattern}'" in told for pattern in LEFT_OUT)


def test_positions_and_calibration_come_from_both_stages(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    files = exported()
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


def test_problems_csv_is_the_final_evaluation(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    rows = exported()["problems.csv"]
    keys = ("arm", "seed", "problem", "samples", "correct", "unreadable", "length_tokens", "n")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        ("ppo", "0", "p0", "4", "3", "0", "80.0", "4"),
        ("ppo", "0", "p1", "4", "0", "1", "100.0", "4"),
    ]


def test_every_row_says_where_it_comes_from(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    four_cells(study)
    for rows in exported().values():
        assert rows
        for row in rows:
            assert row["origin"] == "measured"
            assert row["run_id"]
            assert row["commit"]
            assert row["settings_hash"]
            assert (row["base_seed"], row["seed"]) in {("0", "0"), ("0", "1")}
            assert int(row["n"]) > 0


def test_an_export_again_is_the_same_to_the_byte_and_leaves_nothing_behind(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path
) -> None:
    four_cells(study)
    exported()
    before = {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()}
    exported()
    assert {path.name: path.read_bytes() for path in (tmp_path / "results").iterdir()} == before
    assert sorted(before) == ["calibration.csv", "curves.parquet", "positions.csv", "problems.csv", "runs.csv"]


def test_runs_of_several_bases_are_told_apart(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    for name, base, seed in (("ppo-b2-s0", 2, 0), ("ppo-s1", 0, 1), ("ppo-s0", 0, 0)):
        cell = study.finished_cell(name, arm="ppo", seed=seed, accuracies=ACCURACIES, lengths=LENGTHS)
        settings = override(cell.settings(), {"base_seed": base})
        (cell.path / "settings.json").write_text(json.dumps(settings.model_dump(mode="json")))
    files = exported()
    assert [(row["cell"], row["base_seed"]) for row in files["runs.csv"]] == [
        ("ppo-s0", "0"),
        ("ppo-s1", "0"),
        ("ppo-b2-s0", "2"),
    ]
    for rows in files.values():
        assert {(row["base_seed"], row["seed"]) for row in rows} == {("0", "0"), ("0", "1"), ("2", "0")}
        assert list(rows[0])[list(rows[0]).index("base_seed") + 1] == "seed"


def test_a_base_that_is_swept_has_one_column(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.cell("x", state="failed", error="x", swept={"base_seed": 3})
    (row,) = exported()["runs.csv"]
    assert (row["base_seed"], list(row).count("base_seed")) == ("3", 1)


def test_a_study_of_200_runs_has_curves_of_a_few_megabytes(tmp_path: Path) -> None:
    """A tenth of it here: 20 runs, 50 iterations, 60 metrics."""
    draw = random.Random(0)
    names = ("study", "arm", "base_seed", "seed", "step", "metric", "value", "run_id", "n", "origin")
    rows = (
        dict(
            zip(
                names,
                ("x", "vcppo", 0, run, step, f"value/{name}", draw.gauss(0, 1), "5" * 32, 96, "measured"),
                strict=True,
            )
        )
        for run in range(20)
        for name in range(60)
        for step in range(50)
    )
    write_files(tmp_path, {"curves.parquet": (names, rows)})
    assert (tmp_path / "curves.parquet").stat().st_size < 600_000
    assert pq.read_metadata(tmp_path / "curves.parquet").num_rows == 60_000


def test_a_failed_cell_has_its_error_and_no_scores(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    cell = study.cell("ppo-s0", state="failed", error="TrainingError: ratio, 1e5")
    stage = study.enter(cell, "rl", "a")
    iterate(stage.journal, 0)
    study.cell("ppo-s1", seed=1, state="pruned")
    files = exported()
    failed, pruned = files["runs.csv"]
    assert (failed["status"], failed["error"], failed["steps"]) == ("failed", "TrainingError: ratio, 1e5", "1")
    assert failed["final_accuracy"] == failed["avg_at_k"] == failed["n"] == ""
    assert pruned["status"] == "pruned"
    assert files["curves.parquet"] == files["positions.csv"] == []


def test_swept_settings_are_columns_by_their_dotted_names(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    for seed, value in ((0, 0.9), (1, None)):
        swept = {"gae.lambda_critic": 0.9, "gae.length_adaptive_alpha": value}
        study.cell(f"x-s{seed}", state="failed", error="x", seed=seed, swept=swept)
    rows = exported()["runs.csv"]
    assert [(row["gae.lambda_critic"], row["gae.length_adaptive_alpha"]) for row in rows] == [
        ("0.9", "0.9"),
        ("0.9", ""),
    ]
    assert list(rows[0])[8:11] == ["steps", "gae.lambda_critic", "gae.length_adaptive_alpha"]


def test_cells_that_share_a_pretraining_each_have_its_rows(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]]
) -> None:
    for name, ran in (("a", True), ("b", False)):
        cell = study.finished_cell(name, arm=name, seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
        stages = [stage.model_dump() for stage in cell.read().stages]
        stages[0] |= {"address": "pre-a", "ran": ran}
        cell.update(stages=stages)
    files = exported()
    for arm in ("a", "b"):
        steps = [
            row["step"] for row in files["curves.parquet"] if row["arm"] == arm and row["metric"] == "pretrain/loss"
        ]
        assert steps == ["10", "20"]
        tables = [row for row in files["positions.csv"] if row["arm"] == arm and row["stage"] == "value-pretraining"]
        assert len(tables) == 6


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_study_with_holes_is_refused_with_their_names_unless_allowed(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path, state: State
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    study.cell("ppo-s1", state=state, seed=1)
    named = {"queued": "not begun", "running": "interrupted"}[state]  # nobody works on it any more
    with pytest.raises(StudyError, match=rf"components is incomplete, 1 of 2 cells missing: ppo-s1 \({named}\)"):
        exported()
    assert not (tmp_path / "results").exists()
    assert [row["cell"] for row in exported(allow_incomplete=True)["runs.csv"]] == ["ppo-s0"]


def written_metrics(study: FakeStudy) -> set[str]:
    """Of all journals."""
    lines = [line for path in study.out.rglob("journal.jsonl") for line in path.read_text().splitlines()]
    return {name for line in lines for name in json.loads(line).get("values", {})}


@pytest.fixture
def theirs(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., FakeStudy]:
    """Somebody else's study of the same name in this test's experiment: other folder, later start."""

    def make(folder: str, **cell: Any) -> FakeStudy:
        other = FakeStudy(tmp_path / folder)
        other.cell("theirs-s0", **{"state": "failed", "error": "x", **cell})
        time.sleep(0.01)
        uploader = Uploader(other.out, other.name, database, request.node.name)
        uploader.send()
        uploader.close()
        return other

    return make


def instance_of(study: FakeStudy) -> str:
    return str(json.loads((study.out / "studies" / study.name / "mlflow.json").read_text())["instance"])


def test_one_study_alone_needs_no_choice(
    study: FakeStudy, deliver: Callable[[], None], imported: Callable[..., dict[str, Rows]]
) -> None:
    study.cell("mine-s0", state="failed", error="x")
    deliver()
    assert [row["cell"] for row in imported()["runs.csv"]] == ["mine-s0"]


@pytest.mark.parametrize("others", [1, 2, 5])
def test_of_several_studies_of_a_name_none_is_taken_and_all_are_listed(
    study: FakeStudy,
    deliver: Callable[[], None],
    imported: Callable[..., dict[str, Rows]],
    theirs: Callable[..., FakeStudy],
    others: int,
    tmp_path: Path,
) -> None:
    study.cell("mine-s0", state="failed", error="x")
    study.cell("mine-s1", state="failed", error="x", seed=1)
    deliver()
    all_of_them = [study, *(theirs(f"other-{number}", state="running") for number in range(others))]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "runs.csv").write_text("what was there")
    with pytest.raises(StudyError, match=rf"holds {others + 1} studies 'components'") as caught:
        imported()
    for one in all_of_them:
        assert instance_of(one)[:12] in str(caught.value)
    assert f"by {getpass.getuser()}, 0 of 2 cells done" in str(caught.value)
    assert time.strftime("begun %Y-%m-%d ") in str(caught.value)
    assert [path.read_text() for path in (tmp_path / "results").iterdir()] == ["what was there"]
    for digits in (32, 12, 6):
        chosen = imported(instance=instance_of(study)[:digits])
        assert [row["cell"] for row in chosen["runs.csv"]] == ["mine-s0", "mine-s1"]


def test_an_instance_that_is_not_there_is_told_with_those_that_are(
    study: FakeStudy, deliver: Callable[[], None], imported: Callable[..., dict[str, Rows]]
) -> None:
    study.cell("mine-s0", state="failed", error="x")
    deliver()
    with pytest.raises(StudyError, match=rf"no study of the instance nope; it holds {instance_of(study)[:12]} \(begun"):
        imported(instance="nope")


def test_a_study_of_which_nothing_has_ended_leaves_the_files_that_are_there(
    study: FakeStudy,
    deliver: Callable[[], None],
    exported: Callable[..., dict[str, Rows]],
    imported: Callable[..., dict[str, Rows]],
    tmp_path: Path,
) -> None:
    study.cell("mine-s0", state="running")
    deliver()
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "curves.parquet").write_text("what was there")
    for reader in (imported, exported):
        with pytest.raises(StudyError, match=r"no cell of it has ended, so there is nothing to export"):
            reader(allow_incomplete=True)
    assert [path.read_text() for path in (tmp_path / "results").iterdir()] == ["what was there"]


@pytest.mark.parametrize("mine", ["failed", "pruned"])
def test_the_studys_folder_says_which_study_of_a_server_is_meant(
    study: FakeStudy,
    deliver: Callable[[], None],
    theirs: Callable[..., FakeStudy],
    database: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mine: State,
) -> None:
    """Whoever began later on the same server is somebody else."""
    monkeypatch.setattr("vcppo.tracking.uploader.default_experiment", lambda name: request.node.name)
    study.cell("mine-s0", state=mine)
    deliver()
    options: Any = {"tracking_uri": database, "allow_incomplete": True}
    for number in range(2):
        theirs(f"other-{number}", state="running")
        paths = export_from_mlflow(study.name, tmp_path / "results", out=study.out, **options)
        (row,) = csv.DictReader(paths[0].read_text().splitlines())
        assert (row["cell"], row["status"]) == ("mine-s0", mine)
    with pytest.raises(StudyError, match="holds 3 studies 'components'"):
        export_from_mlflow(study.name, tmp_path / "results", out=tmp_path / "nowhere", **options)
    other = instance_of(theirs("one-more"))
    paths = export_from_mlflow(study.name, tmp_path / "theirs", out=study.out, instance=other[:8], **options)
    assert "theirs-s0" in paths[0].read_text()


def test_a_folder_that_is_not_there_or_has_no_cells_is_told(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"no such folder; give the --out .*, or --from-mlflow"):
        exported()
    (study.out / "studies" / study.name).mkdir(parents=True)
    with pytest.raises(StudyError, match="no cell of study components has begun"):
        exported(allow_incomplete=True)
    assert not (tmp_path / "results").exists()


def test_a_study_that_is_worked_on_says_running(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.cell("ppo-s0", state="running")
    with (
        locked(study.out / "studies" / study.name),
        pytest.raises(StudyError, match=r"1 of 1 cells missing: ppo-s0 \(running\); run the study to its end"),
    ):
        exported()


def test_a_broken_journal_is_told_with_its_line(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.out / "cache" / "rl" / "rl-ppo-s0" / "journal.jsonl"
    journal.write_text("{\n" + journal.read_text())
    with pytest.raises(DataError, match="line 1: not a journal record"):
        exported()


def test_a_server_has_what_the_disk_has_to_the_byte(
    study: FakeStudy, deliver: Callable[[], None], database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    four_cells(study)
    cell = study.finished_cell("truth-s0", arm="truth", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    truth: dict[str, list[Any]] = {
        "answer": [3],
        "position": [1],
        "fraction": [0.5],
        "truth": [0.25],
        "estimate": [0.1 + 0.2],
        "samples": [0],
    }
    study.enter(cell, "rl", "rl-truth-s0").journal.table("true_values", 2, truth)
    failed = study.cell("failed-s0", arm="failed", state="failed", error="x, y", swept={"gae.lambda_actor": 0.9})
    iterate(study.enter(failed, "rl", "a").journal, 0)
    study.cell("pruned-s1", arm="failed", seed=1, state="pruned")
    deliver()
    export(from_disk.read_study(study.out, study.name), tmp_path / "disk", metrics=("*",))
    export(from_mlflow.read_study(database, request.node.name), tmp_path / "server", metrics=("*",))
    files = {path.name: path.read_bytes() for path in (tmp_path / "disk").iterdir()}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "server").iterdir()}
    assert len(files) == 6
    (row,) = csv.DictReader(files["truth.csv"].decode().splitlines())
    assert row["n"] == "0"  # computed


def test_a_run_is_called_by_its_cell_until_mlflow_has_given_it_an_id(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], deliver: Callable[[], None]
) -> None:
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    before = exported()["runs.csv"][0]
    assert before["run_id"] == "ppo-s0"
    deliver()
    after = exported()["runs.csv"][0]
    assert len(after["run_id"]) == 32
    assert {**after, "run_id": "ppo-s0"} == before


def test_without_mlflow_the_files_are_the_same(
    study: FakeStudy, exported: Callable[..., dict[str, Rows]], tmp_path: Path
) -> None:
    four_cells(study)
    exported()
    absent = "import sys; sys.modules['mlflow'] = None; from vcppo.cli.main import main; main()"
    words = ["export", study.name, "--out", str(study.out), "--to", str(tmp_path / "absent")]
    subprocess.run([sys.executable, "-c", absent, *words], check=True, capture_output=True)
    for path in (tmp_path / "results").iterdir():
        assert path.read_bytes() == (tmp_path / "absent" / path.name).read_bytes()


def test_what_would_be_ignored_is_refused() -> None:
    for flag in ("--instance", "--tracking-uri"):
        done = CliRunner().invoke(main, ["export", "components", flag, "abc"])
        assert done.exit_code == 2
        assert f"ConfigError: {flag} abc: it would be ignored, expected --from-mlflow beside it" in done.output


def test_an_experiment_with_several_studies_asks_for_one(
    study: FakeStudy,
    deliver: Callable[[], None],
    imported: Callable[..., dict[str, Rows]],
    database: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    study.cell("a-s0", state="failed", error="x")
    deliver()
    other = FakeStudy(tmp_path / "other", "lambda-grid")
    other.cell("b-s0", state="failed", error="x")
    uploader = Uploader(other.out, other.name, database, request.node.name)
    uploader.send()
    uploader.close()
    with pytest.raises(StudyError, match="holds the studies components, lambda-grid; name one"):
        imported()
    assert [row["cell"] for row in imported(study="lambda-grid")["runs.csv"]] == ["b-s0"]
    with pytest.raises(StudyError, match="holds no study 'nope'"):
        imported(study="nope")


def test_a_store_or_experiment_that_is_not_there_is_told_and_not_made(
    study: FakeStudy, deliver: Callable[[], None], database: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=r"none.db: no such file"):
        from_mlflow.read_study(f"sqlite:///{tmp_path}/none.db", "x")
    assert not (tmp_path / "none.db").exists()
    MlflowStore(database, "there", tmp_path)
    with pytest.raises(StudyError, match="no experiment 'nowhere'"):
        from_mlflow.read_study(database, "nowhere")
    with pytest.raises(StudyError, match="experiment 'there': holds no study of vcppo"):
        from_mlflow.read_study(database, "there")


def test_of_several_points_at_a_step_the_latest_counts() -> None:
    points = [Point("a", 1, 5.0, 200), Point("a", 1, 4.0, 100), Point("a", 0, 1.0, 0), Point("b", 1, 2.0, 0)]
    for seed in range(5):
        random.Random(seed).shuffle(points)
        assert from_mlflow.curves_of(points) == {"a": {0: 1.0, 1: 5.0}, "b": {1: 2.0}}


def test_floats_read_back_as_they_were() -> None:
    numbers = [random.Random(seed).uniform(-1, 1) * 10 ** (seed - 10) for seed in range(20)]
    text = as_csv(("x",), [{"x": number} for number in numbers])
    assert [float(row["x"]) for row in csv.DictReader(text.splitlines())] == numbers


def test_a_failing_export_leaves_the_old_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")

    def broken() -> Any:
        yield {"x": 1}
        raise StudyError("no")

    with pytest.raises(StudyError):
        write_files(tmp_path, {"a.csv": (("x",), [{"x": 1}]), "b.csv": (("x",), broken())})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


@pytest.mark.parametrize("broken", range(3))
def test_an_export_that_cannot_put_one_file_in_place_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    old = {"runs.csv": "old runs", "truth.csv": "old truth", "notes.txt": "mine"}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    calls, really = [], os.replace

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == broken + 1:
            raise PermissionError(13, "no")
        really(source, target)

    monkeypatch.setattr("vcppo.tracking.table_files.os.replace", replace)
    files = {name: (("step",), [{"step": 1}]) for name in ("runs.csv", "curves.parquet", "positions.csv")}
    with pytest.raises(DiskError, match="Permission denied"):
        write_files(tmp_path, files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_files_of_an_export_before_that_this_one_has_nothing_for_go_and_others_stay(tmp_path: Path) -> None:
    for name in ("runs.csv", "curves.csv", "truth.csv", "notes.csv"):
        (tmp_path / name).write_text("old")
    write_files(tmp_path, {"runs.csv": (("x",), [{"x": 1}])})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"runs.csv": "x\n1\n", "notes.csv": "old"}


def measured(curves: dict[str, dict[int, float]], **settings: Any) -> MeasuredCell:
    chosen = {"rollout.prompts": 10, "rollout.samples_per_prompt": 2, "evaluation.samples": 8, "task.held_out": 50}
    chosen |= {"policy.minibatches": 2, "evaluation.samples_during": 1, "pretrain.batch": 96, "pretrain.held_out": 384}
    made = override(RunSettings(), chosen | {"pretrain.steps": "converge"} | settings)
    return MeasuredCell("id", "cell", "arm", 0, "done", made, "hash", curves)


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
def test_n_is_the_number_of_responses_behind_a_point(metric: str, step: int, n: int) -> None:
    evaluations = {"eval/digits/length_tokens": {50: 1.0, 60: 2.0}, "eval/digits/avg_at_8": {60: 1.0}}
    cell = measured({"eval/digits/avg_at_1": {50: 0.5}, **evaluations})
    assert responses_behind(cell, metric, step) == n


@pytest.mark.parametrize(
    ("settings", "problems", "asked"),
    [
        ({}, {}, 50),  # a run that was stopped before its final evaluation
        ({"evaluation.problems": "search", "task.held_out_for_search": 30}, {}, 30),
        ({"evaluation.problems": "report", "task.held_out_for_search": 30}, {}, 50),
        ({}, {60: {"problem": ["a", "b"]}}, 2),  # mathematics: task.held_out is of digits
        ({}, {50: {"problem": ["a"]}, 60: {"problem": ["a", "b", "c"]}}, 3),
    ],
)
def test_the_number_of_problems_is_of_those_that_were_asked(
    settings: dict[str, Any], problems: dict[int, dict[str, list[Any]]], asked: int
) -> None:
    evaluations = {"eval/digits/avg_at_8": {60: 0.5}}
    cell = dataclasses.replace(measured(evaluations, **settings), tables={"problems": problems})
    assert scores(cell)["problems"] == asked
    assert responses_behind(cell, "eval/digits/avg_at_8", 60) == asked * 8


def test_the_evaluation_that_counts_is_the_one_with_all_samples() -> None:
    cell = measured({"eval/digits/avg_at_1": {50: 0.9}, "eval/digits/avg_at_8": {60: 0.5}})
    assert (scores(cell)["avg_at_k"], scores(cell)["k"]) == (0.5, 8)


def test_pretrain_steps_are_what_the_run_says_else_what_was_asked_else_what_was_done() -> None:
    done = Pretraining({"pretrain/loss": {10: 1.0, 70: 0.5}})
    assert dataclasses.replace(measured({}), result={"pretrain_steps_done": 40.0}).pretrain_steps == 40
    assert measured({}).pretrain_steps == 0
    assert dataclasses.replace(measured({}, **{"pretrain.steps": 25}), pretraining=done).pretrain_steps == 25
    assert dataclasses.replace(measured({}), pretraining=done).pretrain_steps == 70
    settled = Pretraining({"pretrain/held_out_loss": {0: 1.0, 10: 0.5, 20: 0.6, 100: 0.6, 110: 0.6, 120: 0.1}})
    assert dataclasses.replace(measured({}), pretraining=settled).pretrain_steps == 10  # waited for until 110


def test_a_nan_is_an_empty_cell(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    cell = study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.enter(cell, "rl", "rl-ppo-s0").journal
    journal.metrics(6, {"value/explained_variance": math.nan})
    cell.update(state="done", finished=STARTED + 60)
    (row,) = [row for row in exported()["curves.parquet"] if row["metric"] == "value/explained_variance"]
    assert row["value"] == ""


@pytest.mark.e2e
def test_two_users_of_one_server_at_once_each_get_their_own_study_and_a_third_is_asked(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server")
    server.start()

    def command(out: Path, to: Path, *more: str) -> list[str]:
        where = ["--from-mlflow", "--tracking-uri", server.uri, "--out", str(out), "--to", str(to)]
        return [sys.executable, "-m", "vcppo", "export", "components", *where, *more]

    try:
        studies = {user: FakeStudy(tmp_path / user) for user in ("ada", "bob")}
        studies["ada"].cell("ada-s0", state="failed", error="x")
        studies["bob"].cell("bob-s0", state="failed", error="x")
        studies["bob"].cell("bob-s1", state="running", seed=1)
        calls = [
            command(studies["ada"].out, tmp_path / "results-ada"),
            command(studies["bob"].out, tmp_path / "results-bob", "--allow-incomplete"),
        ]
        for one in studies.values():
            uploader = Uploader(one.out, one.name, server.uri)
            uploader.send()
            uploader.close()
        running = [subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for call in calls]
        for process in running:
            told, complained = process.communicate()
            assert (process.returncode, complained) == (0, "")
            assert told.count("written: ") == 5
        for user in studies:
            (row,) = csv.DictReader((tmp_path / f"results-{user}" / "runs.csv").read_text().splitlines())
            assert row["cell"] == f"{user}-s0"
        asked = subprocess.run(command(tmp_path / "none", tmp_path / "results-ada"), capture_output=True, text=True)
        assert asked.returncode == 2
        assert asked.stderr.startswith("StudyError: experiment 'vcppo/components': holds 2 studies 'components'")
        assert asked.stderr.count("\n") == 1
        assert all(instance_of(study)[:12] in asked.stderr for study in studies.values())
        assert "ada-s0" in (tmp_path / "results-ada" / "runs.csv").read_text()
    finally:
        server.kill()
