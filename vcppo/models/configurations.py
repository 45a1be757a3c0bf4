"""What the configuration of a model says, read without loading it: its ends, its positions, what to call it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# How families name the number of their positions; GPT-2's n_positions and the like answer to the first name too.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")


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


def positions(config: PretrainedConfig) -> int | None:
    """Tokens that a prompt and its response may have together; None if the model bounds them nowhere.

    Of a model that reads more than text (`text_config` and the like), the part that reads text says it.
    """
    own = config.get_text_config(decoder=True)
    found = [known for name in POSITIONS if isinstance(known := getattr(own, name, None), int) and known > 0]
    return min(found, default=None)


def called(model: PreTrainedModel) -> str:
    """A model's class, and where it was loaded from, for messages about it."""
    kind, source = type(model).__name__.removeprefix("FSDP"), model.name_or_path
    return f"{kind} from {source}" if source else kind
