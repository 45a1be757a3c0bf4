"""Tasks from outside, as tests give them to task.name."""

import string
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

from vcppo.settings.evaluation import Problems
from vcppo.tasks.characters import character_tokenizer
from vcppo.tasks.plugin import PluginTask
from vcppo.tasks.reasoning_gym import ReasoningGymTask
from vcppo.tasks.reasoning_gym_data import ReasoningGymOptions
from vcppo.types import Judgement, Prompt, Verdict


class SpelledGym(ReasoningGymTask):
    """reasoning-gym for a small fresh policy: a token a character, and no system prompt."""

    def __init__(self, options: ReasoningGymOptions) -> None:
        super().__init__(options)
        self.system = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return character_tokenizer(string.printable)


class Riddles(PluginTask):
    """Questions of several lengths, which a given model reads; nothing is said of how long they are."""

    name, max_tokens = "riddles", 20

    def __init__(self, options: object) -> None:
        pass

    def training_problems(self) -> Sequence[Prompt]:
        return [Prompt(f"riddle-{n}", " + ".join("1" * n) + " = ?", str(n)) for n in range(1, 12)]

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        return [Prompt("riddle-20", " + ".join("1" * 20) + " = ?", "20")]

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        right = [text == prompt.answer for text, prompt in zip(texts, prompts, strict=True)]
        return [Judgement(Verdict.CORRECT if is_right else Verdict.WRONG) for is_right in right]


class EndlessRiddles(Riddles):
    """More of them than can be listed."""

    prompt_tokens = 77

    def training_problems(self) -> Sequence[Prompt]:
        raise NotImplementedError("without end")

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        return self.held_out_prompts() * count

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        return 77
