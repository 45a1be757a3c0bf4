"""Options of the task reasoning-gym, and the library's dataset that they describe."""

import difflib
from typing import Any, Literal

from pydantic import Field, JsonValue

from vcppo.errors import ConfigError
from vcppo.settings.base import Settings


class ReasoningGymOptions(Settings):
    """`task.options` of this task."""

    dataset: str | dict[str, float] = Field(description="one of reasoning-gym's, or several with their weights")
    config: dict[str, JsonValue] = Field({}, description="of the dataset; of several, a table for each by its name")
    size: int = Field(1000, ge=1, description="problems to learn from, less those that are repeated")
    held_out: int = Field(200, ge=1, description="problems of evaluation, never trained on")
    held_out_for_search: int = Field(0, ge=0, description="further ones, for evaluation.problems = search")
    seed: int = Field(0, ge=0, description="of the problems")
    template: Literal["default", "simple", "direct", "DeepSeekZero", "chain_of_draft"] = Field(
        "default", description="reasoning-gym's system prompt that asks for <answer></answer>"
    )
    max_tokens: int = Field(1024, ge=1, description="a response's length limit unless rollout.max_tokens gives one")
    time_limit_s: float = Field(5.0, gt=0, description="after which an answer that is still being scored is given up")
    memory_limit_mb: int = Field(4096, ge=512, description="of the process that scores, libraries included")


def dataset_of(options: ReasoningGymOptions) -> Any:
    """Return reasoning-gym's dataset of all problems.

    Raises:
        ConfigError: there is none of the name, or it refuses its config.
    """
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS, create_dataset

    several = {options.dataset: 1.0} if isinstance(options.dataset, str) else options.dataset
    unknown = sorted(set(several) - set(DATASETS) | set(several) & {"composite"})
    if unknown or not several:
        close = difflib.get_close_matches(unknown[0], DATASETS, n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(set(DATASETS) - {'composite'}))}"
        raise ConfigError(
            f"task.options.dataset = {', '.join(unknown) or 'none'}: reasoning-gym has no such dataset; {hint}"
        )
    counts = {"size": options.held_out + options.held_out_for_search + options.size, "seed": options.seed}
    try:
        if isinstance(options.dataset, str):
            return create_dataset(options.dataset, **{**options.config, **counts})
        if strange := sorted(set(options.config) - set(several)):
            raise ValueError(f"{strange[0]} is none of the datasets")
        specs = [DatasetSpec(name, weight, options.config.get(name, {})) for name, weight in several.items()]
        return create_dataset("composite", datasets=specs, **counts)
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise ConfigError(f"task.options.config = {options.config}: reasoning-gym refuses it ({error})") from None
