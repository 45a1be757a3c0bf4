"""A study is exported from its folder or from a server, alike, and the right one of several."""

import csv
import getpass
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from exports import ACCURACIES, LENGTHS, Rows, four_cells, rows_of
from fake_study import FakeStudy, iterate
from mlflow_server import Server

from vcppo.cli.export import export_from_mlflow
from vcppo.cli.main import main
from vcppo.errors import DataError, StudyError
from vcppo.store.cell_folders import State
from vcppo.system.processes import locked
from vcppo.tracking import from_disk, from_mlflow
from vcppo.tracking.export import export
from vcppo.tracking.mlflow_client import MlflowStore
from vcppo.tracking.uploader import Uploader


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def deliver(database: str, study: FakeStudy, request: pytest.FixtureRequest) -> Callable[[], None]:
    def call() -> None:
        uploader = Uploader(study.out, study.name, database, request.node.name)
        uploader.send()
        uploader.close()

    return call


@pytest.fixture
def imported(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., dict[str, Rows]]:
    """Exports this test's experiment; rows by file name."""

    def call(**options: Any) -> dict[str, Rows]:
        measured = from_mlflow.read_study(database, request.node.name, **options)
        return rows_of(export(measured, tmp_path / "results"))

    return call


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


@pytest.mark.long
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
