"""Demonstrations as token ids: the cold start imitates them, and so may the policy in RL."""

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vcppo.settings.fixed import DEMONSTRATIONS_AT_ONCE
from vcppo.tasks.base import Task
from vcppo.types import TokenBatch


def draw(
    task: Task, tokenizer: PreTrainedTokenizerFast, tokens: int, rng: torch.Generator
) -> tuple[list[Tensor], list[int]]:
    """Draw demonstrations, sixteen at a time, until they have `tokens` tokens.

    Each ends with the tokenizer's end of sequence, whether its text says so or not: responses are taught to stop.

    Returns:
        token ids of each, and where each one's response starts.
    """
    end = tokenizer.eos_token_id
    sequences: list[Tensor] = []
    starts: list[int] = []
    while sum(map(len, sequences)) < tokens:
        drawn = task.demonstrations(DEMONSTRATIONS_AT_ONCE, rng)
        prompts = task.encode([demonstration.prompt for demonstration in drawn], tokenizer)
        texts = [demonstration.response for demonstration in drawn]
        for prompt, response in zip(prompts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True):
            ending = [] if response and response[-1] == end else [end]
            sequences.append(torch.tensor([*prompt, *response, *ending]))
            starts.append(len(prompt))
    return sequences, starts


def demonstrations(task: Task, tokenizer: PreTrainedTokenizerFast, rng: torch.Generator) -> TokenBatch:
    """Draw DEMONSTRATIONS_AT_ONCE of them as a batch."""
    return batch_of(*draw(task, tokenizer, 1, rng))


def batch_of(sequences: list[Tensor], starts: list[int]) -> TokenBatch:
    """Collate what `draw` returns."""
    prompt_lengths = torch.tensor(starts)
    lengths = torch.tensor([len(sequence) for sequence in sequences]) - prompt_lengths
    return TokenBatch(
        input_ids=torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True),
        prompt_lengths=prompt_lengths,
        response_mask=torch.arange(int(lengths.max()))[None] < lengths[:, None],
    )
