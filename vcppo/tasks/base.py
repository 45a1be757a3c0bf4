"""What a task owes the stages: prompts, a tokenizer, a verifier, and demonstrations to start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # whoever only asks for the problems, or compares answers, does without torch
    import torch
    from transformers import PreTrainedTokenizerFast

    from vcppo.settings.evaluation import Problems
    from vcppo.types import Demonstration, Judgement, Prompt


class Task(Protocol):
    """A source of problems and the judge of their answers. Stages know nothing else of it."""

    name: str  # of what is measured on, in the names of metrics
    max_tokens: int  # default limit on an answer's length

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that a fresh policy is saved with."""
        ...

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """See that questions can be read and answers written with a tokenizer; `source` is who it belongs to.

        Raises:
            ConfigError: they cannot, and every answer would be wrong.
        """
        ...

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """`count` problems drawn with replacement from those not held out."""
        ...

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """Tokens of the longest prompt that training may draw."""
        ...

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """The fixed problems of evaluation, the same for every seed: those of a report, or, none of them in common,
        those that settings are chosen by."""
        ...

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Answers to imitate in the cold start."""
        ...

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """Where the steps of an answer begin, as numbers of tokens; 0 first, strictly rising.

        Args:
            pieces: the answer's tokens as the tokenizer names them, at least one.
        """
        ...

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """Each prompt as the token ids that the policy reads, at least one."""
        ...

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """Judge the texts of answers, each to its prompt; never raises on what a policy may write."""
        ...
