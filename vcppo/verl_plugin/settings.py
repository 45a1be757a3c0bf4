"""Settings below `algorithm.vcppo` in verl's configuration; the names are those of `vcppo settings`.

verl's schema is closed, so on its command line each of them takes a plus: `+algorithm.vcppo.lambda_actor=0.99`.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError

from vcppo.errors import ConfigError
from vcppo.settings.advantage import GaeSettings
from vcppo.settings.base import Settings
from vcppo.settings.critic import PretrainSettings
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.record import GuardSettings

SECTION = "algorithm.vcppo"
LAMBDA_ESTIMATORS = tuple(  # values of algorithm.adv_estimator, in whose place ours computes
    record.verl for record in ESTIMATORS.values() if record.uses_lambda and record.verl is not None
)


def _default(model: type[Settings], name: str) -> Any:
    """Return a default, which is defined once, in vcppo/settings."""
    return model.model_fields[name].default


class PretrainingPlan(Settings):
    """Value pretraining in verl: the actor stays as it is, the critic learns Monte-Carlo returns of its responses."""

    steps: int | Literal["converge"] = Field(
        _default(PretrainSettings, "steps"), description="updates; `converge`: trainer.total_training_steps at most"
    )
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the prompts that only measure, the same all along")
    evaluate_every: int = Field(_default(PretrainSettings, "evaluate_every"), ge=1, description="steps a measurement")
    patience: int = Field(_default(PretrainSettings, "patience"), ge=1, description="steps; see pretrain.patience")
    min_delta: float = Field(_default(PretrainSettings, "min_delta"), ge=0, lt=1, description="see pretrain.min_delta")
    seed: int = Field(0, ge=0, description="of the choice which prompts are held out")


class PluginSettings(Settings):
    """Settings in which our trainer differs from verl's."""

    lambda_actor: float = Field(_default(GaeSettings, "lambda_actor"), ge=0, le=1, description="of the advantages")
    lambda_critic: float = Field(_default(GaeSettings, "lambda_critic"), ge=0, le=1, description="of the value targets")
    length_adaptive_alpha: float | None = Field(None, gt=0, description="lambda_actor = 1 - 1/(alpha * length) instead")
    whiten: Literal["none", "batch"] = Field("batch", description="verl's own GAE always whitens over the batch")
    clip: float | None = Field(None, gt=0, description="advantages are limited to +-clip, after whitening")
    correct_above: float = Field(0.0, description="a response whose score is above this counts as right")
    position_bins: int = Field(8, ge=0, description="bins of bias and explained variance among the metrics; 0 for none")
    positions_every: int = Field(5, ge=1, description="steps between tables of the critic by token position")
    journal: str | None = Field(None, description="file for those tables; trainer.default_local_dir/vcppo.jsonl")
    on_warning: Literal["continue", "stop"] = Field(
        _default(GuardSettings, "on_warning"), description="after a step that warns: go on, or save it and end the run"
    )
    pretrain: PretrainingPlan | None = Field(None, description="pretrain the critic instead of training the policy")


def plugin_settings(config: Mapping[str, Any]) -> PluginSettings:
    """Return the plugin's settings from verl's whole configuration, a DictConfig or a dict.

    Raises:
        ConfigError: one of them is unknown, out of range, would be ignored, or does not go with verl's own; the
            message states which, what came and what was expected.
    """
    given = config["algorithm"].get("vcppo", None) or {}
    if not isinstance(given, Mapping):
        raise ConfigError(f"{SECTION} = {given}: expected settings below it, such as +{SECTION}.lambda_actor=0.95")
    tree = {name: dict(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    try:
        settings = PluginSettings.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail) for detail in error.errors())) from None
    problems = [*_ignored(settings, config["algorithm"]["adv_estimator"]), *_unfit(settings, config)]
    if problems:
        raise ConfigError("; ".join(problems))
    return settings


def _ignored(settings: PluginSettings, estimator: str) -> Iterator[str]:
    given = settings.model_fields_set
    if settings.length_adaptive_alpha is not None and "lambda_actor" in given:
        yield (
            f"{SECTION}.lambda_actor = {settings.lambda_actor}: it would be ignored, for {SECTION}."
            "length_adaptive_alpha makes lambda_actor from each response's length"
        )
    if estimator not in LAMBDA_ESTIMATORS:
        of_gae = ("lambda_actor", "lambda_critic", "length_adaptive_alpha", "whiten", "clip", "pretrain")
        for name in [name for name in of_gae if name in given]:
            wanted = " or ".join(LAMBDA_ESTIMATORS)
            yield f"{SECTION}.{name}: it would be ignored, for algorithm.adv_estimator = {estimator}; expected {wanted}"
    if settings.pretrain is not None and settings.pretrain.steps != "converge":
        for name in ("patience", "min_delta"):
            if name in settings.pretrain.model_fields_set:
                yield (
                    f"{SECTION}.pretrain.{name}: it would be ignored, for {SECTION}.pretrain.steps = "
                    f"{settings.pretrain.steps}; expected `converge`"
                )


def _unfit(settings: PluginSettings, config: Mapping[str, Any]) -> Iterator[str]:
    plan = settings.pretrain
    if plan is None:
        return
    if isinstance(plan.steps, int) and plan.steps < 1:
        yield f"{SECTION}.pretrain.steps = {plan.steps}: expected 1 or more, or `converge`"
    critic, data = config["critic"], config["data"]
    if critic["ppo_epochs"] != 1 or critic["ppo_mini_batch_size"] != data["train_batch_size"]:
        yield (
            f"critic.ppo_epochs = {critic['ppo_epochs']}, critic.ppo_mini_batch_size = {critic['ppo_mini_batch_size']}"
            f": in value pretraining a step is one update, expected 1 and {data['train_batch_size']}, which is "
            "data.train_batch_size"
        )
    total = config["trainer"]["total_training_steps"]
    if plan.steps == "converge" and total is None:
        yield (
            f"trainer.total_training_steps is not given: with {SECTION}.pretrain.steps = converge it is where "
            "pretraining gives up"
        )


def _explain(detail: Any) -> str:
    name = ".".join([SECTION, *(str(part) for part in detail["loc"] if part not in ("int", "literal['converge']"))])
    if detail["type"] == "extra_forbidden":
        return f"{name}: no such setting; there are {', '.join(PluginSettings.model_fields)}"
    message = detail["msg"]
    return f"{name} = {detail['input']!r}: {message[0].lower()}{message[1:]}"
