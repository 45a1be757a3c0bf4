"""Base classes of tasks from outside: all of Task but the problems and the verdicts.

`task.name = "package.module:Class"` names any class with the methods of Task (vcppo/tasks/base.py); one that inherits
from PluginTask writes `training_problems`, `held_out_prompts` and `judge`, sets `name` and `max_tokens`, and overrides
what it has otherwise. docs/adding.md has a whole one, vcppo/settings/plugin.py what a class may have beside methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vcppo.errors import CheckpointError, ConfigError
from vcppo.tasks.lines import line_starts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from vcppo.settings.evaluation import Problems
    from vcppo.types import Demonstration, Judgement, Prompt

Method = TypeVar("Method", bound=Callable[..., Any])


def left_out(method: Method) -> Method:
    """Mark a method as one that says what its class does not have."""
    method.left_out = True  # type: ignore[attr-defined]
    return method


class PluginTask(ABC):
    """A task of which every problem to train on is known before. It has no state that a run changes.

    The class is made with one argument: `task.options` as validated by its `Options`, or the table as it is.
    A ValueError of it is told as a mistake in the options.
    """

    name: str  # see Task
    max_tokens: int  # see Task
    system: str | None = None  # the system's message before the question

    @abstractmethod
    def training_problems(self) -> Sequence[Prompt]:
        """Return the problems to learn from, the same ones at each call; none is held out."""

    @abstractmethod
    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task; an empty list where there are none for searches."""

    @abstractmethod
    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task."""

    @left_out
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """There is none: the tokenizer is that of the model, which `model.path` has to name. See Task."""
        raise ConfigError(
            f"model.path = none: the task {self.name} has no tokenizer of its own, expected a model that can read"
        )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """Every tokenizer will do that makes something of a problem. See Task."""
        self.encode(self.held_out_prompts()[:1], tokenizer)

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """See Task."""
        import torch

        problems = self.training_problems()
        return [problems[i] for i in torch.randint(len(problems), (count,), generator=rng).tolist()]

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """See Task."""
        return max(map(len, self.encode(self.training_problems(), tokenizer)))

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """There are none: the cold start has nothing to imitate. See Task.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"cold_start.steps: the task {self.name} has no demonstrations, which the cold start imitates; expected "
            "cold_start.steps = 0 and a model of model.path that answers already"
        )

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """A line that is not blank is a step. See Task."""
        return line_starts(pieces)

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """The tokenizer's chat template where it has one, with `system`; else the bare text after it. See Task.

        Raises:
            CheckpointError: the template or the tokenizer makes nothing of a prompt.
        """
        chat = tokenizer.chat_template is not None
        texts = [self._chat(prompt.text, tokenizer) if chat else self.bare_text(prompt.text) for prompt in prompts]
        rows = [tuple(row) for row in tokenizer(texts, add_special_tokens=not chat)["input_ids"]] if texts else []
        for prompt, row in zip(prompts, rows, strict=True):
            if not row:
                raise CheckpointError(
                    f"{tokenizer.name_or_path}: its tokenizer makes no token of the prompt {prompt.text[:60]!r}"
                )
        return rows

    def bare_text(self, text: str) -> str:
        """Return the question as a tokenizer without a chat template reads it."""
        return text if self.system is None else f"{self.system}\n\n{text}\n\n"

    def _chat(self, text: str, tokenizer: PreTrainedTokenizerFast) -> str:
        from jinja2.exceptions import TemplateError

        messages = [{"role": "user", "content": text}]
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        try:
            framed: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ValueError, TypeError) as error:
            raise CheckpointError(f"{tokenizer.name_or_path}: its chat template fails ({error})") from None
        return framed
