"""lighteval: Parquet files of `--save-details`, details/MODEL/TIME/details_TASK_TIME.parquet.

Source: `EvaluationTracker.save` of src/lighteval/logging/evaluation_tracker.py, `Detail` of
src/lighteval/logging/info_loggers.py, `Doc` of src/lighteval/tasks/requests.py and `ModelResponse` of
src/lighteval/models/model_output.py at 3fd1526 (May 2026, 0.13.1.dev0): doc (query, ...), model_response (input,
input_tokens, text, output_tokens, ...) and metric (a number for each metric); its documentation calls them `__doc__`,
`__model_response__` and `__metric__`. Up to 0.9 (same files): full_prompt, predictions, cont_tokens, input_tokens,
metrics. A row has all samples of a problem and one number for them together, so that problems with several samples have
no score for each response.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from vcppo.diagnosis.dumps.form import Cell, Cells, Form, Notes, Role, has
from vcppo.errors import DataError
from vcppo.tasks.rows import Row

_IS_BEFORE = has("full_prompt", "predictions", "metrics")


def _cells(row: Row, notes: Notes, named: frozenset[Role]) -> Iterable[Cells]:
    if _IS_BEFORE(frozenset(row.values)):
        response: Mapping[str, Any] = {
            "text": row.values["predictions"],
            "input_tokens": row.values.get("input_tokens"),
            "output_tokens": row.values.get("cont_tokens"),
        }
        query, metrics, column = row.values["full_prompt"], row.values["metrics"], "metrics"
    else:
        response, metrics = _struct(row, "model_response"), _struct(row, "metric")
        query, column = _struct(row, "doc").get("query"), "metric"
    texts = response.get("text")
    texts = texts if isinstance(texts, list) else [] if texts is None else [texts]
    if len(texts) != 1:
        why = (
            "log-likelihoods of choices have no response" if not texts else "lighteval keeps one score for all of them"
        )
        raise DataError(f"{row.place}: {len(texts)} generated texts for a problem; expected one, for {why}")
    cells: Cells = {
        "prompt": Cell("model_response.input", response.get("input") or query),
        "response": Cell("model_response.text", texts[0]),
    }
    for role, name in (("prompt_tokens", "input_tokens"), ("tokens", "output_tokens")):
        ids = _ids(response.get(name))
        if ids:
            cells[role] = Cell(f"model_response.{name}", ids)  # type: ignore[index]
    if "score" not in named and (score := _metric(column, metrics, notes)) is not None:
        cells["score"] = score
    yield cells


def _struct(row: Row, name: str) -> Mapping[str, Any]:
    value = row.values.get(name, row.values.get(f"__{name}__"))
    if not isinstance(value, Mapping):
        raise DataError(f"{row.place}: {name} is {type(value).__name__}; expected an object of columns")
    return value


def _ids(value: Any) -> list[Any] | None:
    """The token ids of the only sample, which may be in a list of samples."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list) else value
    return inner if isinstance(inner, list) and inner and isinstance(inner[0], int) else None


def _metric(column: str, metrics: Any, notes: Notes) -> Cell | None:
    """The first metric that is a number, in the order of their names."""
    if not isinstance(metrics, Mapping):
        return None
    numbers = sorted(name for name, value in metrics.items() if isinstance(value, bool | int | float))
    if not numbers:
        return None
    if len(numbers) > 1:
        notes.say(
            f"score = {column}.{numbers[0]}, the first of the metrics {', '.join(numbers)}; score={column}.NAME takes "
            "another"
        )
    return Cell(f"{column}.{numbers[0]}", metrics[numbers[0]])


def _fits(columns: frozenset[str]) -> bool:
    of_now = any(has(f"{a}doc{a}", f"{a}model_response{a}", f"{a}metric{a}")(columns) for a in ("", "__"))
    return of_now or _IS_BEFORE(columns)


FORM = Form(
    description="lighteval, Parquet files of --save-details: doc, model_response, metric",
    fits=_fits,
    cells=_cells,
    notes=("lighteval logs neither values nor log-probabilities of responses",),
)
