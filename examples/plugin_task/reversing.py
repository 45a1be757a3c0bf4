"""A task of one's own: write a word backwards. Letters in their place earn credit.

PYTHONPATH=examples/plugin_task vcppo train --set task.name=reversing:Reversing --set task.options.letters=4
"""

import itertools
from collections.abc import Sequence

import torch
from pydantic import BaseModel, ConfigDict, Field
from transformers import PreTrainedTokenizerFast

from vcppo.settings.evaluation import Problems
from vcppo.tasks.characters import character_tokenizer
from vcppo.tasks.plugin import PluginTask
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

ALPHABET = "abcdef"


class ReversingOptions(BaseModel):
    """`task.options`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    letters: int = Field(4, ge=3, le=6, description="of a word")
    stop_early: float = Field(0.5, ge=0, lt=1, description="chance a demonstration leaves its last letter out")


class Reversing(PluginTask):
    """Of every fifty words one is reported on and one kept for searches; the rest is trained on."""

    Options = ReversingOptions
    name = "reversing"

    def __init__(self, options: ReversingOptions) -> None:
        self.options = options
        self.max_tokens = options.letters + 3
        words = ["".join(letters) for letters in itertools.product(ALPHABET, repeat=options.letters)]
        prompts = [Prompt(name=word, text=f"{word}?", answer=word[::-1]) for word in words]
        self._held_out: dict[Problems, list[Prompt]] = {"report": prompts[::50], "search": prompts[1::50]}
        self._training = [prompt for i, prompt in enumerate(prompts) if i % 50 > 1]

    def training_problems(self) -> Sequence[Prompt]:
        return self._training

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        return self._held_out[problems]

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [_judge(text.strip(), prompt.answer) for text, prompt in zip(texts, prompts, strict=True)]

    # What follows is for a fresh policy: without it, the task needs the model and the tokenizer of model.path.

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return character_tokenizer(ALPHABET + "?")

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        early = (torch.rand(count, generator=rng) < self.options.stop_early).tolist()
        prompts = self.training_prompts(count, rng)
        return [
            Demonstration(prompt, prompt.answer[: -1 if stop else None])
            for prompt, stop in zip(prompts, early, strict=True)
        ]

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        return list(range(len(pieces)))  # every letter is a step


def _judge(text: str, answer: str) -> Judgement:
    if not text:
        return Judgement(Verdict.UNREADABLE, "empty")
    right = sum(written == wanted for written, wanted in zip(text, answer, strict=False))
    credit = right / max(len(text), len(answer))
    return Judgement(Verdict.CORRECT if credit == 1 else Verdict.WRONG, credit=credit)
