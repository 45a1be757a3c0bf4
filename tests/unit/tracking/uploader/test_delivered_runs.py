"""What MLflow has of a study, its cells and stages once they are delivered; runs of one cell alone."""

import json
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deliveries import ACCURACIES, finished, values
from fake_study import PROVENANCE, STARTED, FakeStudy, iterate, positions, pretrain

from vcppo.cli.stages import run_one
from vcppo.errors import ConfigError
from vcppo.maths.early_warning import RULES
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, State
from vcppo.store.journal import Journal
from vcppo.store.study_folders import StudyFolder, read_object
from vcppo.system.processes import locked
from vcppo.tracking.from_mlflow import read_study as read_from_mlflow
from vcppo.tracking.mlflow_client import MlflowStore, RefusedError, Run
from vcppo.tracking.mlflow_entities import as_params
from vcppo.tracking.uploader import Uploader


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

    def test_a_damaged_record_of_a_cell_keeps_no_other_from_mlflow(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]]
    ) -> None:
        """As a power cut leaves one, or a later version writes it."""
        iterate(study.enter(study.cell("ppo-s0"), "rl", "a").journal, 1)
        damaged = study.cell("ppo-s1").path / "cell.json"
        damaged.write_bytes(b"")
        ours = uploader()
        with pytest.raises(RefusedError, match="ppo-s1"):
            ours.send()
        assert [run.tags["cell"] for run in runs(kind="cell")] == ["ppo-s0"]
        assert ours.close(10) == 1, "the one that nobody can read"

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
