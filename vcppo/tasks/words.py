"""Words of the embedded tasks: one token each, a line of thought begins with a number sign, an answer with `=`."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerFast

from vcppo.types import Prompt

PAD, END, ASK, ANSWER = "<pad>", "<eos>", "?", "="


def step_starts(pieces: Sequence[str]) -> list[int]:
    """Token indices at which steps begin, 0 first: a line of thought is a step, and so is the answer.

    >>> step_starts(["#1", "4", "#2", "5", "="])
    [0, 2, 4]
    """
    return [0, *(i for i, piece in enumerate(pieces) if i and (piece == ANSWER or piece.startswith("#")))]


def encode(prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
    """Token ids of the questions, without a template."""
    return [tuple(ids) for ids in tokenizer([prompt.text for prompt in prompts])["input_ids"]]
