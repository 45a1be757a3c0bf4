import json
import math
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_study import PROVENANCE, STARTED, FakeStage, FakeStudy, iterate, positions, pretrain
from mlflow_server import Server, free_port
from odd_names import NAMES

from vcppo.cli.main import main
from vcppo.cli.stages import run_one
from vcppo.errors import ConfigError, TrackingError
from vcppo.maths.early_warning import RULES
from vcppo.settings.digests import settings_digest
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, State
from vcppo.store.journal import Journal, read_journal
from vcppo.store.study_folders import StudyFolder, read_object
from vcppo.system.processes import locked
from vcppo.system.provenance import git_state, hardware, provenance, versions
from vcppo.system.redaction import redacted
from vcppo.tracking.from_mlflow import read_study as read_from_mlflow
from vcppo.tracking.mlflow_client import LONGEST_TAG, MlflowStore, Run, from_split, to_split
from vcppo.tracking.mlflow_entities import as_params, list_tables, points_of
from vcppo.tracking.position_figure import position_figure
from vcppo.tracking.uploader import Uploader, default_tracking_uri

ACCURACIES = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
LENGTHS = [100.0, 50.0, 20.0, 30.0, 40.0, 50.0]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests: making one takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    MlflowStore(uri, "first", tmp_path_factory.mktemp("artifacts"))
    return uri


@pytest.fixture
def study(tmp_path: Path) -> Iterator[FakeStudy]:
    """A study that this process holds, as whoever runs one does."""
    study = FakeStudy(tmp_path / "out")
    with locked(study.out / "studies" / study.name):
        yield study


@pytest.fixture
def uploader(database: str, study: FakeStudy, request: pytest.FixtureRequest) -> Iterator[Callable[[], Uploader]]:
    """Makes uploaders to an experiment of this test alone; each is the study's next process, the one before is gone."""
    made: list[Uploader] = []

    def make() -> Uploader:
        for before in made:
            before.close(10)
        made.append(Uploader(study.out, study.name, database, request.node.name))
        return made[-1]

    yield make
    for one in made:
        one.close(10)


@pytest.fixture
def runs(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., list[Run]]:
    """The runs of this test's experiment with these tags."""

    def find(**tags: str) -> list[Run]:
        store = MlflowStore(database, request.node.name, tmp_path / "out" / "mlartifacts")
        return store.find({"vcppo.kind" if name == "kind" else name: value for name, value in tags.items()})

    return find


@pytest.fixture
def store(database: str, request: pytest.FixtureRequest, tmp_path: Path) -> MlflowStore:
    return MlflowStore(database, request.node.name, tmp_path / "out" / "mlartifacts")


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for never came"
        time.sleep(0.02)


def first_news(uploader: Uploader) -> list[str]:
    deadline = time.monotonic() + 30
    while not (news := uploader.news()):
        assert time.monotonic() < deadline, "no news came"
        time.sleep(0.02)
    return news


def values(store: MlflowStore, run: Run, metric: str) -> list[tuple[int, float]]:
    """(step, value) of every stored point, as often as it is stored."""
    return sorted((point.step, point.value) for point in store.points(run, [metric]))


def finished(study: FakeStudy, name: str = "ppo-s0") -> CellFolder:
    return study.finished_cell(name, arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)


def later(journal: Path, seconds: float) -> None:
    """As a resumed stage writes the same records again: other times, other measured durations."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        record["time"] += seconds
        if "time/update_s" in record.get("values", {}):
            record["values"]["time/update_s"] += 1.0
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))


class TestWhatMlflowIsTold:
    def test_a_cell_is_a_run_below_its_study_with_every_point_of_its_journals(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        finished(study)
        assert uploader().send() == 6 + 8 + 2
        (parent,) = runs(kind="study")
        (child,) = runs(kind="cell")
        assert child.tags["mlflow.parentRunId"] == parent.id
        assert child.tags["mlflow.runName"] == "ppo-s0"
        assert values(store, child, "rollout/accuracy") == list(enumerate(ACCURACIES))
        assert values(store, child, "eval/digits/avg_at_4") == [(6, 0.375)]
        assert (child.status, parent.status) == ("FINISHED", "FINISHED")
        assert child.started_ms == STARTED * 1000

    def test_points_carry_the_journals_time(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0")
        stage = study.enter(cell, "rl", "a")
        iterate(stage.journal, 1)
        written = json.loads((stage.folder / "journal.jsonl").read_text())["time"]
        uploader().send()
        (point,) = store.points(runs(kind="cell")[0], ["policy/loss"])
        assert point.time_ms == int(written * 1000)

    def test_every_resolved_setting_is_a_parameter_and_the_settings_file_an_artifact(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = finished(study)
        uploader().send()
        (child,) = runs(kind="cell")
        settings = cell.settings().model_dump(mode="json")
        assert child.params == as_params(settings)
        assert child.params["gae.lambda_actor"] == "0.95"
        assert child.params["pretrain.steps"] == "converge"
        assert json.loads(str(store.read(child, "settings.json"))) == settings

    def test_tags_say_what_was_run_and_where(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        cell = finished(study)
        uploader().send()
        tags = runs(kind="cell")[0].tags
        expected = {
            "arm": "ppo",
            "base_seed": "0",
            "seed": "0",
            "study": "components",
            "cell": "ppo-s0",
            "state": "done",
            "cached": "false",
        }
        assert expected.items() <= tags.items()
        assert tags["settings_hash"] == cell.settings().digest()
        assert (tags["commit"], tags["dirty"]) == (PROVENANCE["commit"], "false")
        assert json.loads(tags["versions"]) == PROVENANCE["versions"]
        assert json.loads(tags["hardware"]) == PROVENANCE["hardware"]

    def test_a_tag_says_which_early_warning_came_when(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        finished(study)
        (path,) = (study.out / "cache" / "rl").glob("*/journal.jsonl")
        uploader().send()
        assert "early_warning" not in runs(kind="cell")[0].tags
        for step, rules in enumerate(({}, {"truncation": 1.0}, {"truncation": 1.0, "alignment": 1.0})):
            Journal(path).metrics(step, {f"early_warning/{rule}": rules.get(rule, 0.0) for rule in RULES})
        uploader().send()
        (child,) = runs(kind="cell")
        assert child.tags["early_warning"] == "truncation since iteration 1, alignment since iteration 2"

    def test_tables_are_artifacts_that_the_ui_knows_as_tables(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        finished(study)
        uploader().send()
        (child,) = runs(kind="cell")
        table = store.tables(child, "critic_by_position")[0]
        assert table["value_mean"] == positions()["value_mean"]
        assert table["explained_variance"] == [0.5, None, 0.0]
        listed = json.loads(child.tags["mlflow.loggedArtifacts"])
        assert {"path": "tables/critic_by_position/000000.json", "type": "table"} in listed
        assert {"path": "tables/problems/000006.json", "type": "table"} in listed

    def test_mlflow_itself_loads_the_tables(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        database: str,
        request: pytest.FixtureRequest,
    ) -> None:
        finished(study)
        uploader().send()
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=database)
        folder = Path(client.download_artifacts(runs(kind="cell")[0].id, "tables/problems"))
        frame = client._read_from_file(str(folder / "000006.json"))
        assert list(frame["correct"]) == [3, 0]

    def test_a_finished_cell_has_a_figure_of_the_critic_by_position(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], database: str
    ) -> None:
        finished(study)
        uploader().send()
        (child,) = runs(kind="cell")
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=database)
        figure = Path(client.download_artifacts(child.id, "figures/critic_by_position.png"))
        assert figure.read_bytes()[:4] == b"\x89PNG"

    def test_a_stage_that_the_cell_ran_is_a_run_below_it(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        finished(study)
        uploader().send()
        (child,) = runs(kind="cell")
        (stage,) = runs(kind="stage")
        assert stage.tags["mlflow.parentRunId"] == child.id
        assert (stage.tags["stage"], stage.tags["cached"], stage.status) == ("value-pretraining", "false", "FINISHED")
        assert stage.params == {"seed": "0"}
        assert values(store, stage, "pretrain/loss") == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
        assert sorted(store.tables(stage, "critic_by_position")) == [10, 20, 30]

    def test_nan_stays_nan(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        stage = study.enter(study.cell("ppo-s0"), "rl", "a")
        stage.journal.metrics(0, {"value/explained_variance": float("nan")})
        uploader().send()
        (point,) = store.points(runs(kind="cell")[0], ["value/explained_variance"])
        assert math.isnan(point.value)

    @pytest.mark.parametrize(("state", "status"), [("failed", "FAILED"), ("pruned", "KILLED")])
    def test_a_cell_that_did_not_finish_says_how(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        state: State,
        status: str,
    ) -> None:
        study.cell("ppo-s0", state=state, error="TrainingError: ratio 1e5 at step 3" if state == "failed" else None)
        uploader().send()
        (child,) = runs(kind="cell")
        assert (child.status, child.tags["state"]) == (status, state)
        assert child.tags["pruned"] == str(state == "pruned").lower()
        assert child.tags["error"] == ("TrainingError: ratio 1e5 at step 3" if state == "failed" else "")

    def test_a_queued_cell_has_no_run_but_the_study_knows_of_it(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        finished(study)
        study.cell("ppo-s1", state="queued", seed=1)
        uploader().send()
        assert [run.tags["cell"] for run in runs(kind="cell")] == ["ppo-s0"]
        (parent,) = runs(kind="study")
        assert json.loads(str(store.read(parent, "cells.json"))) == ["ppo-s0", "ppo-s1"]
        assert parent.status == "RUNNING"

    def test_a_stage_shared_by_two_cells_has_one_run_below_the_cell_that_computed_it(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        for name, ran in (("a", False), ("b", True)):
            cell = study.cell(name, arm=name)
            stage = study.enter(cell, "value-pretraining", "shared", ran=ran)
            study.enter(cell, "rl", f"rl-{name}")
        pretrain(stage.journal, steps=[10])
        uploader().send()
        (stage_run,) = runs(kind="stage")
        (b,) = runs(cell="b", kind="cell")
        assert stage_run.tags["mlflow.parentRunId"] == b.id

    def test_what_one_cell_delivers_of_a_shared_stage_counts_for_the_other(
        self, study: FakeStudy, uploader: Callable[[], Uploader]
    ) -> None:
        carrier = uploader()
        computing, sharing = study.cell("b-s0"), study.cell("a-s0")
        stage = study.enter(computing, "value-pretraining", "shared")
        pretrain(stage.journal, steps=[10])
        carrier.send()
        pretrain(stage.journal, steps=[20])
        study.enter(sharing, "value-pretraining", "shared", ran=False)  # is looked at first, and delivers the rest
        carrier.send()
        assert carrier.missing() == 0

    def test_a_study_wholly_from_the_cache_is_as_complete_in_mlflow_and_says_cached(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = finished(study)
        cell.update(stages=[{**stage.model_dump(), "ran": False} for stage in cell.read().stages])
        uploader().send()
        (child,) = runs(kind="cell")
        assert child.tags["cached"] == "true"
        assert values(store, child, "rollout/accuracy") == list(enumerate(ACCURACIES))
        (stage,) = runs(kind="stage")
        assert stage.tags["cached"] == "true"
        assert len(values(store, stage, "pretrain/loss")) == 3


class TestSingleRuns:
    def test_sigterm_ends_cell_and_run_as_ctrl_c_does(
        self, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def stopped_by_its_scheduler(cell: Path, out: Path, *, until: str) -> dict[str, float]:
            CellFolder(cell).add_stage("rl", "a", ran=True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
            return {}

        monkeypatch.setattr("vcppo.stages.pipeline.run_cell", stopped_by_its_scheduler)
        monkeypatch.setattr("vcppo.cli.stages.CLOSE_TIMEOUT_AFTER_CTRL_C_S", 120.0)
        before = signal.getsignal(signal.SIGTERM)
        out = tmp_path / "out"
        assert run_one("train", RunSettings(), out, until="evaluation", tracking_uri=database) == 130
        assert signal.getsignal(signal.SIGTERM) == before
        (cell,) = StudyFolder(out, "train").cells()
        assert cell.read().state == "queued"
        instance = read_object(out / "studies/train/mlflow.json")["instance"]
        found = MlflowStore(database, "vcppo/train").find({"vcppo.instance": instance})
        assert {run.tags["vcppo.kind"]: run.status for run in found}["cell"] == "KILLED"
        assert "the same command goes on" in capsys.readouterr().out

    def test_a_run_of_another_process_goes_on_when_ours_ends(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        ours, theirs = study.cell("ours"), study.cell("theirs")
        for cell in (ours, theirs):
            iterate(study.enter(cell, "rl", cell.path.name).journal, 0)
        with locked(theirs.path):
            one = uploader()
            one.start()
            assert one.close(30) == 0
        assert {run.tags["cell"]: run.status for run in runs(kind="cell")} == {"ours": "KILLED", "theirs": "RUNNING"}
        assert [run.status for run in runs(kind="study")] == ["RUNNING"]

    @pytest.mark.parametrize("arm", ["a/b", "../../evil", ".hidden", "two\nlines"])
    def test_an_arm_that_would_leave_its_folder_is_refused(self, arm: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="it names a folder; expected no /"):
            run_one("train", RunSettings(arm=arm), tmp_path / "out", until="evaluation", tracking_uri=None)
        assert os.listdir(tmp_path) == []


class TestRepliesThatAreLost:
    def test_runs_that_were_made_twice_do_not_hide_the_study(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore, request: pytest.FixtureRequest
    ) -> None:
        finished(study)
        uploader().send()
        (parent,) = store.find({"vcppo.kind": "study"})
        tags = {"vcppo.instance": parent.tags["vcppo.instance"], "study": study.name}
        for started in (1.0, 2e9):  # before and after those that were described
            store.create(study.name, {**tags, "vcppo.kind": "study"}, started=started)
            store.create("ppo-s0", {**tags, "vcppo.kind": "cell", "cell": "ppo-s0"}, started=started)
            pretraining = {"vcppo.kind": "stage", "stage": "value-pretraining", "vcppo.address": "pre-ppo-s0"}
            store.create("value-pretraining", {**tags, **pretraining}, started=started)
        measured = read_from_mlflow(store.tracking_uri, request.node.name)
        assert [(cell.cell, cell.state) for cell in measured.cells] == [("ppo-s0", "done")]
        assert measured.cells[0].pretraining is not None
        assert measured.cells[0].pretraining.curves["pretrain/loss"]


class TestWhereFilesGo:
    def test_folders_that_share_a_database_file_keep_their_files_beside_it(
        self, database: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        for name in ("one", "two"):
            study = FakeStudy(tmp_path / name)
            finished(study)
            ours = Uploader(study.out, study.name, database, request.node.name)
            assert ours.send() == 16
            assert ours.close() == 0
            assert not (study.out / "mlartifacts").exists()
        store = MlflowStore(database, request.node.name)
        for run in store.find({"vcppo.kind": "cell"}):
            assert store.tables(run, "problems")[6]["correct"] == [3, 0]

    def test_files_of_another_folder_are_refused_in_one_line(self, database: str, tmp_path: Path) -> None:
        """As where earlier versions, or another machine with a database on a server, began the experiment."""
        from mlflow import MlflowClient

        first, second = FakeStudy(tmp_path / "first"), FakeStudy(tmp_path / "second")
        theirs = (first.out / "mlartifacts").as_uri()
        MlflowClient(tracking_uri=database).create_experiment("of the first", artifact_location=theirs)
        for study in (first, second):
            finished(study)
        one = Uploader(first.out, first.name, database, "of the first")
        assert one.send() == 16
        assert one.close() == 0
        other = Uploader(second.out, second.name, database, "of the first")
        with pytest.raises(TrackingError, match=r"keeps the files of its runs in .*first/mlartifacts, the folder of"):
            other.send()
        assert other.missing() > 0
        shutil.rmtree(first.out / "mlartifacts")
        with pytest.raises(TrackingError, match="which is not on this machine; export where it is"):
            read_from_mlflow(database, "of the first")


class TestNewsWhileItMatters:
    def test_a_server_that_is_away_is_reported_once_and_when_it_is_back(
        self, study: FakeStudy, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        back = threading.Event()
        tries: list[str] = []

        def away(uri: str, experiment: str, artifacts: Path) -> MlflowStore:
            tries.append(uri)
            if not back.is_set():
                raise TrackingError("nobody is there")
            return MlflowStore(uri, experiment, artifacts)

        monkeypatch.setattr("vcppo.tracking.uploader.FIRST_RETRY_S", 0.01)
        monkeypatch.setattr("vcppo.tracking.uploader.MlflowStore", away)
        finished(study)
        uploader = Uploader(study.out, study.name, database, "news")
        uploader.start()
        gone = "MLflow has not received what is new (nobody is there); runs go on, and their records wait on disk"
        assert first_news(uploader) == [gone]
        until(lambda: len(tries) > 3)
        assert uploader.news() == []
        back.set()
        until(lambda: uploader.status == "delivered")
        assert uploader.news() == [f"MLflow at {database} is back, and has everything"]
        assert uploader.close(30) == 0

    def test_a_server_that_never_replies_is_named_as_such(
        self, study: FakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vcppo.tracking.uploader.SILENT_S", 0.2)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        finished(study)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            uploader = Uploader(study.out, study.name, uri)
            uploader.start()
            heard = first_news(uploader)
            assert heard[0].startswith(f"MLflow at {uri} has not replied for 0 s; runs go on")
            assert uploader.close(0.1) == 17
            other = Uploader(study.out, "another", uri)  # of the same folder: it does not wait for the first
            other.start()
            assert other.close(0.1) == 0
            assert uploader.close(30) == 17

    def test_the_advice_to_replay_delivers_to_the_same_place(self, tmp_path: Path) -> None:
        out = tmp_path / "my runs"
        here = Uploader(out, "a", default_tracking_uri(out))
        assert shlex.split(here.replay_command) == ["vcppo", "track", "replay", "a", "--out", str(out)]
        there = Uploader(out, "a", "http://host:5000")
        assert shlex.split(there.replay_command)[-2:] == ["--tracking-uri", "http://host:5000"]
        secret = Uploader(out, "a", "http://ada:secret1@host:5000").replay_command
        assert "secret1" not in secret
        assert "MLFLOW_TRACKING_URI" in secret


class TestNothingIsLostAndNothingIsDoubled:
    def test_what_is_written_later_is_delivered_later_and_once(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        stage = study.enter(study.cell("ppo-s0"), "rl", "a")
        iterate(stage.journal, 0)
        ours = uploader()
        assert ours.send() == 3
        assert ours.missing() == 0
        iterate(stage.journal, 1)
        assert ours.missing() == 1
        assert ours.send() == 1
        assert ours.send() == 0
        assert values(store, runs(kind="cell")[0], "policy/loss") == [(0, 0.0), (1, -0.25)]

    def test_a_line_being_written_waits_until_it_is_whole(
        self, study: FakeStudy, uploader: Callable[[], Uploader]
    ) -> None:
        stage = study.enter(study.cell("ppo-s0"), "rl", "a")
        iterate(stage.journal, 1)
        line = (stage.folder / "journal.jsonl").read_text()
        with open(stage.folder / "journal.jsonl", "a") as file:
            file.write(line[:20])
            file.flush()
            ours = uploader()
            assert ours.send() == 1
            file.write(line[20:])
        assert ours.send() == 1

    def test_a_stage_that_is_resumed_says_nothing_twice(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        stage = study.enter(study.cell("ppo-s0"), "rl", "a")
        for step in range(1, 6):
            iterate(stage.journal, step)
        ours = uploader()
        assert ours.send() == 5
        stage.journal.truncate(2)
        ours.send()
        for step in range(3, 8):
            iterate(stage.journal, step)
        ours.send()
        assert ours.missing() == 0
        (child,) = runs(kind="cell")
        assert [step for step, _ in values(store, child, "policy/loss")] == list(range(1, 8))
        stored = {(point.name, point.step, point.value, point.time_ms) for point in store.points(child, child.metrics)}
        assert stored == {(p.name, p.step, p.value, p.time_ms) for p in points_of(read_journal(stage.journal.path))}

    @pytest.mark.parametrize("resumed", [False, True])
    def test_an_uploader_killed_before_it_noted_what_it_delivered_doubles_nothing(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        resumed: bool,
    ) -> None:
        finished(study)
        uploader().send()
        ledger = study.out / "studies" / study.name / "mlflow.json"
        ledger.write_text(json.dumps({**json.loads(ledger.read_text()), "runs": {}}))
        if resumed:
            for journal in study.out.rglob("journal.jsonl"):
                later(journal, 100.0)
        uploader().send()
        (child,) = runs(kind="cell")
        (stage,) = runs(kind="stage")
        for run in (child, stage):
            stored = store.points(run, run.metrics)
            assert max(Counter((point.name, point.step) for point in stored).values()) == 1
        assert len(values(store, child, "time/update_s")) == 6

    @pytest.mark.parametrize(("call", "times"), [("create_run", 1), ("log_batch", 3), ("log_artifacts", 2)])
    def test_a_reply_of_the_server_that_never_arrives_doubles_nothing(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
        times: int,
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        finished(study)
        ours = uploader()
        ours.send()
        study.enter(study.cell("ppo-s1", seed=1), "rl", "b").journal.metrics(1, {"policy/loss": 1.0})
        really = getattr(MlflowClient, call)

        def lost(*arguments: Any, **named: Any) -> None:
            really(*arguments, **named)
            raise MlflowException("connection reset")

        for _ in range(times):  # with three calls lost, those with settings, tags and points each were one
            monkeypatch.setattr(MlflowClient, call, lost)
            with pytest.raises(TrackingError, match="connection reset"):
                ours.send()
            monkeypatch.setattr(MlflowClient, call, really)
            later(study.out / "cache" / "rl" / "b" / "journal.jsonl", 100.0)
        ours.send()
        assert sorted(run.tags["cell"] for run in runs(kind="cell")) == ["ppo-s0", "ppo-s1"]
        (child,) = runs(cell="ppo-s1")
        assert values(store, child, "policy/loss") == [(1, 1.0)]

    def test_whatever_call_a_process_is_killed_in_the_next_one_leaves_what_the_journals_have(
        self, tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlflow import MlflowClient

        calls, deadly = Counter[str](), (0, False)
        for name in ("create_run", "log_batch", "log_artifacts", "set_terminated", "delete_run"):
            really = getattr(MlflowClient, name)

            def call(*arguments: Any, _really: Any = really, **named: Any) -> Any:
                calls["all"] += 1
                if calls["all"] == deadly[0] and not deadly[1]:
                    raise KeyboardInterrupt
                done = _really(*arguments, **named)
                if calls["all"] == deadly[0]:
                    raise KeyboardInterrupt
                return done

            monkeypatch.setattr(MlflowClient, name, call)
        for number in range(1, 100, 2):  # of its calls, before and after the store has heard it
            study = FakeStudy(tmp_path / str(number))
            stage = study.enter(study.cell("ppo-s0"), "value-pretraining", "shared")
            pretrain(stage.journal, steps=[10])
            journal = study.enter(
                CellFolder(study.out / "studies" / study.name / "cells" / "ppo-s0"), "rl", "a"
            ).journal
            iterate(journal, 0)
            calls.clear()
            deadly = (number, number % 4 == 1)
            killed = Uploader(study.out, study.name, database, f"killed-{number}")
            try:
                killed.send()
                finished_alive = True
            except KeyboardInterrupt:
                finished_alive = False
            deadly = (0, False)
            killed.close()
            iterate(journal, 1)
            CellFolder(study.out / "studies" / study.name / "cells" / "ppo-s0").update(state="done", finished=STARTED)
            stage.finish()
            after = Uploader(study.out, study.name, database, f"killed-{number}")
            after.send()
            assert after.close() == 0
            store = MlflowStore(database, f"killed-{number}")
            for kind, path in (("cell", journal.path), ("stage", stage.journal.path)):
                (run,) = store.find({"vcppo.kind": kind})
                stored = sorted((p.name, p.step, p.value, p.time_ms) for p in store.points(run, run.metrics))
                assert stored == sorted((p.name, p.step, p.value, p.time_ms) for p in points_of(read_journal(path)))
                assert run.status == "FINISHED"
            assert len(store.find({"vcppo.kind": "study"})) == 1
            if finished_alive:
                break
        assert 10 < number < 99

    def test_a_final_evaluation_at_the_step_of_one_during_rl_is_not_taken_for_it(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0")
        study.enter(cell, "rl", "a").journal.metrics(6, {"eval/digits/length_tokens": 50.0})
        uploader().send()
        study.enter(cell, "evaluation", "b").journal.metrics(6, {"eval/digits/length_tokens": 60.0})
        uploader().send()
        assert values(store, runs(kind="cell")[0], "eval/digits/length_tokens") == [(6, 50.0), (6, 60.0)]

    def test_a_cell_run_again_after_it_failed_goes_on_in_its_run(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0", state="failed", error="TrainingError: boom", attempts=1)
        stage = study.enter(cell, "rl", "a")
        iterate(stage.journal, 1)
        ours = uploader()
        ours.send()
        cell.update(state="running", error=None, attempts=2, finished=None)
        ours.send()
        assert runs(kind="cell")[0].status == "RUNNING"
        iterate(stage.journal, 2)
        cell.update(state="done", finished=STARTED + 90)
        ours.send()
        (child,) = runs(kind="cell")
        assert (child.status, child.tags["error"], child.tags["attempts"]) == ("FINISHED", "", "2")
        assert len(values(store, child, "policy/loss")) == 2

    def test_when_rl_becomes_another_its_numbers_do_not_mix_with_the_old(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0")
        study.enter(cell, "cold-start", "base")
        iterate(study.enter(cell, "rl", "version-1").journal, 1)
        uploader().send()
        cell.update(stages=[stage for stage in cell.read().stages if stage.stage != "rl"])
        ours = uploader()
        ours.send()
        iterate(study.enter(cell, "rl", "version-2").journal, 2)
        ours.send()
        (child,) = runs(kind="cell")
        assert [step for step, _ in values(store, child, "policy/loss")] == [2]
        (stage,) = runs(kind="stage")
        assert stage.tags["mlflow.parentRunId"] == child.id

    def test_a_cell_with_other_settings_gets_another_run_and_the_old_one_goes_to_the_bin(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        study.cell("ppo-s0")
        uploader().send()
        study.cell("ppo-s0", swept={"gae.lambda_actor": 0.5})
        uploader().send()
        (child,) = runs(kind="cell")
        assert child.params["gae.lambda_actor"] == "0.5"

    @pytest.mark.parametrize("kind", ["study", "cell", "stage"])
    @pytest.mark.parametrize("purged", [False, True])
    def test_a_run_deleted_by_the_user_comes_back_and_all_hang_together(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        kind: str,
        purged: bool,
    ) -> None:
        """Purged: `mlflow gc` has emptied the bin, so that there is another run in its place."""
        finished(study)
        uploader().send()
        (before,) = runs(kind=kind)
        store.delete(before)
        if purged:
            store._client._tracking_client.store._hard_delete_run(before.id)
        uploader().send()
        (parent,), (child,), (stage) = runs(kind="study"), runs(kind="cell"), runs(kind="stage")
        (after,) = runs(kind=kind)
        assert (after.id == before.id) == (not purged)
        assert child.tags["mlflow.parentRunId"] == parent.id
        assert [run.tags["mlflow.parentRunId"] for run in stage] == [child.id]
        assert {parent.status, child.status, *(run.status for run in stage)} == {"FINISHED"}
        assert len(values(store, child, "policy/loss")) == 6
        assert len(values(store, stage[0], "pretrain/loss")) == 3

    @pytest.mark.parametrize("deleted", [["study"], ["cell"], ["stage"], ["study", "cell", "stage"]])
    def test_runs_deleted_while_the_study_runs_come_back_before_it_ends(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        deleted: list[str],
    ) -> None:
        cell = study.cell("ppo-s0")
        stage = study.enter(cell, "value-pretraining", "shared")
        pretrain(stage.journal, steps=[10])
        iterate(study.enter(cell, "rl", "a").journal, 1)
        ours = uploader()
        ours.start()
        until(lambda: ours.status == "delivered")
        before = {run.id for kind in ("study", "cell", "stage") for run in runs(kind=kind)}
        for kind in deleted:
            store.delete(runs(kind=kind)[0])
        pretrain(stage.journal, steps=[20])
        stage.finish()
        cell.update(state="done", finished=STARTED + 60)
        ours.close(30)
        found = [run for kind in ("study", "cell", "stage") for run in runs(kind=kind)]
        assert {run.id for run in found} == before
        assert [run.status for run in found] == ["FINISHED"] * 3

    def test_of_two_parents_one_is_left_and_the_other_does_not_run_for_ever(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        """As an earlier version left them: the first deleted by the user, a second one made, the first restored."""
        finished(study)
        uploader().send()
        (first,) = runs(kind="study")
        (child,) = runs(kind="cell")
        second = store.create("components", dict(first.tags), started=time.time() + 1)
        store.delete(second)
        uploader().send()
        assert [run.id for run in runs(kind="study")] == [first.id]
        store.restore(second)
        store.log(child, tags={"mlflow.parentRunId": second.id})
        uploader().send()
        (parent,) = runs(kind="study")
        (child,) = runs(kind="cell")
        assert child.tags["mlflow.parentRunId"] == parent.id
        everywhere = store.find({"vcppo.kind": "study"}, deleted=True)
        assert sorted((run.status, run.deleted) for run in everywhere) == [("FINISHED", False), ("KILLED", True)]

    def test_a_restored_twin_of_a_cell_or_stage_is_put_away(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        finished(study)
        uploader().send()
        for kind in ("cell", "stage"):
            (one,) = runs(kind=kind)
            store.create(one.tags["mlflow.runName"], dict(one.tags), started=time.time() + 1)
        uploader().send()
        (child,), (stage,) = runs(kind="cell"), runs(kind="stage")
        assert (child.status, stage.status) == ("FINISHED", "FINISHED")
        assert stage.tags["mlflow.parentRunId"] == child.id
        assert {run.status for run in store.find({}, deleted=True)} == {"FINISHED", "KILLED"}

    def test_two_folders_with_a_study_of_one_name_stay_apart(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        database: str,
        request: pytest.FixtureRequest,
        tmp_path: Path,
    ) -> None:
        other = FakeStudy(tmp_path / "other")
        for one in (study, other):
            finished(one)
        uploader().send()
        theirs = Uploader(other.out, other.name, database, request.node.name)
        theirs.send()
        theirs.close()
        assert len(runs(kind="study")) == len(runs(kind="cell")) == 2
        assert len({run.tags["mlflow.parentRunId"] for run in runs(kind="cell")}) == 2

    def test_another_store_hears_everything_from_the_start(
        self, study: FakeStudy, uploader: Callable[[], Uploader], database: str
    ) -> None:
        finished(study)
        uploader().send()
        theirs = Uploader(study.out, study.name, database, "another")
        assert theirs.missing() == 17  # and the cell's state
        uploader().close()
        assert theirs.send() == 16
        theirs.close()

    def test_what_mlflow_refuses_in_one_cell_does_not_keep_the_others_waiting(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        study.enter(study.cell("a", arm="a"), "rl", "a").journal.metrics(0, {"aime/avg@32": 0.5})
        study.enter(study.cell("b", arm="b"), "rl", "b").journal.metrics(0, {"policy/loss": 0.5})
        ours = uploader()
        with pytest.raises(TrackingError, match=r"cell a: .*avg@32"):
            ours.send()
        assert runs(kind="cell", cell="b")[0].metrics == ("policy/loss",)
        assert ours.missing() == 2  # the record, and the state of the cell


class TestUploader:
    def test_the_thread_delivers_and_close_says_the_last(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0")
        stage = study.enter(cell, "rl", "a")
        iterate(stage.journal, 1)
        ours = uploader()
        ours.start()
        deadline = time.monotonic() + 30
        while ours.status != "delivered" and time.monotonic() < deadline:
            time.sleep(0.05)
        assert ours.status == "delivered"
        iterate(stage.journal, 2)
        cell.update(state="done", finished=STARTED + 60)
        assert ours.close(30) == 0
        (child,) = runs(kind="cell")
        assert child.status == "FINISHED"
        assert len(values(store, child, "policy/loss")) == 2

    def test_a_stopped_study_is_killed_in_mlflow_and_runs_again_when_taken_up(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        cell = study.cell("ppo-s0")
        ours = uploader()
        ours.start()
        cell.update(state="queued")
        ours.close(30)
        cell.update(state="running")
        ours = uploader()
        ours.start()
        ours.close(30)
        assert (runs(kind="cell")[0].status, runs(kind="study")[0].status) == ("KILLED", "KILLED")
        assert runs(kind="cell")[0].tags["state"] == "interrupted"
        uploader().send()
        assert (runs(kind="cell")[0].status, runs(kind="study")[0].status) == ("RUNNING", "RUNNING")

    def test_what_is_delivered_when_nobody_works_on_the_study_is_not_said_to_run(
        self,
        tmp_path: Path,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        database: str,
        request: pytest.FixtureRequest,
    ) -> None:
        stopped = FakeStudy(tmp_path / "stopped")
        cell = stopped.cell("ppo-s0", state="queued", attempts=1)
        pretrain(stopped.enter(cell, "value-pretraining", "a").journal, steps=[10])
        cell.update(state="running")  # as a kill leaves it
        ours = Uploader(stopped.out, stopped.name, database, request.node.name)
        ours.send()
        kinds = ("study", "cell", "stage")
        assert [run.status for kind in kinds for run in runs(kind=kind)] == ["KILLED"] * 3
        for held in (cell.path, stopped.out / "studies" / stopped.name):  # by `train` and by `sweep`
            with locked(held):
                ours.send()
            assert [run.status for kind in kinds for run in runs(kind=kind)] == ["RUNNING"] * 3
            ours.send()
            assert [run.status for kind in kinds for run in runs(kind=kind)] == ["KILLED"] * 3
        ours.close()

    def test_a_server_that_is_not_there_is_noticed_fast_and_everything_is_kept(self, study: FakeStudy) -> None:
        finished(study)
        away = Uploader(study.out, study.name, f"http://127.0.0.1:{free_port()}", "x")
        began = time.monotonic()
        with pytest.raises(TrackingError, match=r"127\.0\.0\.1"):
            away.send()
        assert time.monotonic() - began < 10
        away.start()
        deadline = time.monotonic() + 30
        while "not delivered" not in away.status and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "not delivered since" in away.status
        assert "17 records kept" in away.status
        assert away.close(30) == 17

    def test_without_mlflow_everything_is_kept_and_the_reason_told(
        self, study: FakeStudy, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished(study)
        monkeypatch.setitem(sys.modules, "mlflow", None)
        ours = Uploader(study.out, study.name, f"sqlite:///{study.out}/mlflow.db")
        with pytest.raises(TrackingError, match=r"MLflow cannot be imported \(.*\); `pip install mlflow` mends it"):
            ours.send()
        ours.start()
        until(lambda: "MLflow cannot be imported" in ours.status)
        assert ours.close(30) == 17
        assert not (study.out / "mlflow.db").exists()

    def test_one_process_at_a_time_delivers_a_study(
        self, study: FakeStudy, uploader: Callable[[], Uploader], database: str, request: pytest.FixtureRequest
    ) -> None:
        finished(study)
        ours = uploader()
        ours.send()
        second = Uploader(study.out, study.name, database, request.node.name)
        with pytest.raises(TrackingError, match=r"this process, which still waits for sqlite:.*, uploads it"):
            second.send()
        ours.close()
        hold = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.flock(f, 2); f.write('7'); f.flush(); input()"
        lock = study.out / "studies" / study.name / "mlflow.lock"
        lock.write_text("")
        with subprocess.Popen([sys.executable, "-c", hold, str(lock)], stdin=subprocess.PIPE) as other:
            until(lambda: lock.read_text() == "7")
            with pytest.raises(TrackingError, match=r"process 7 uploads it"):
                second.send()
            other.communicate(b"\n")
        assert second.send() == 0
        second.close()

    def test_a_broken_journal_is_told_and_the_rest_delivered(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        stage = study.enter(study.cell("a", arm="a"), "rl", "a")
        (stage.folder / "journal.jsonl").write_text('{"kind": \n{"kind":"metrics","step":0,"time":1,"values":{}}\n')
        iterate(study.enter(study.cell("b", arm="b"), "rl", "b").journal, 1)
        with pytest.raises(TrackingError, match=r"cell a: .*journal.jsonl line 1: not a journal record"):
            uploader().send()
        assert "policy/loss" in runs(kind="cell", cell="b")[0].metrics

    def test_an_experiment_in_the_bin_is_told_with_the_way_out(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        database: str,
        store: MlflowStore,
        request: pytest.FixtureRequest,
    ) -> None:
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=database)
        client.delete_experiment(client.get_experiment_by_name(request.node.name).experiment_id)
        with pytest.raises(TrackingError, match="was deleted; `mlflow experiments restore"):
            uploader().send()

    def test_the_default_store_lies_in_the_out_folder_and_nothing_elsewhere(
        self, study: FakeStudy, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finished(study)
        shutil.copy(database.removeprefix("sqlite:///"), study.out / "mlflow.db")  # making one takes seconds
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        ours = Uploader(study.out, study.name)
        ours.send()
        ours.close()
        assert ours.notices == []
        assert ours.tracking_uri == default_tracking_uri(study.out) == f"sqlite:///{study.out}/mlflow.db"
        assert len(list((study.out / "mlartifacts").rglob("tables/problems/000006.json"))) == 1
        assert list(elsewhere.iterdir()) == []

    @pytest.mark.parametrize("name", NAMES)
    def test_the_default_store_lies_in_the_out_folder_whatever_that_is_called(
        self, name: str, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        study = FakeStudy(tmp_path / name)
        study.out.mkdir()
        finished(study)
        shutil.copy(Path(database.removeprefix("sqlite:///")), study.out / "mlflow.db")  # making one takes seconds
        ours = Uploader(study.out, study.name)
        assert ours.send() == 16
        ours.close()
        store = MlflowStore(default_tracking_uri(study.out), ours.experiment)
        (child,) = store.find({"vcppo.kind": "cell"})
        assert store.tables(child, "problems")[6]["correct"] == [3, 0]
        assert len(list((study.out / "mlartifacts").rglob("tables/problems/000006.json"))) == 1
        assert os.listdir(tmp_path) == [name]

    @pytest.mark.parametrize("name", [b"\xff", b"cut \xc3"])
    def test_a_folder_whose_name_no_address_can_hold_is_refused_before_anything_is_made(
        self, name: bytes, tmp_path: Path
    ) -> None:
        out = tmp_path / os.fsdecode(name)
        for command in (["train"], ["sweep", "components"], ["export", "components"], ["track", "replay", "train"]):
            done = CliRunner().invoke(main, [*command, "--out", str(out)], env={"MLFLOW_TRACKING_URI": None})
            assert done.exit_code == 2, done.output
            assert "ConfigError" in done.output or "no such folder" in done.output
        assert not out.exists()

    def test_what_became_of_a_half_made_store_is_told(
        self, study: FakeStudy, database: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.setattr("vcppo.tracking.mlflow_database.SETTLED_S", -1.0)
        template = Path(database.removeprefix("sqlite:///"))
        monkeypatch.setattr("vcppo.tracking.mlflow_database._make", lambda file, artifacts: shutil.copy(template, file))
        finished(study)
        with sqlite3.connect(study.out / "mlflow.db") as base:
            base.execute("CREATE TABLE experiments (x)")
        base.close()
        ours = Uploader(study.out, study.name)
        assert ours.send() == 16
        ours.close()
        (said,) = ours.notices
        assert said.endswith(
            "left half made and empty by whoever was stopped making it; it is now mlflow.db.half-made-1"
        )

    def test_the_environment_names_the_store_unless_the_caller_does(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
        assert Uploader(tmp_path, "s").tracking_uri == "http://tracking:5000"
        assert Uploader(tmp_path, "s", "sqlite:////x.db").tracking_uri == "sqlite:////x.db"

    def test_importing_the_uploader_loads_neither_mlflow_nor_torch(self) -> None:
        code = "import sys, vcppo.tracking.uploader, vcppo.tracking.export; "
        code += "print({'mlflow', 'torch', 'matplotlib'} & set(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "set()"


class TestSmallParts:
    def test_a_table_survives_the_way_to_json_and_back(self) -> None:
        assert from_split(to_split({"a": [1, 2], "b": ["x", None]})) == {"a": [1, 2], "b": ["x", None]}

    def test_parameters_are_dotted_and_plain(self) -> None:
        assert as_params({"gae": {"gamma": 1.0}, "arm": "ppo", "x": None, "list": [1, 2], "odd@name": True}) == {
            "gae.gamma": "1.0",
            "arm": "ppo",
            "x": "null",
            "list": "[1, 2]",
            "odd_name": "true",
        }

    def test_the_settings_hash_is_that_of_the_settings(self) -> None:
        settings = RunSettings(arm="a", seed=3)
        assert settings_digest(settings.model_dump(mode="json")) == settings.digest()

    def test_the_list_of_tables_keeps_the_latest_when_it_grows_too_long(self) -> None:
        listed = list_tables("[]", [f"tables/samples/{step:06d}.json" for step in range(500)])
        assert len(listed) <= LONGEST_TAG
        assert json.loads(listed)[-1] == {"path": "tables/samples/000499.json", "type": "table"}
        assert list_tables(listed, ["tables/samples/000499.json"]) == listed

    def test_tables_are_no_points(self) -> None:
        assert points_of([{"kind": "table", "name": "x", "step": 0, "time": 1.0, "columns": {}}]) == []

    def test_passwords_are_not_repeated(self) -> None:
        assert redacted("postgresql://ada:secret@host/db") == "postgresql://host/db"
        assert redacted("sqlite:////tmp/a@b.db") == "sqlite:////tmp/a@b.db"

    def test_no_tables_no_figure(self) -> None:
        assert position_figure({}) is None

    def test_the_figure_shows_the_first_and_the_last_step_and_leaves_pyplot_alone(self) -> None:
        imported = "matplotlib.pyplot" in sys.modules  # others may have: what reasoning-gym requires does
        one, two = position_figure({5: positions()}), position_figure({0: positions(), 5: positions(), 9: positions()})
        assert one is not None
        assert two is not None
        width = [int.from_bytes(png[16:20], "big") for png in (one, two)]
        assert width[1] == 2 * width[0]
        assert ("matplotlib.pyplot" in sys.modules) == imported

    def test_long_values_are_cut_with_a_mark(
        self, uploader: Callable[[], Uploader], study: FakeStudy, runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        run = store.create("long", {"vcppo.kind": "long"}, started=0.0)
        store.log(run, params={"a": "x" * 7000}, tags={"b": "y" * 9000})
        (found,) = runs(kind="long")
        assert found.params["a"] == "x" * 5999 + "…"
        assert found.tags["b"] == "y" * 7999 + "…"


class TestProvenance:
    def test_it_is_json_and_names_versions_and_hardware(self) -> None:
        made = json.loads(json.dumps(provenance()))
        assert made.keys() == {"commit", "dirty", "versions", "hardware"}
        assert made["versions"]["python"] == sys.version.split()[0]
        assert made["versions"]["torch"] == versions()["torch"]
        assert hardware()["cores"] == os.cpu_count()
        assert 0.1 < hardware()["memory_gb"] < 1e5

    def test_outside_a_repository_the_commit_is_unknown(self, tmp_path: Path) -> None:
        assert git_state(tmp_path) == ("unknown", None)

    def test_without_git_the_commit_is_unknown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert git_state(tmp_path) == ("unknown", None)

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_a_changed_file_makes_the_tree_dirty_and_an_untracked_one_does_not(self, tmp_path: Path) -> None:
        def git(*arguments: str) -> None:
            who = ["-c", "user.name=a", "-c", "user.email=a@b"]
            subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

        git("init")
        (tmp_path / "a").write_text("1")
        git("add", "a")
        git("commit", "-m", "x")
        (tmp_path / "new").write_text("1")
        commit, dirty = git_state(tmp_path)
        assert (len(commit), dirty) == (12, False)
        (tmp_path / "a").write_text("2")
        assert git_state(tmp_path) == (commit, True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    yield server
    server.kill()


@pytest.mark.e2e
def test_a_server_killed_in_the_middle_hears_everything_once_when_it_is_back(study: FakeStudy, server: Server) -> None:
    server.start()
    cell = study.cell("ppo-s0")
    stage: FakeStage = study.enter(cell, "rl", "a")
    journal = stage.journal
    uploader = Uploader(study.out, study.name, server.uri, "killed")
    uploader.start()

    def wait_until(said: str) -> None:
        deadline = time.monotonic() + 60
        while said not in uploader.status and time.monotonic() < deadline:
            time.sleep(0.1)
        assert said in uploader.status

    for step in range(30):
        iterate(journal, step)
    wait_until("delivered")
    server.kill()
    for step in range(30, 60):
        iterate(journal, step)
        journal.table("samples", step, {"problem": ["1"], "verdict": ["correct"]})
    wait_until("not delivered since")
    server.start()
    cell.update(state="done", finished=STARTED + 60)
    wait_until("delivered")
    assert uploader.close(60) == 0

    store = MlflowStore(server.uri, "killed")
    (child,) = store.find({"vcppo.kind": "cell"})
    assert child.status == "FINISHED"
    for metric in child.metrics:
        assert [point.step for point in store.points(child, [metric])] == list(range(60))
    assert sorted(store.tables(child, "samples")) == list(range(30, 60))
