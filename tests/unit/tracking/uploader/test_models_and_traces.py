"""Checkpoints are logged models, sampled responses traces, and the study's run is described; each once."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from deliveries import finished
from fake_study import STARTED, FakeStage, FakeStudy, iterate

from vcppo.errors import TrackingError
from vcppo.system.files import remove_folder
from vcppo.tracking.from_mlflow import read_study
from vcppo.tracking.mlflow_client import MlflowStore, Run
from vcppo.tracking.sampled_traces import MOST_TRACES
from vcppo.tracking.uploader import Uploader

TASK = {"name": "digits", "chain_length": 3}
BIASES = {10: [-0.5, -0.4, -0.2, 0.0], 20: [0.3, 0.1, 0.0, -0.1]}  # at 0, 25, 50 and 75 % of a response
PRETRAINED = ["critic-000010-value-pretraining-pre-ppo-s0", "critic-000020-value-pretraining-pre-ppo-s0"]
NAMES = [*PRETRAINED, "ppo-s0-critic", "ppo-s0-policy"]


def by_fraction(biases: list[float]) -> dict[str, list[Any]]:
    return {"fraction": [0.0, 0.25, 0.5, 0.75], "n": [4] * 4, "value_bias": biases}


def samples() -> dict[str, list[Any]]:
    return {
        "problem": ["1 + 1 =", "2 + 2 ="],
        "answer": ["2", "4"],
        "response": ["two: 2", "five: 5"],
        "verdict": ["correct", "wrong"],
        "note": ["", ""],
        "tokens": [4, 5],
    }


def with_checkpoints(study: FakeStudy) -> FakeStage:
    """The finished cell of other tests, with two critics of its pretraining, and what RL has made."""
    finished(study)
    pretraining, rl, evaluation = (
        FakeStage(study.out / "cache" / name)
        for name in ("value-pretraining/pre-ppo-s0", "rl/rl-ppo-s0", "evaluation/ev-ppo-s0")
    )
    for stage, parents in (
        (pretraining, {"cold-start": "abc"}),
        (rl, {"value-pretraining": "pre-ppo-s0"}),
        (evaluation, {}),
    ):
        stage.describe(TASK, parents)
    for step, biases in BIASES.items():
        pretraining.journal.table("critic_by_fraction", step, by_fraction(biases))
        pretraining.checkpoint(f"critic-{step:06d}")
    rl.journal.table("critic_by_fraction", 5, by_fraction([0.0, 0.9, 0.0, 0.0]))
    rl.journal.table("samples", 0, samples())
    for name in ("policy", "critic"):
        rl.checkpoint(name)
    return pretraining


def models(store: MlflowStore, **search: Any) -> list[Any]:
    return list(store.client.search_logged_models([store.experiment_id], **search))


def traces(store: MlflowStore, query: str = "") -> list[Any]:
    return list(store.client.search_traces(locations=[store.experiment_id], filter_string=query, max_results=500))


class TestModels:
    def test_the_critic_with_the_least_bias_at_a_quarter_of_a_response_is_one_search_away(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore
    ) -> None:
        with_checkpoints(study)
        uploader().send()
        order = [{"field_name": "metrics.model/abs_bias_at_25pct", "ascending": True}]
        critics = models(store, filter_string="model_type = 'critic'", order_by=order)
        assert [model.name for model in critics] == [PRETRAINED[1], PRETRAINED[0], "ppo-s0-critic"]
        measured = {metric.key: (metric.value, metric.dataset_name) for metric in critics[0].metrics}
        assert measured["model/bias_at_25pct"] == (0.1, "digits/train")
        assert measured["model/bias_at_0pct"] == (0.3, "digits/train")
        assert measured["model/abs_bias_at_75pct"] == (0.1, "digits/train")
        assert measured["model/held_out_loss"] == (0.1, "digits/train")
        small = models(
            store, filter_string="metrics.`model/abs_bias_at_25pct` < 0.2 AND params.stage = 'value-pretraining'"
        )
        assert [model.name for model in small] == [PRETRAINED[1]]

    def test_a_model_has_its_stage_settings_parents_place_and_sums(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        pretraining = with_checkpoints(study)
        uploader().send()
        (stage,), (cell,) = runs(kind="stage"), runs(kind="cell")
        found = {model.name: model for model in models(store)}
        assert sorted(found) == NAMES
        critic, policy = found[PRETRAINED[0]], found["ppo-s0-policy"]
        assert (critic.model_type, str(critic.status), critic.source_run_id) == ("critic", "READY", stage.id)
        assert (policy.model_type, str(policy.status), policy.source_run_id) == ("policy", "READY", cell.id)
        assert critic.params == {
            "stage": "value-pretraining",
            "step": "10",
            "seed": "0",
            "task.name": "digits",
            "task.chain_length": "3",
        }
        folder = pretraining.folder / "critic-000010"
        expected = {
            "study": "components",
            "cell": "ppo-s0",
            "base_seed": "0",
            "stage": "value-pretraining",
            "address": "value-pretraining/pre-ppo-s0",
            "parents": "cold-start/abc",
            "path": str(folder),
            "sha256sum": f"{hashlib.sha256(b'critic-000010').hexdigest()}  model.safetensors",
        }
        assert expected.items() <= critic.tags.items()
        assert {"arm": "ppo", "seed": "0", "parents": "value-pretraining/pre-ppo-s0"}.items() <= policy.tags.items()
        measured = {(metric.key, metric.dataset_name): metric.value for metric in policy.metrics}
        assert measured["model/accuracy", "digits/train"] == 0.6
        assert measured["model/avg_at_4", "digits/evaluate"] == 0.375

    def test_runs_are_linked_to_the_problems_and_to_what_they_made(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        with_checkpoints(study)
        uploader().send()
        for kind, problems, made in (("cell", ["digits/evaluate", "digits/train"], 2), ("stage", ["digits/train"], 2)):
            run = store.client.get_run(runs(kind=kind)[0].id)
            assert sorted(given.dataset.name for given in run.inputs.dataset_inputs) == problems
            assert len({given.dataset.digest for given in run.inputs.dataset_inputs}) == 1
            assert len(run.outputs.model_outputs) == made

    def test_an_export_from_mlflow_knows_nothing_of_them(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        with_checkpoints(study)
        uploader().send()
        (cell,) = read_study(store.tracking_uri, store.experiment).cells
        assert any(name.startswith("model/") for name in runs(kind="cell")[0].metrics)
        assert cell.pretraining is not None
        assert not [name for name in (*cell.curves, *cell.pretraining.curves) if name.startswith("model/")]

    def test_critics_that_come_and_go_do_so_in_mlflow(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore
    ) -> None:
        """As another run extends the pretraining: its critic comes, one that nobody has requested goes."""
        pretraining = with_checkpoints(study)
        ours = uploader()
        ours.send()
        pretraining.checkpoint("critic-000030")
        remove_folder(pretraining.folder / "critic-000010")
        (pretraining.folder / "done.json").write_text(json.dumps({"result": {"steps": 30.0}, "wall_s": 2.0}))
        other = study.cell("ppo-s1", seed=1)
        study.enter(other, "value-pretraining", "pre-ppo-s0", ran=False)
        FakeStage(study.out / "cache/value-pretraining/pre-ppo-s0").describe(TASK, {})
        ours.send()
        steps = [model.params["step"] for model in models(store, filter_string="params.stage = 'value-pretraining'")]
        assert sorted(steps) == ["20", "30"]

    def test_what_an_earlier_version_delivered_gets_models_in_the_runs_that_are_there(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        with_checkpoints(study)
        uploader().send()
        ids = {run.id for run in runs()}
        for model in models(store):
            store.client.delete_logged_model(model.model_id)
        ledger = study.out / "studies" / study.name / "mlflow.json"
        content = json.loads(ledger.read_text())
        for entry in content["runs"].values():
            del entry["models"]
        uploader().close()
        ledger.write_text(json.dumps(content))
        assert uploader().send() == 0
        assert len(models(store)) == 4
        assert {run.id for run in runs()} == ids


class TestTraces:
    def test_a_sampled_response_is_a_trace_of_the_cells_run(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        with_checkpoints(study)
        uploader().send()
        (cell,) = runs(kind="cell")
        assert len(store.client.search_traces(locations=[store.experiment_id], run_id=cell.id)) == 2
        (wrong,) = traces(store, "tags.verdict = 'wrong'")
        (span,) = wrong.data.spans
        assert (span.inputs, span.outputs) == ("2 + 2 =", "five: 5")
        expected = {"verdict": "wrong", "reward": -1.0, "length_tokens": 5, "iteration": 0, "answer": "4"}
        assert expected.items() <= span.attributes.items()
        assert {"reward": "-1.0", "iteration": "0"}.items() <= wrong.info.tags.items()
        assert wrong.info.tags["vcppo.owner"].endswith("/cell/ppo-s0")
        assert "2 + 2 =" in wrong.info.request_preview

    def test_partial_credit_lies_between_wrong_and_correct(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore
    ) -> None:
        stage = study.enter(study.cell("ppo-s0", swept={"reward.wrong": 0.0}), "rl", "a")
        stage.journal.table("samples", 0, {**samples(), "credit": [1.0, 0.25]})
        uploader().send()
        assert sorted(trace.info.tags["reward"] for trace in traces(store)) == ["0.25", "1.0"]

    def test_a_run_that_samples_much_has_a_bounded_number(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore
    ) -> None:
        many = {name: cells * MOST_TRACES for name, cells in samples().items()}
        stage = study.enter(study.cell("ppo-s0", swept={"record.samples_every": 2}), "rl", "a")
        for step in (0, 2, 4, 5):
            stage.journal.table("samples", step, many)
        uploader().send()
        assert len(traces(store)) == MOST_TRACES


class TestEachOnce:
    @pytest.mark.parametrize(
        "call",
        [
            "create_logged_model",
            "log_outputs",
            "log_inputs",
            "finalize_logged_model",
            "link_traces_to_run",
            "log_spans",
        ],
    )
    def test_a_lost_reply_makes_no_second_model_or_trace(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        monkeypatch: pytest.MonkeyPatch,
        call: str,
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.tracing.client import TracingClient

        with_checkpoints(study)
        ours = uploader()
        owner = TracingClient if call == "log_spans" else MlflowClient
        really = getattr(owner, call)

        def lost(*arguments: Any, **named: Any) -> None:
            really(*arguments, **named)
            raise MlflowException("connection reset")

        for _ in range(2):
            with monkeypatch.context() as patched:
                patched.setattr(owner, call, lost)
                with pytest.raises(TrackingError, match="connection reset"):
                    ours.send()
        ours.send()
        assert sorted(model.name for model in models(store)) == NAMES
        assert {str(model.status) for model in models(store)} == {"READY"}
        assert len(traces(store)) == 2
        for kind in ("cell", "stage"):
            assert len(store.client.get_run(runs(kind=kind)[0].id).outputs.model_outputs) == 2
        for model in models(store):
            assert len({(metric.key, metric.dataset_name) for metric in model.metrics}) == len(model.metrics) > 0

    def test_a_request_that_reaches_the_server_twice_leaves_one_model(
        self, study: FakeStudy, uploader: Callable[[], Uploader], store: MlflowStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from mlflow import MlflowClient

        with_checkpoints(study)
        really, made = MlflowClient.create_logged_model, []

        def twice(*arguments: Any, **named: Any) -> Any:
            made.append(really(*arguments, **named))
            return really(*arguments, **named)

        monkeypatch.setattr(MlflowClient, "create_logged_model", twice)
        uploader().send()
        assert len(made) == len(NAMES)
        assert sorted(model.name for model in models(store)) == NAMES
        assert {str(model.status) for model in models(store)} == {"READY"}

    @pytest.mark.parametrize("purged", [False, True])
    def test_those_of_a_run_go_when_another_takes_its_place(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        store: MlflowStore,
        purged: bool,
    ) -> None:
        """Purged: by `mlflow gc`, after a user has deleted the run."""
        with_checkpoints(study)
        uploader().send()
        before = {run.id for kind in ("cell", "stage") for run in runs(kind=kind)}
        if purged:
            for kind in ("cell", "stage"):
                (run,) = runs(kind=kind)
                store.delete(run)
                store.client._tracking_client.store._hard_delete_run(run.id)
        else:
            ledger = study.out / "studies" / study.name / "mlflow.json"
            ledger.write_text(json.dumps({**json.loads(ledger.read_text()), "runs": {}}))
        uploader().send()
        after = {run.id for kind in ("cell", "stage") for run in runs(kind=kind)}
        assert not before & after
        assert sorted(model.name for model in models(store)) == NAMES
        assert {model.source_run_id for model in models(store)} == after
        assert len(traces(store)) == 2

    def test_a_server_that_has_no_models_and_traces_gets_all_else(
        self,
        study: FakeStudy,
        uploader: Callable[[], Uploader],
        runs: Callable[..., list[Run]],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import ENDPOINT_NOT_FOUND
        from mlflow.tracing.client import TracingClient

        def unknown(*arguments: Any, **named: Any) -> None:
            raise MlflowException("no such endpoint", ENDPOINT_NOT_FOUND)

        def not_implemented(*arguments: Any, **named: Any) -> None:
            raise NotImplementedError("log_spans is not supported")

        for call in ("search_logged_models", "create_logged_model", "search_traces"):
            monkeypatch.setattr(MlflowClient, call, unknown)
        monkeypatch.setattr(TracingClient, "log_spans", not_implemented)
        with_checkpoints(study)
        ours = uploader()
        ours.send()
        assert [run.status for kind in ("study", "cell", "stage") for run in runs(kind=kind)] == ["FINISHED"] * 3
        assert ours.missing() == 0


class TestDescription:
    def test_the_study_says_why_and_how_its_arms_stand_with_a_figure(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        running = study.cell("ppo-s1", seed=1)
        definition = {"title": "Parts of VC-PPO", "why": "Which part matters?"}
        (study.out / "studies" / study.name / "study.json").write_text(json.dumps({"definition": definition}))
        results = {"eval/digits/avg_at_4": 0.375, "final_accuracy": 0.5, "final_length_tokens": 42.0}
        finished(study).update(result=results)
        (study.out / "studies" / study.name / "study.json").write_text(json.dumps({"definition": definition}))
        ours = uploader()
        ours.send()
        note = runs(kind="study")[0].tags["mlflow.note.content"]
        assert note.startswith("# Parts of VC-PPO\n\nWhich part matters?\n\n1 of 2 cells done, 1 running\n\n| arm |")
        assert "| ppo | 1 | 0.375 | 0.5 | 42 |" in note
        assert "![arms]" not in note
        iterate(study.enter(running, "rl", "b").journal, 0)
        running.update(state="done", finished=STARTED + 60)
        ours.send()
        (parent,) = runs(kind="study")
        assert f"(get-artifact?path=figures%2Farms.png&run_uuid={parent.id})" in parent.tags["mlflow.note.content"]
        assert Path(store.client.download_artifacts(parent.id, "figures/arms.png")).read_bytes()[:4] == b"\x89PNG"

    def test_a_description_by_a_user_stays(
        self, study: FakeStudy, uploader: Callable[[], Uploader], runs: Callable[..., list[Run]], store: MlflowStore
    ) -> None:
        cell = study.cell("ppo-s0")
        ours = uploader()
        ours.send()
        (parent,) = runs(kind="study")
        assert "0 of 1 cells done, 1 running" in parent.tags["mlflow.note.content"]
        store.client.set_tag(parent.id, "mlflow.note.content", "mine")
        cell.update(state="failed", error="TrainingError: boom", finished=STARTED + 1)
        for anew in (False, True):
            (uploader() if anew else ours).send()
            assert runs(kind="study")[0].tags["mlflow.note.content"] == "mine"
