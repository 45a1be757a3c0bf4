"""The uploader's thread, its store, the news that it has and the files that it may deliver."""

import errno
import os
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from deliveries import finished, until, values
from fake_study import STARTED, FakeStudy, iterate, pretrain
from mlflow_server import free_port
from odd_names import NAMES

from vcppo.cli.main import main
from vcppo.errors import TrackingError
from vcppo.system.processes import locked
from vcppo.tracking.from_mlflow import read_study as read_from_mlflow
from vcppo.tracking.mlflow_client import MlflowStore, Run
from vcppo.tracking.uploader import Uploader, default_tracking_uri


def first_news(uploader: Uploader) -> list[str]:
    deadline = time.monotonic() + 30
    while not (news := uploader.news()):
        assert time.monotonic() < deadline, "no news came"
        time.sleep(0.02)
    return news


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
    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (TrackingError("nobody is there"), "nobody is there"),
            (
                OSError(errno.ENOSPC, "No space left on device", "/tmp/x"),
                "[Errno 28] No space left on device: '/tmp/x'",
            ),
        ],
        ids=["server", "disk"],
    )
    def test_what_is_away_is_reported_once_and_when_it_is_back(
        self, study: FakeStudy, database: str, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
    ) -> None:
        back = threading.Event()
        tries: list[str] = []

        def away(uri: str, experiment: str, artifacts: Path) -> MlflowStore:
            tries.append(uri)
            if not back.is_set():
                raise error
            return MlflowStore(uri, experiment, artifacts)

        monkeypatch.setattr("vcppo.tracking.uploader.FIRST_RETRY_S", 0.01)
        monkeypatch.setattr("vcppo.tracking.uploader.MlflowStore", away)
        finished(study)
        uploader = Uploader(study.out, study.name, database, "news")
        uploader.start()
        gone = f"MLflow has not received what is new ({words}); runs go on, and their records wait on disk"
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

    @pytest.mark.parametrize("lost", [1, 2])
    def test_replies_lost_at_the_end_do_not_leave_anything_undelivered(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        monkeypatch: pytest.MonkeyPatch,
        lost: int,
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        cell = study.cell("ppo-s0")
        iterate(study.enter(cell, "rl", "a").journal, 1)
        ours = uploader()
        ours.start()
        deadline = time.monotonic() + 30
        while ours.status != "delivered" and time.monotonic() < deadline:
            time.sleep(0.05)
        really, left = MlflowClient.set_terminated, lost

        def set_terminated(*arguments: Any, **named: Any) -> None:
            nonlocal left
            really(*arguments, **named)
            left -= 1
            if left >= 0:
                raise MlflowException("connection reset")

        monkeypatch.setattr(MlflowClient, "set_terminated", set_terminated)
        cell.update(state="done", finished=STARTED + 60)
        assert ours.close(30) == 0
        assert left < 0
        assert [run.status for run in runs(kind="cell")] == ["FINISHED"]

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
