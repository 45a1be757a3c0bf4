"""What an engine owes the stages: answers with their log-probabilities, from the weights it was last given."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel

from vcppo.types import Generation


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    top_p: float
    max_tokens: int


class Engine(Protocol):
    """A generator of answers. It may live in this process or on a server."""

    def update_weights(self, policy: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int) -> list[Generation]:
        """One answer a prompt, in order. Answer i depends on the weights, prompt i, `seed` and i, on nothing else."""
        ...
