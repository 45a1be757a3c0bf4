"""What the configuration of a model says, read without loading it: what ends a response, and what to call the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def end_tokens(policy: PreTrainedModel) -> tuple[int, ...]:
    """The tokens that end a response: all that `config` and `generation_config` name and the policy can write.

    `models.load_policy` has put the end of the policy's tokenizer among them.
    """
    named = [policy.config.eos_token_id, getattr(policy.generation_config, "eos_token_id", None)]
    ends = (end for ids in named for end in token_ids(ids) if 0 <= end < policy.config.vocab_size)
    return tuple(dict.fromkeys(ends))


def token_ids(named: int | Sequence[int] | None) -> tuple[int, ...]:
    """One token, several or none, as configurations of transformers name them.

    >>> token_ids(5), token_ids([5, 7]), token_ids(None)
    ((5,), (5, 7), ())
    """
    return () if named is None else (named,) if isinstance(named, int) else tuple(named)


def called(model: PreTrainedModel) -> str:
    """A model's class, and where it was loaded from, for messages about it."""
    kind, source = type(model).__name__.removeprefix("FSDP"), model.name_or_path
    return f"{kind} from {source}" if source else kind
