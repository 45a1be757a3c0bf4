"""Whatever is killed, lost, deleted or run again: MLflow has every point once."""

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deliveries import finished, until, values
from fake_study import STARTED, FakeStudy, iterate, pretrain

from vcppo.errors import TrackingError
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import read_journal
from vcppo.tracking.mlflow_client import MlflowStore, Run
from vcppo.tracking.mlflow_entities import points_of
from vcppo.tracking.uploader import Uploader


def later(journal: Path, seconds: float) -> None:
    """As a resumed stage writes the same records again: other times, other measured durations."""
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        record["time"] += seconds
        if "time/update_s" in record.get("values", {}):
            record["values"]["time/update_s"] += 1.0
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))


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

    def test_a_request_that_reaches_the_server_twice_leaves_one_run(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from mlflow import MlflowClient

        really = MlflowClient.create_run

        def twice(*arguments: Any, **named: Any) -> Any:
            really(*arguments, **named)
            return really(*arguments, **named)

        monkeypatch.setattr(MlflowClient, "create_run", twice)
        finished(study)
        ours = uploader()
        ours.start()
        assert ours.close(60) == 0
        found = [run for kind in ("study", "cell", "stage") for run in runs(kind=kind)]
        assert [run.status for run in found] == ["FINISHED"] * 3

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
            store.client._tracking_client.store._hard_delete_run(before.id)
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
