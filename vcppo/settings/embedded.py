"""Settings that every task with a small model of its own has beside its dials."""

from abc import ABC, abstractmethod
from typing import ClassVar

from pydantic import Field

from vcppo.settings.base import Settings
from vcppo.settings.evaluation import Problems


class EmbeddedTaskSettings(Settings, ABC):
    """A task with a small model made for it: what is estimated before anything runs is estimated from these."""

    exact_values: ClassVar[bool] = False  # whether its values can be computed (`ExactTask` in vcppo/tasks/base.py)

    held_out: int = Field(200, ge=1, description="problems kept for evaluation, never trained on")
    held_out_for_search: int = Field(
        0, ge=0, description="further problems, never trained on, that evaluation.problems = search asks in their stead"
    )

    def problems(self, use: Problems) -> int:
        """Count the problems that an evaluation asks."""
        return self.held_out if use == "report" else self.held_out_for_search

    @property
    @abstractmethod
    def prompt_tokens(self) -> int:
        """Tokens of the longest prompt."""

    @property
    @abstractmethod
    def response_tokens(self) -> int:
        """Tokens of the longest right response."""

    @property
    @abstractmethod
    def slack_tokens(self) -> int:
        """Tokens by which a response may be longer before it is cut."""

    @property
    @abstractmethod
    def steps_of_thought(self) -> int:
        """Steps of a right response, its answer left out."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Words of its tokenizer."""
