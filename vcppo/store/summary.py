"""The one summary of a run: its scores beside its evaluation, from the curves of its RL stage.

The pipeline puts it into a cell's result, by which a study scores the run; an export writes the same numbers. This
module needs nothing, so that figures may import what "the end of a run" means.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Curves = dict[str, dict[int, float]]  # metric -> step -> value

LAST_ITERATIONS: Final = 5  # the end of a run, and what a pruner sees, is the mean over so many


# Results by which a study may score a run, beside those of its evaluation: what `summary` makes, and two counts.
NAMES: Final = (
    *("final_accuracy", "min_accuracy", "start_length_tokens", "final_length_tokens", "min_length_fraction"),
    *("start_reward_cosine", "start_score_z", "start_length_z", "early_warning_at", "steps", "pretrain_steps_done"),
)

EARLY_WARNING: Final = "early_warning/"  # metrics of an RL stage that are 1 where an iteration warns


def curves_of(records: Iterable[Mapping[str, Any]]) -> Curves:
    """Metrics among journal records, by name and step; null is NaN, and of several at one step the latest counts.

    >>> curves_of([{"kind": "metrics", "step": 3, "time": 1.0, "values": {"policy/loss": 0.5, "value/loss": None}}])
    {'policy/loss': {3: 0.5}, 'value/loss': {3: nan}}
    """
    curves: Curves = {}
    for record in sorted((r for r in records if r["kind"] == "metrics"), key=lambda r: int(r["time"] * 1000)):
        for name, value in record["values"].items():
            curves.setdefault(name, {})[record["step"]] = math.nan if value is None else value
    return curves


def summary(curves: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Start, extremes and end of accuracy and length over RL iterations, and what was foreseen; empty before the first.

    `start_score_z` and the like are there where iteration 0 measured them, `early_warning_at` where one warned.

    >>> lengths = {0: 100.0, 1: 50.0, 2: 60.0}
    >>> summary({"rollout/accuracy": {0: 0.5, 1: 0.25, 2: 0.75}, "rollout/length_tokens": lengths})["final_accuracy"]
    0.5
    """
    accuracies = _in_order(curves.get("rollout/accuracy", {}))
    lengths = _in_order(curves.get("rollout/length_tokens", {}))
    if not accuracies or not lengths:
        return {}
    return {
        "start_length_tokens": lengths[0],
        "final_length_tokens": mean_of_last(lengths),
        "min_length_fraction": min(lengths) / lengths[0],
        "min_accuracy": min(accuracies),
        "final_accuracy": mean_of_last(accuracies),
        **_first_alignment(curves),
        **_first_warning(curves),
    }


def _first_alignment(curves: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """Alignment of the gradient before the first update, those of its numbers that were measured."""
    names = {"start_reward_cosine": "reward_cosine", "start_score_z": "score_z", "start_length_z": "length_z"}
    first = {column: curves.get(f"alignment/{name}", {}).get(0, math.nan) for column, name in names.items()}
    return {column: value for column, value in first.items() if math.isfinite(value)}


def _first_warning(curves: Mapping[str, Mapping[int, float]]) -> dict[str, float]:
    """The first iteration with an early warning, if any had one."""
    since = warned_since(curves)
    return {"early_warning_at": float(min(since.values()))} if since else {}


def warned_since(curves: Mapping[str, Mapping[int, float]]) -> dict[str, int]:
    """Return by rule the first iteration that broke it; rules that none broke are absent.

    >>> warned_since({"early_warning/length_falls": {0: 0.0, 1: 1.0, 2: 1.0}, "early_warning/alignment": {0: 0.0}})
    {'length_falls': 1}
    """
    since = {}
    for name, by_step in sorted(curves.items()):
        warned = [step for step, value in by_step.items() if value > 0] if name.startswith(EARLY_WARNING) else []
        if warned:
            since[name.removeprefix(EARLY_WARNING)] = min(warned)
    return since


def mean_of_last(values: Sequence[float]) -> float:
    """Mean over the last `LAST_ITERATIONS` values, or over all of fewer."""
    last = values[-LAST_ITERATIONS:]
    return sum(last) / len(last)


def _in_order(by_step: Mapping[int, float]) -> list[float]:
    return [value for _, value in sorted(by_step.items())]
