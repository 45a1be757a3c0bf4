"""Protocols of a task, which provides the stages with prompts, a tokenizer, a verifier, and demonstrations.

A class with these methods, wherever it lies, is a task: `task.name = "package.module:Class"`. Most inherit from
PluginTask (vcppo/tasks/plugin.py), which has those that a task of text need not write itself: a tokenizer and
demonstrations are for fresh policies, steps for estimators that count them, `decision_path` for exact values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:  # reading problems and comparing answers need no torch
    import torch
    from transformers import PreTrainedTokenizerFast

    from vcppo.settings.evaluation import Problems
    from vcppo.types import DecisionPath, Demonstration, Judgement, Prompt


class Task(Protocol):
    """A source of problems and the judge of responses to them. Stages know nothing else of it."""

    name: str  # of what is measured on, in the names of metrics
    max_tokens: int  # default limit on a response's length

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Return the tokenizer that a fresh policy is saved with."""
        ...

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """Check that a tokenizer can read prompts and write responses; `source` names the model it belongs to.

        Raises:
            ConfigError: it cannot, and every response would be wrong.
        """
        ...

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """Draw `count` problems with replacement from those not held out."""
        ...

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """Return the tokens of the longest prompt that training may draw."""
        ...

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """Return the fixed problems of evaluation, the same for every seed: those of a report, or the disjoint ones
        that settings are chosen by."""
        ...

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Draw responses to imitate in the cold start."""
        ...

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """Return where the steps of a response begin, as token indices; 0 first, strictly rising.

        Args:
            pieces: the response's tokens as the tokenizer names them, at least one.
        """
        ...

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """Return each prompt's token ids, at least one."""
        ...

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """Judge the texts of responses, each against its prompt; never raises on what a policy may write.

        A prompt is known by its name, text and reference answer. With partial credit, see `Judgement.credit`. Nobody
        limits the time that it takes; vcppo/tasks/judging.py holds what it returns to its form.
        """
        ...


@runtime_checkable
class ExactTask(Task, Protocol):
    """A task whose values can be computed (docs/critics.md): it knows which decisions a right response is made of.

    Its settings say so too, by `exact_values`. It gives no partial credit: values are computed of verdicts.
    """

    def decision_path(self, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """Return a response's way to its end, and where the ways lead that it did not take.

        The way goes through the response's own tokens as far as they lead to a right end, then on to one; where more
        than one token does, to whichever, for the others are listed as errors or exits.

        Args:
            pieces: the response's tokens as the tokenizer names them; none, for the way from the prompt.
        """
        ...


@runtime_checkable
class StoppingTask(Task, Protocol):
    """A task whose responses say where they decided to go on thinking or to answer."""

    def stop_decisions(self, pieces: Sequence[str]) -> list[tuple[int, bool]]:
        """Return each such decision: index of the token that took it, whether it ended the thought.

        Args:
            pieces: the response's tokens as the tokenizer names them, at least one.
        """
        ...
