"""Logged models and traces of a run in MLflow, each once: what is there already is looked up, or has the same id.

They go when another run takes the place of theirs. A server before 3.4 knows neither, and lacks them.
"""

import base64
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vcppo.tracking.logged_models import ModelRecord, ProblemSet
from vcppo.tracking.mlflow_client import LONGEST_PARAM, LONGEST_TAG, METRICS_PER_CALL, MlflowStore, Run, cut
from vcppo.tracking.sampled_traces import SEARCHED, SampledTrace

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Span

TRACES_PER_CALL = 100  # MLflow's limit of those that are linked to a run at once


def log_problem_sets(store: MlflowStore, run: Run, problem_sets: Sequence[ProblemSet]) -> None:
    """Link a run to problem sets, each once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    if not problem_sets:
        return
    inputs = [
        DatasetInput(
            Dataset(problems.name, problems.digest, "local", problems.source),
            [InputTag("mlflow.data.context", problems.context)],
        )
        for problems in problem_sets
    ]
    with store.translated():
        store.client.log_inputs(run.id, inputs)


def log_models(store: MlflowStore, run: Run, models: Sequence[ModelRecord], owner: Mapping[str, str]) -> None:
    """Make these the logged models of a run: those that it lacks are made, twins and those of no record deleted.

    Args:
        owner: tags that all of them have, and no others.
    """
    from mlflow.entities import LoggedModelOutput

    with _of_servers_that_can(store):
        names = {record.name for record in models}
        by_name: dict[str, LoggedModel] = {}
        for model in _models(store, owner):
            if model.name in names and model.name not in by_name and model.source_run_id == run.id:
                by_name[model.name] = model
            else:
                store.client.delete_logged_model(model.model_id)
        incomplete = [r for r in models if r.name not in by_name or str(by_name[r.name].status) != "READY"]
        if not incomplete:
            return
        known = {model.model_id for model in by_name.values()}
        outputs = store.client.get_run(run.id).outputs
        linked = {output.model_id for output in outputs.model_outputs} if outputs is not None else set()
        for record in incomplete:
            made = by_name.get(record.name) or store.client.create_logged_model(
                store.experiment_id,
                record.name,
                run.id,
                tags={name: cut(value, LONGEST_TAG) for name, value in record.tags.items()},
                params={name: cut(value, LONGEST_PARAM) for name, value in record.params.items()},
                model_type=record.kind,
            )
            if made.model_id not in linked:
                store.client.log_outputs(run.id, [LoggedModelOutput(made.model_id, record.step)])
            _log_metrics(store, run, made.model_id, record)
            store.client.finalize_logged_model(made.model_id, "READY")
            known.add(made.model_id)
        for model in _models(store, owner):
            if model.model_id not in known:  # of a request that reached the server twice
                store.client.delete_logged_model(model.model_id)


def delete_models(store: MlflowStore, owner: Mapping[str, str]) -> None:
    """Delete the logged models with these tags."""
    with _of_servers_that_can(store):
        for model in _models(store, owner):
            store.client.delete_logged_model(model.model_id)


def log_traces(store: MlflowStore, run: Run, traces: Sequence[SampledTrace], owner: Mapping[str, str]) -> None:
    """Log traces, tagged with their owner, and link them to their run."""
    from mlflow.tracing.client import TracingClient

    with _of_servers_that_can(store):
        for start in range(0, len(traces), TRACES_PER_CALL):
            some = traces[start : start + TRACES_PER_CALL]
            spans = [_span(trace, owner) for trace in some]
            TracingClient(store.client.tracking_uri).log_spans(store.experiment_id, spans)
            store.client.link_traces_to_run([f"tr-{trace.id}" for trace in some], run.id)


def delete_traces(store: MlflowStore, owner: Mapping[str, str]) -> None:
    """Delete the traces with these tags."""
    with _of_servers_that_can(store):
        while traces := store.client.search_traces(
            locations=[store.experiment_id], filter_string=_query(owner), include_spans=False
        ):
            ids = [trace.info.trace_id for trace in traces]
            store.client.delete_traces(store.experiment_id, trace_ids=ids)


def _models(store: MlflowStore, owner: Mapping[str, str]) -> list["LoggedModel"]:
    """Return the models with these tags, oldest first."""
    order = [{"field_name": "creation_timestamp", "ascending": True}]
    models: list[LoggedModel] = []
    token = None
    while True:
        page = store.client.search_logged_models([store.experiment_id], _query(owner), order_by=order, page_token=token)
        models += page
        token = page.token
        if not token:
            return models


def _query(tags: Mapping[str, str]) -> str:
    return " AND ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())


def _log_metrics(store: MlflowStore, run: Run, model_id: str, record: ModelRecord) -> None:
    from mlflow.entities import Metric

    metrics = [
        Metric(
            point.name,
            point.value,
            point.time_ms,
            point.step,
            model_id=model_id,
            dataset_name=None if measured.problems is None else measured.problems.name,
            dataset_digest=None if measured.problems is None else measured.problems.digest,
        )
        for measured in record.measured
        for point in measured.points
        if math.isfinite(point.value)  # MLflow would store 0
    ]
    for start in range(0, len(metrics), METRICS_PER_CALL):
        store.client.log_batch(run.id, metrics=metrics[start : start + METRICS_PER_CALL], synchronous=True)


def _span(trace: SampledTrace, owner: Mapping[str, str]) -> "Span":
    """Return the one span of a trace."""
    from mlflow.entities import Span

    named = {"mlflow.traceRequestId": f"tr-{trace.id}", "mlflow.spanType": "LLM"}
    named |= {"mlflow.spanInputs": trace.prompt, "mlflow.spanOutputs": trace.response}
    searched = {name: str(trace.attributes[name]) for name in SEARCHED}
    tags = {f"mlflow.traceTag.{name}": value for name, value in {**owner, **searched}.items()}
    return Span.from_dict(
        {
            "trace_id": base64.b64encode(bytes.fromhex(trace.id)).decode(),
            "span_id": base64.b64encode(bytes.fromhex(trace.id[:16])).decode(),
            "parent_span_id": None,
            "name": "response",
            "start_time_unix_nano": trace.time_ns,
            "end_time_unix_nano": trace.time_ns,
            "events": [],
            "status": {"code": "STATUS_CODE_OK", "message": ""},
            "attributes": {
                name: json.dumps(value, ensure_ascii=False) for name, value in (named | trace.attributes | tags).items()
            },
        }
    )


@contextmanager
def _of_servers_that_can(store: MlflowStore) -> Iterator[None]:
    """Translate errors as every call does; of an old server's, that it has no such call is none."""
    from mlflow.exceptions import MlflowException

    with store.translated():
        try:
            yield
        except NotImplementedError:
            return
        except MlflowException as error:
            if error.error_code != "ENDPOINT_NOT_FOUND":
                raise
