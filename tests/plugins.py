"""Tasks from outside, as tests give them to task.name."""

import string

from transformers import PreTrainedTokenizerFast

from vcppo.tasks.characters import character_tokenizer
from vcppo.tasks.reasoning_gym import ReasoningGymTask
from vcppo.tasks.reasoning_gym_data import ReasoningGymOptions


class SpelledGym(ReasoningGymTask):
    """reasoning-gym for a small fresh policy: a token a character, and no system prompt."""

    def __init__(self, options: ReasoningGymOptions) -> None:
        super().__init__(options)
        self.system = None

    def tokenizer(self) -> PreTrainedTokenizerFast:
        return character_tokenizer(string.printable)
