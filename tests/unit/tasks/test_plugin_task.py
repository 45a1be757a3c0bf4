"""What a task from outside inherits: draws, prompts by template or as bare text, words for what it does not have."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from vcppo.errors import CheckpointError, ConfigError
from vcppo.settings.evaluation import Problems
from vcppo.settings.plugin import needs_model
from vcppo.tasks.characters import character_tokenizer
from vcppo.tasks.plugin import PluginTask
from vcppo.types import Judgement, Prompt, Verdict

CHAT = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"


class Short(PluginTask):
    """Two problems to learn from."""

    name, max_tokens = "short", 4

    def training_problems(self) -> Sequence[Prompt]:
        return [Prompt("a", "a?", "a"), Prompt("b", "bbb?", "b")]

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        return [Prompt("c", "c?", "c")]

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [Judgement(Verdict.WRONG) for _ in texts]


def test_problems_are_drawn_with_replacement_by_the_generator_alone() -> None:
    task = Short()
    drawn = [prompt.name for prompt in task.training_prompts(1000, torch.Generator().manual_seed(3))]
    assert drawn == [prompt.name for prompt in task.training_prompts(1000, torch.Generator().manual_seed(3))]
    assert 400 < drawn.count("a") < 600


def test_a_tokenizer_without_a_template_reads_the_bare_text() -> None:
    task, tokenizer = Short(), character_tokenizer("abc?\n !")
    assert tokenizer.decode(task.encode([task.training_problems()[1]], tokenizer)[0]) == "bbb?"
    assert task.longest_prompt(tokenizer) == 4
    task.system = "a!"
    assert tokenizer.decode(task.encode([Prompt("a", "a?", "a")], tokenizer)[0]) == "a!\n\na?\n\n"
    assert task.encode([], tokenizer) == []


def test_a_chat_template_frames_it_with_the_system_before() -> None:
    task, tokenizer = Short(), character_tokenizer("abc?[]systemruani")
    tokenizer.chat_template = CHAT
    assert tokenizer.decode(task.encode([Prompt("a", "a?", "a")], tokenizer)[0]) == "[user]a?[assistant]"
    task.system = "s"
    assert tokenizer.decode(task.encode([Prompt("a", "a?", "a")], tokenizer)[0]) == "[system]s[user]a?[assistant]"
    tokenizer.chat_template = "{{ raise_exception('no system') }}"
    with pytest.raises(CheckpointError, match=r"its chat template fails .no system"):
        task.encode([Prompt("a", "a?", "a")], tokenizer)


def test_a_prompt_of_no_token_is_refused_before_anything_runs() -> None:
    silent: Any = lambda texts, add_special_tokens: {"input_ids": [[] for _ in texts]}  # noqa: E731
    silent.chat_template, silent.name_or_path = None, "m"
    with pytest.raises(CheckpointError, match=r"^m: its tokenizer makes no token of the prompt 'c.'"):
        Short().check_tokenizer(silent, "m")
    Short().check_tokenizer(character_tokenizer("c?"), "m")


def test_what_it_does_not_have_is_told() -> None:
    task = Short()
    with pytest.raises(ConfigError, match=r"^model.path = none: the task short has no tokenizer of its own"):
        task.tokenizer()
    with pytest.raises(ConfigError, match=r"^cold_start.steps: the task short has no demonstrations"):
        task.demonstrations(1, torch.Generator())
    assert needs_model(Short)
    assert not needs_model(type("Own", (Short,), {"tokenizer": lambda self: None}))
    assert not needs_model(type(SimpleNamespace()))


def test_lines_are_steps() -> None:
    assert Short().step_starts(["a", "\n", "b", "c", "\n\n", "d"]) == [0, 2, 5]


def test_a_character_is_a_token_and_comes_back() -> None:
    tokenizer = character_tokenizer("ab \n?")
    ids = tokenizer("b a\n?<eos>")["input_ids"]
    assert len(ids) == 6
    assert ids[-1] == tokenizer.eos_token_id == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "b a\n?"
    assert tokenizer("z")["input_ids"] == [tokenizer.unk_token_id]
