"""Facts in a model's configuration, read without loading weights: end tokens, positions, a label for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# How families name the number of their positions; GPT-2's n_positions and the like answer to the first name too.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")


def end_tokens(policy: PreTrainedModel) -> tuple[int, ...]:
    """Tokens that end a response: all that `config` and `generation_config` name and the policy can generate.

    `models.load_policy` has put the end of the policy's tokenizer among them.
    """
    configured = [policy.config.eos_token_id, getattr(policy.generation_config, "eos_token_id", None)]
    ends = (end for ids in configured for end in token_ids(ids) if 0 <= end < policy.config.vocab_size)
    return tuple(dict.fromkeys(ends))


def token_ids(configured: int | Sequence[int] | None) -> tuple[int, ...]:
    """One token, several or none, as configurations of transformers name them.

    >>> token_ids(5), token_ids([5, 7]), token_ids(None)
    ((5,), (5, 7), ())
    """
    return () if configured is None else (configured,) if isinstance(configured, int) else tuple(configured)


def positions(config: PretrainedConfig) -> int | None:
    """Tokens that a prompt and its response may have together; None if the model bounds them nowhere.

    For a multimodal model the `text_config` (or its like) decides.
    """
    text_config = config.get_text_config(decoder=True)
    limits = [limit for name in POSITIONS if isinstance(limit := getattr(text_config, name, None), int) and limit > 0]
    return min(limits, default=None)


def model_label(model: PreTrainedModel) -> str:
    """A model's class and the path or hub name it was loaded from, for messages."""
    kind, source = type(model).__name__.removeprefix("FSDP"), model.name_or_path
    return f"{kind} from {source}" if source else kind
