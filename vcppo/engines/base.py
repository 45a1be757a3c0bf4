"""The protocol of engines: responses with their log-probabilities, from the weights of the last update."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from vcppo.errors import ConfigError, EngineError, TrainingError
from vcppo.settings.fixed import TORCH_COLDEST

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vcppo.types import Generation


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling. Temperature 0 is greedy decoding, its log-probabilities those at temperature 1.

    Raises:
        ConfigError: a temperature so low that logits divided by it could overflow.
    """

    temperature: float
    top_p: float
    max_tokens: int

    def __post_init__(self) -> None:
        if not (self.temperature == 0.0 or self.temperature >= TORCH_COLDEST):
            raise ConfigError(
                f"temperature {self.temperature:g}: expected 0, which is greedy decoding, or {TORCH_COLDEST:g} or more"
            )


@dataclass(frozen=True)
class BranchPoint:
    """Start of a continuation: after the first `length` tokens of stem number `stem`, with at most `limit` tokens."""

    stem: int
    length: int
    limit: int


class Engine(Protocol):
    """A generator of responses. It may live in this process or on a server."""

    def update_weights(self, policy: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """Sample one response per prompt, in order. Response i depends on the weights, prompt i, `seed` and first + i.

        So processes that each generate some of the responses, `first` being the number of their first one, generate
        together what one process would.
        """
        ...

    def branch(
        self,
        stems: Sequence[Sequence[int]],
        points: Sequence[BranchPoint],
        sampling: Sampling,
        *,
        seed: int,
        first: int = 0,
    ) -> list[Generation]:
        """Sample one continuation per point, in order; name a point K times for K of them.

        A stem is a prompt with its response, as token ids, and is read once, however many points it has. Continuation
        i depends on the weights, the tokens before point i, its limit, `sampling`, `seed` and first + i alone.
        A continuation is cut at its point's limit or at `sampling.max_tokens`, whichever comes first.
        """
        ...


def check_room(requests: Sequence[tuple[int, int]], positions: int | None) -> None:
    """Check that prompts with their responses fit the model.

    Args:
        requests: (tokens before a response, its limit) of each response.
    Raises:
        EngineError: one does not. The model would be run beyond what it has learnt, or its response cut before.
    """
    for i, (length, limit) in enumerate(requests):
        if positions is not None and length + limit > positions:
            raise EngineError(
                f"prompt {i} has {length} tokens and its response up to {limit}: more than the model's {positions}; "
                "see engine.max_length and rollout.max_tokens"
            )


def checked(generations: list[Generation], policy: str) -> list[Generation]:
    """Return the same generations, having checked their log-probabilities.

    Args:
        policy: its label in messages.
    Raises:
        TrainingError: a log-probability is not finite, because the logits were not.
    """
    for i, generation in enumerate(generations):
        if not math.isfinite(sum(generation.logprobs)):
            place = next(t for t, logprob in enumerate(generation.logprobs) if not math.isfinite(logprob))
            raise TrainingError(
                f"{policy}: its logits for token {place} of response {i} are not finite, nothing can be sampled; its "
                "weights are broken, or too large for the precision that it is run in"
            )
    return generations
