"""What an engine owes the stages: answers with their log-probabilities, from the weights it was last given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from vcppo.types import Generation


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: float
    top_p: float
    max_tokens: int


@dataclass(frozen=True)
class BranchPoint:
    """Where to go on from: after the first `length` tokens of stem number `stem`, with at most `limit` tokens."""

    stem: int
    length: int
    limit: int


class Engine(Protocol):
    """A generator of answers. It may live in this process or on a server."""

    def update_weights(self, policy: PreTrainedModel) -> None:
        """Sample from these weights from now on."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, *, seed: int, first: int = 0
    ) -> list[Generation]:
        """One answer a prompt, in order. Answer i depends on the weights, prompt i, `seed` and first + i alone.

        So processes that each write some of the answers, `first` being the number of their first one, write together
        what one process would.
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
        """One continuation a point, in order; name a point K times for K of them.

        A stem is a prompt with its answer, as token ids, and is read once, however many points it has. Answer i
        depends on the weights, what stands before point i, its limit, `sampling`, `seed` and first + i alone.
        A continuation is cut at its point's limit or at `sampling.max_tokens`, whichever comes first.
        """
        ...


def end_tokens(policy: PreTrainedModel) -> tuple[int, ...]:
    """The tokens that end a response: all that `config` and `generation_config` name and the policy can write.

    `models.load_policy` has put the end of the policy's tokenizer among them.
    """
    named = (
        *token_ids(policy.config.eos_token_id),
        *token_ids(getattr(policy.generation_config, "eos_token_id", None)),
    )
    return tuple(dict.fromkeys(end for end in named if 0 <= end < policy.config.vocab_size))


def token_ids(named: int | Sequence[int] | None) -> tuple[int, ...]:
    """One token, several or none, as configurations of transformers name them.

    >>> token_ids(5), token_ids([5, 7]), token_ids(None)
    ((5,), (5, 7), ())
    """
    return () if named is None else (named,) if isinstance(named, int) else tuple(named)
