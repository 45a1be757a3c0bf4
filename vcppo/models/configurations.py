"""Facts in a model's configuration, read without loading weights: end tokens, positions, a label for messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

# How families name the number of their positions; GPT-2's n_positions and the like answer to the first name too.
ORIGINAL = "original_max_position_embeddings"
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length")


def end_tokens(policy: PreTrainedModel) -> tuple[int, ...]:
    """Tokens that end a response: all that `config` and `generation_config` name and the policy can generate.

    `models.load_policy` has put the end of the policy's tokenizer among them.
    """
    known = range(policy.get_input_embeddings().num_embeddings)
    return tuple(dict.fromkeys(end for end in configured_ends(policy) if end in known))


def configured_ends(policy: PreTrainedModel) -> tuple[int, ...]:
    """All that `config` and `generation_config` name as an end; a multimodal model's `config` may name none."""
    places = (policy.config, policy.generation_config)
    return tuple(end for place in places for end in token_ids(getattr(place, "eos_token_id", None)))


def token_ids(configured: int | Sequence[int] | None) -> tuple[int, ...]:
    """One token, several or none, as configurations of transformers name them.

    >>> token_ids(5), token_ids([5, 7]), token_ids(None)
    ((5,), (5, 7), ())
    """
    return () if configured is None else (configured,) if isinstance(configured, int) else tuple(configured)


def positions(config: PretrainedConfig) -> int | None:
    """Tokens that a prompt and its response may have together; None if the model bounds them nowhere.

    For a multimodal model the `text_config` (or its like) decides. LongRoPE (Phi-3, Phi-4-mini) is good for the length
    before it was stretched: beyond, what it makes of a response depends on how long those beside it are.
    """
    text_config = config.get_text_config(decoder=True)
    limits = [getattr(text_config, name, None) for name in POSITIONS]
    rope = getattr(text_config, "rope_parameters", None) or {}
    if rope.get("rope_type") == "longrope":
        limits += [rope.get(ORIGINAL), getattr(text_config, ORIGINAL, None)]
    return min((limit for limit in limits if isinstance(limit, int) and limit > 0), default=None)


def model_label(model: PreTrainedModel) -> str:
    """A model's class and the path or hub name it was loaded from, for messages."""
    kind, source = type(model).__name__.removeprefix("FSDP"), model.name_or_path
    return f"{kind} from {source}" if source else kind
