"""Small sums, asked of a model that reads text: "What is 23 + 45 + 67?", answered in a box.

    task.name = "vcppo.tasks.sums:SumsTask"
    task.options = { terms = 4, at_once = 0.3 }

A demonstration adds term by term, a line each, or answers at once, as a coin says. So a small model that imitates them
has two ways to respond: a long one that it mostly gets right, and a short one that it mostly gets wrong. Going on or
answering is decided at the beginning of each line, which makes this a StoppingTask. Problems are drawn by a seed and
need no file and no network.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, JsonValue

from vcppo.settings.base import Settings
from vcppo.tasks.extraction import BOX, as_integer, last_box
from vcppo.tasks.lines import line_starts
from vcppo.tasks.plugin import PluginTask
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

if TYPE_CHECKING:
    import torch

    from vcppo.settings.evaluation import Problems

NAME = "vcppo.tasks.sums:SumsTask"
VERSION = 1  # raised when problems, demonstrations or verdicts change by what is written here
TEMPLATE_TOKENS = 16  # of a chat template around the question, whose tokenizer is not known here
SLACK_TOKENS = 8  # that a response may be longer before it is cut


class SumsOptions(Settings):
    """`task.options` of this task."""

    terms: int = Field(3, ge=2, le=8, description="numbers that are added")
    digits: int = Field(2, ge=1, le=4, description="of each number")
    at_once: float = Field(0.5, ge=0, le=1, description="chance that a demonstration answers at once")
    size: int = Field(4000, ge=1, description="problems to learn from")
    held_out: int = Field(200, ge=1, description="problems of evaluation, never trained on")
    held_out_for_search: int = Field(0, ge=0, description="further ones, for evaluation.problems = search")
    seed: int = Field(0, ge=0, description="of the problems, the same for every seed of a study")


class SumsTask(PluginTask):
    """See the module."""

    Options = SumsOptions
    name = "sums"
    system = ""  # none, where a template would write one of its own before every question

    def __init__(self, options: SumsOptions) -> None:
        """Take the options.

        Raises:
            ValueError: there are not so many different sums.
        """
        self.options = options
        self._numbers = range(10 ** (options.digits - 1), 10**options.digits)
        wanted, there = options.held_out + options.held_out_for_search + options.size, len(self._numbers)
        if wanted > there**options.terms:
            raise ValueError(
                f"size, held_out and held_out_for_search together are {wanted}, and there are {there**options.terms} "
                f"sums of {options.terms} numbers with {options.digits} digits"
            )
        longest = [self._numbers[-1]] * options.terms
        self.prompt_tokens = TEMPLATE_TOKENS + _most_tokens(_question(longest))
        self.response_tokens = _most_tokens(_in_steps(longest))
        self.max_tokens = self.response_tokens + SLACK_TOKENS
        self.steps_of_thought = options.terms

    @classmethod
    def fingerprint(cls, options: SumsOptions) -> dict[str, JsonValue]:
        """Return the version of what is written here, beside the options."""
        return {"version": VERSION}

    @functools.cached_property
    def _problems(self) -> list[Prompt]:
        """All of them: those reported on, those for searches, those of training."""
        options, base = self.options, len(self._numbers)
        count = options.held_out + options.held_out_for_search + options.size
        drawn = random.Random(options.seed).sample(range(base**options.terms), count)
        sums = [[self._numbers[number // base**place % base] for place in range(options.terms)] for number in drawn]
        return [Prompt("+".join(map(str, terms)), _question(terms), str(sum(terms))) for terms in sums]

    def training_problems(self) -> Sequence[Prompt]:
        """See PluginTask."""
        return self._problems[self.options.held_out + self.options.held_out_for_search :]

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task."""
        reported = self.options.held_out
        first, count = {"report": (0, reported), "search": (reported, self.options.held_out_for_search)}[problems]
        return self._problems[first : first + count]

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Draw responses that add term by term, and others that answer at once."""
        import torch

        at_once = (torch.rand(count, generator=rng) < self.options.at_once).tolist()
        prompts = self.training_prompts(count, rng)
        return [
            Demonstration(prompt, _boxed(prompt.answer) if short else _in_steps(_terms(prompt)))
            for prompt, short in zip(prompts, at_once, strict=True)
        ]

    def stop_decisions(self, pieces: Sequence[str]) -> list[tuple[int, bool]]:
        """See StoppingTask: at the beginning of each line another sum begins, or the box; after a box there is none."""
        decisions = []
        for start in line_starts(pieces):
            answers = pieces[start].lstrip("Ġ▁ ").startswith(BOX[0])
            decisions.append((start, answers))
            if answers:
                break
        return decisions

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task: the integer in the last box."""
        return [_judge(text, prompt.answer) for text, prompt in zip(texts, prompts, strict=True)]


def _question(terms: Sequence[int]) -> str:
    return f"What is {' + '.join(map(str, terms))}?"


def _terms(prompt: Prompt) -> list[int]:
    return [int(term) for term in prompt.name.split("+")]


def _in_steps(terms: Sequence[int]) -> str:
    """The sum, a line for each term after the first.

    >>> print(_in_steps([23, 45, 67]))
    23 + 45 = 68
    68 + 67 = 135
    \\boxed{135}
    """
    total, lines = terms[0], []
    for term in terms[1:]:
        lines.append(f"{total} + {term} = {total + term}")
        total += term
    return "\n".join([*lines, _boxed(str(total))])


def _most_tokens(text: str) -> int:
    """Of a sum as tokenizers of text write it: a digit or a sign each, and a blank before each term and result.

    >>> _most_tokens("23 + 45 = 68")
    10
    """
    return len(text.replace(" ", "")) + text.count(" ") // 2


def _boxed(answer: str) -> str:
    return f"{BOX}{{{answer}}}"


def _judge(text: str, answer: str) -> Judgement:
    written = last_box(text)
    if not written:
        return Judgement(Verdict.UNREADABLE, "no answer")
    number = as_integer(written)
    if number is None:
        return Judgement(Verdict.UNREADABLE, "not an integer")
    return Judgement(Verdict.CORRECT if number == answer else Verdict.WRONG)
