"""Defaults that other settings decide: how a task is evaluated, and how a model that is given is trained."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from vcppo.settings.task import EMBEDDED_TASKS, DigitsTaskSettings

# How each task is evaluated unless something else is said; maths as VAPO evaluates AIME (arXiv:2504.05118), embedded
# tasks as they are trained.
EVALUATION_OF_TASK: Mapping[str, Mapping[str, Any]] = {
    **{name: {"samples": 8, "temperature": 1.0, "top_p": 1.0} for name in EMBEDDED_TASKS},
    "maths": {"samples": 32, "temperature": 1.0, "top_p": 0.7},
}
# How a model that is given (model.path) is trained unless something else is said: the defaults below are those of a
# fresh network of a tenth of a million weights, and destroy one that knows something. See docs/processes.md.
OF_A_GIVEN_MODEL: Mapping[str, Any] = {
    "cold_start.learning_rate": 1e-5,
    "cold_start.warmup_steps": 10,
    "cold_start.steps": 100,
    "cold_start.batch_tokens": 16384,
    "reward_model.learning_rate": 1e-5,
    "reward_model.warmup_steps": 10,
    "pretrain.learning_rate": 1e-5,
    "pretrain.warmup_steps": 10,
    "policy.learning_rate": 1e-6,
    "policy.warmup_steps": 10,
    "critic.learning_rate": 1e-5,
    "critic.warmup_steps": 10,
}
OF_ADAPTERS: Mapping[str, Any] = {  # lora.rank > 0: low-rank adapters want ten times the rate of whole weights
    "cold_start.learning_rate": 1e-4,
    "reward_model.learning_rate": 1e-4,
    "pretrain.learning_rate": 1e-4,
    "policy.learning_rate": 1e-5,
    "critic.learning_rate": 1e-4,
}


def defaults_beside(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults, by dotted name, that other settings of a tree decide: task, greedy decoding, and a given model."""
    task = _value(tree, "task", "name", DigitsTaskSettings.model_fields["name"].default)
    of_task = EVALUATION_OF_TASK.get(task, {}) if isinstance(task, str) else {}
    if of_task and _value(tree, "evaluation", "temperature", None) == 0:
        of_task = {**of_task, "samples": 1}  # greedily, all responses to a problem are alike
    return {f"evaluation.{name}": value for name, value in of_task.items()} | defaults_of_model(tree)


def defaults_of_model(tree: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults beside a given model, with other rates where adapters are trained; none without one."""
    if _value(tree, "model", "path", None) is None:
        return {}
    rank = _value(tree, "lora", "rank", 0)
    adapted = isinstance(rank, int | float) and rank > 0
    return {**OF_A_GIVEN_MODEL, **(OF_ADAPTERS if adapted else {})}


def _value(tree: Mapping[str, Any], section: str, name: str, default: Any) -> Any:
    branch = set_values(tree.get(section, {}))
    return branch.get(name, default) if isinstance(branch, Mapping) else default


def set_values(section: Any) -> Any:
    """Return as a tree what was given of a section, defaults left out; a tree, or a mistake in its place, as it is."""
    return section.model_dump(exclude_unset=True) if isinstance(section, BaseModel) else section
