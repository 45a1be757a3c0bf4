"""Problems of reasoning-gym: its generators ask, and its own `score_answer` judges, partial credit included.

    task.name = "vcppo.tasks.reasoning_gym:ReasoningGymTask"
    task.options = { dataset = "basic_arithmetic", size = 2000, config = { min_terms = 2, max_terms = 4 } }
    task.options = { dataset = { gcd = 1, countdown = 2 }, config = { gcd = { max_value = 100 } } }

Needs `pip install 'vcppo[reasoning-gym]'`. One dataset (or its `composite` of several, by weight) of one seed is cut by
index: first the problems that are reported, then those for searches, then those of training. A question that came
before is left out, so that none is in two of them.

A response answers within <answer></answer>, the last one counts. Its score becomes the credit of the judgement: 1 is
CORRECT, less is WRONG with that credit, and a response without an answer is UNREADABLE (`no answer`), with credit where
the dataset gives some even then. One that has no score is UNREADABLE too, see vcppo/tasks/scorer.py for why. Some
datasets (countdown, simple_integration and others) evaluate answers as Python: whatever a policy writes may be run.
"""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from vcppo.errors import ConfigError
from vcppo.tasks.plugin import PluginTask
from vcppo.tasks.reasoning_gym_data import ReasoningGymOptions, dataset_of
from vcppo.tasks.scorer import shared_scorer
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

if TYPE_CHECKING:
    import torch

    from vcppo.settings.evaluation import Problems

NAME = "vcppo.tasks.reasoning_gym:ReasoningGymTask"
VERSION = 1  # raised when problems or verdicts change by what is written here


class ReasoningGymTask(PluginTask):
    """See the module."""

    Options = ReasoningGymOptions

    def __init__(self, options: ReasoningGymOptions) -> None:
        """Make the generator; problems are made when they are needed.

        Raises:
            ConfigError: reasoning-gym is not installed, or has no such dataset, or that one refuses its config.
        """
        try:
            from reasoning_gym.utils import SYSTEM_PROMPTS, extract_answer
        except ImportError as error:
            raise ConfigError(
                f"task.name = {NAME}: reasoning-gym is not there ({error}); pip install 'vcppo[reasoning-gym]'"
            ) from None
        self.options = options
        self.name = options.dataset if isinstance(options.dataset, str) else "+".join(options.dataset)
        self.max_tokens = options.max_tokens
        self.system = SYSTEM_PROMPTS[options.template]
        self._extract_answer = extract_answer
        self.dataset = dataset_of(options)

    @classmethod
    def fingerprint(cls, options: ReasoningGymOptions) -> dict[str, JsonValue]:
        """Return the versions of what makes the problems and judges, beside the options."""
        try:
            return {"version": VERSION, "reasoning-gym": importlib.metadata.version("reasoning-gym")}
        except importlib.metadata.PackageNotFoundError:
            raise ConfigError(f"task.name = {NAME}: pip install 'vcppo[reasoning-gym]'") from None

    @functools.cached_property
    def _held_out(self) -> dict[Problems, list[Prompt]]:
        reported, last = self.options.held_out, self.options.held_out + self.options.held_out_for_search
        prompts = self._new(range(last), set())
        return {
            "report": [prompt for prompt in prompts if _index(prompt) < reported],
            "search": [prompt for prompt in prompts if _index(prompt) >= reported],
        }

    @functools.cached_property
    def _training(self) -> list[Prompt]:
        """Raises ConfigError: every question is held out."""
        first = self.options.held_out + self.options.held_out_for_search
        measured = {prompt.text for prompts in self._held_out.values() for prompt in prompts}
        prompts = self._new(range(first, first + self.options.size), measured)
        if not prompts:
            raise ConfigError(
                f"task.options.dataset = {self.name}: all of its {self.options.size} problems to learn from are held "
                "out already; hold out fewer, or give it a config with more different problems"
            )
        return prompts

    def training_problems(self) -> Sequence[Prompt]:
        """See PluginTask."""
        return self._training

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task."""
        return self._held_out[problems]

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """The answer alone, in its tags: they teach the form, and no way to the answer.

        Raises:
            ConfigError: the dataset has no reference answers, only a judge.
        """
        prompts = self.training_prompts(count, rng)
        if not all(prompt.answer for prompt in prompts):
            raise ConfigError(
                f"task.options.dataset = {self.name}: some problems of it have no reference answer, which the cold "
                "start would imitate; expected cold_start.steps = 0"
            )
        return [Demonstration(prompt, f"<answer>{prompt.answer}</answer>") for prompt in prompts]

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task."""
        return [self._judge(text, prompt) for text, prompt in zip(texts, prompts, strict=True)]

    def _judge(self, text: str, prompt: Prompt) -> Judgement:
        answer = self._extract_answer(text)
        scorer = shared_scorer(time_limit_s=self.options.time_limit_s, memory_limit_mb=self.options.memory_limit_mb)
        score = scorer.score(self.options.model_dump_json(), answer, self._entry(_index(prompt)))
        if isinstance(score, str):
            return Judgement(Verdict.UNREADABLE, score)
        credit = min(max(score, 0.0), 1.0)
        if answer is None:
            return Judgement(Verdict.UNREADABLE, "no answer", credit or None)
        return Judgement(Verdict.CORRECT if credit == 1 else Verdict.WRONG, credit=credit)

    def _new(self, indices: Iterable[int], seen: set[str]) -> list[Prompt]:
        """The problems of these indices whose questions are not among those seen, nor come twice."""
        known, prompts = set(seen), []
        for index in indices:
            entry = self._entry(index)
            if entry["question"] not in known:
                known.add(entry["question"])
                answer = entry["answer"]
                name = f"{entry['metadata'].get('source_dataset', self.name)}-{index:05d}"
                prompts.append(Prompt(name, entry["question"], "" if answer is None else str(answer)))
        return prompts

    @functools.cached_property
    def _entries(self) -> dict[int, dict[str, Any]]:
        return {}

    def _entry(self, index: int) -> dict[str, Any]:
        """A problem as the library has it, made once."""
        if index not in self._entries:
            self._entries[index] = self.dataset[index]
        return self._entries[index]


def _index(prompt: Prompt) -> int:
    return int(prompt.name.rpartition("-")[2])
