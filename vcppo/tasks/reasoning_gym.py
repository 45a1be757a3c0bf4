"""Problems of reasoning-gym: its generators ask, and its own `score_answer` judges, partial credit included.

    task.name = "vcppo.tasks.reasoning_gym:ReasoningGymTask"
    task.options = { dataset = "basic_arithmetic", size = 2000, config = { min_terms = 2, max_terms = 4 } }
    task.options = { dataset = { gcd = 1, countdown = 2 }, config = { gcd = { max_value = 100 } } }

Needs `pip install 'vcppo[reasoning-gym]'`. One dataset (or its `composite` of several, by weight) of one seed is cut by
index: first the problems that are reported, then those for searches, then those of training. A question that came
before is left out, so that none is in two of them.

A response answers within <answer></answer>, the last one counts. Its score becomes the credit of the judgement: 1 is
CORRECT, less is WRONG with that credit, and a response without an answer is UNREADABLE (`no answer`). One that the
library fails to score is UNREADABLE too (`not scored`).
"""

from __future__ import annotations

import difflib
import functools
import importlib.metadata
import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, JsonValue

from vcppo.errors import ConfigError
from vcppo.settings.base import Settings
from vcppo.tasks.plugin import PluginTask
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

if TYPE_CHECKING:
    import torch

    from vcppo.settings.evaluation import Problems

NAME = "vcppo.tasks.reasoning_gym:ReasoningGymTask"
VERSION = 1  # raised when problems or verdicts change by what is written here
_logger = logging.getLogger(__name__)


class ReasoningGymOptions(Settings):
    """`task.options` of this task."""

    dataset: str | dict[str, float] = Field(description="one of reasoning-gym's, or several with their weights")
    config: dict[str, JsonValue] = Field({}, description="of the dataset; of several, a table for each by its name")
    size: int = Field(1000, ge=1, description="problems to learn from, less those that are repeated")
    held_out: int = Field(200, ge=1, description="problems of evaluation, never trained on")
    held_out_for_search: int = Field(0, ge=0, description="further ones, for evaluation.problems = search")
    seed: int = Field(0, ge=0, description="of the problems")
    template: Literal["default", "simple", "direct", "DeepSeekZero", "chain_of_draft"] = Field(
        "default", description="reasoning-gym's system prompt that asks for <answer></answer>"
    )
    max_tokens: int = Field(1024, ge=1, description="a response's length limit unless rollout.max_tokens gives one")


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
        self.dataset = _dataset(options)

    @classmethod
    def fingerprint(cls, options: ReasoningGymOptions) -> dict[str, JsonValue]:
        """What makes the problems and judges, beside the options."""
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
        try:
            score = float(self.dataset.score_answer(answer, self._entry(_index(prompt))))
        except Exception as error:  # noqa: BLE001 - a hundred judges that others wrote, of what a policy may write
            _logger.warning("%s: reasoning-gym fails to score %.60r (%r)", prompt.name, answer, error)
            return Judgement(Verdict.UNREADABLE, "not scored")
        credit = min(max(score, 0.0), 1.0)
        if answer is None and credit == 0:
            return Judgement(Verdict.UNREADABLE, "no answer")
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


def _dataset(options: ReasoningGymOptions) -> Any:
    from reasoning_gym.composite import DatasetSpec
    from reasoning_gym.factory import DATASETS, create_dataset

    several = {options.dataset: 1.0} if isinstance(options.dataset, str) else options.dataset
    unknown = sorted(set(several) - set(DATASETS) | set(several) & {"composite"})
    if unknown or not several:
        close = difflib.get_close_matches(unknown[0], DATASETS, n=1) if unknown else []
        hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(sorted(set(DATASETS) - {'composite'}))}"
        raise ConfigError(
            f"task.options.dataset = {', '.join(unknown) or 'none'}: reasoning-gym has no such dataset; {hint}"
        )
    counts = {"size": options.held_out + options.held_out_for_search + options.size, "seed": options.seed}
    try:
        if isinstance(options.dataset, str):
            return create_dataset(options.dataset, **{**options.config, **counts})
        if strange := sorted(set(options.config) - set(several)):
            raise ValueError(f"{strange[0]} is none of the datasets")
        specs = [DatasetSpec(name, weight, options.config.get(name, {})) for name, weight in several.items()]
        return create_dataset("composite", datasets=specs, **counts)
    except (TypeError, ValueError, AssertionError, AttributeError) as error:
        raise ConfigError(f"task.options.config = {options.config}: reasoning-gym refuses it ({error})") from None
