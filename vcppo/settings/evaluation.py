"""Evaluation of a policy on held-out problems."""

from typing import Literal

from pydantic import Field, field_validator

from vcppo.settings.base import Settings
from vcppo.settings.fixed import PROBLEMS_OF_A_SEED
from vcppo.settings.rollout import not_too_cold

Problems = Literal["report", "search"]


class EvaluationSettings(Settings):
    """Held-out problems, fixed for a task, several responses to each; EVALUATION_OF_TASK has each task's defaults."""

    samples: int = Field(
        8,
        ge=1,
        description="responses per problem in the final evaluation; unless set, the task says: embedded 8, maths 32, "
        "and 1 at temperature 0",
    )
    problems: Problems = Field(
        "report", description="the held-out problems that are reported, or those kept for choosing settings by"
    )
    every: int = Field(10, ge=0, description="iterations between evaluations during training; 0 for none")
    samples_during: int = Field(1, ge=1, description="responses per problem in those")
    temperature: float = Field(
        1.0, ge=0, description="of sampling, 0 for greedy decoding; unless set, the task says: 1 for all"
    )
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus; unless set, the task says: embedded ones 1, maths 0.7")
    seed: int = Field(0, ge=0, description="of the sampling; the same for every run")
    responses_at_once: int = Field(
        256,
        ge=1,
        description="responses written together, whole problems; more are faster, fewer lose less when killed",
    )

    _cold = field_validator("temperature")(not_too_cold)

    def problems_at_once(self, samples: int) -> int:
        """Problems whose responses are written together: whole ones, of one seed, at least one."""
        return min(max(1, self.responses_at_once // samples), PROBLEMS_OF_A_SEED)
