"""Sampling of an iteration's responses, and selection of those that are trained on."""

from typing import Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.base import Never, Settings, positive_interval
from vcppo.settings.fixed import TORCH_COLDEST


def not_too_cold(temperature: float) -> float:
    """Refuse a temperature at which logits overflow; 0, greedy decoding, passes."""
    if 0 < temperature < TORCH_COLDEST:
        raise PydanticCustomError(
            "temperature",
            "expected {least} or more: logits divided by so little overflow",
            {"least": f"{TORCH_COLDEST:g}"},
        )
    return temperature


class RolloutSettings(Settings):
    """Prompts and responses that one iteration samples, and how."""

    prompts: int = Field(96, ge=1, description="problems per iteration")
    samples_per_prompt: int = Field(1, ge=1, description="responses per problem; GRPO needs more than one")
    temperature: float = Field(
        1.0, ge=0, description="of sampling, above 0; log-probabilities are taken at it too, in training as well"
    )
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="nucleus; old_logprobs are of the whole distribution, vLLM's of it",
    )
    max_tokens: int | None = Field(None, ge=1, description="a response is cut here; by default the task says")
    refresh_every: int | Never = Field(
        1, description="iterations between refreshes of the policy that samples; `never`: the cold-start policy does"
    )

    _interval = field_validator("refresh_every")(positive_interval)
    _cold = field_validator("temperature")(not_too_cold)

    @field_validator("temperature")
    @classmethod
    def _not_greedy(cls, temperature: float) -> float:
        if temperature == 0:
            raise PydanticCustomError(
                "greedy",
                "expected more than 0: what is trained on is sampled, for log-probabilities at temperature 0 (greedy "
                "decoding) are 0 or minus infinity and have no gradient; only evaluation.temperature may be 0",
            )
        return temperature

    @property
    def sampling(self) -> dict[str, Any]:
        """Settings that decide how a response is drawn, in every stage: temperature, top_p, max_tokens."""
        return self.model_dump(mode="json", include={"temperature", "top_p", "max_tokens"})


class SelectSettings(Settings):
    """Selection of the responses that are trained on."""

    prune_rate: float = Field(0.0, ge=0, lt=1, description="share of responses dropped before any forward pass (CPPO)")
    scope: Literal["question", "batch"] = Field("question", description="responses are ranked within it")
    keep: Literal["largest", "smallest", "signed", "random"] = Field(
        "largest", description="responses with the largest or smallest |advantage|, the largest advantage, or any"
    )
    refill: bool = Field(False, description="ask 1 / (1 - prune_rate) times as many questions (dynamic allocation)")
    dynamic_sampling: bool = Field(False, description="groups all right or all wrong are replaced by new ones (DAPO)")
    max_rounds: int = Field(
        10, ge=1, description="rounds of sampling before a smaller batch has to do; if nothing is mixed, the last"
    )
    drop_truncated: bool = Field(False, description="responses cut at the limit are not trained on (DAPO's filter)")


class VineSettings(Settings):
    """Values by Monte Carlo: continuations sampled from the ends of a response's steps (VinePPO, arXiv:2410.01679)."""

    samples: int = Field(9, ge=1, description="continuations of each state")
    max_steps: int | None = Field(8, ge=1, description="steps of a response that get a value of their own; none: all")
    cap: Literal["merge", "first"] = Field(
        "merge", description="beyond max_steps: join neighbouring steps, or give the rest the realised return"
    )
