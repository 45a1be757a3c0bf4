"""The embedded task: long chains of thought in miniature.

A problem gives a target line n and a few seed digits. One line of thought is `#i d1 d2 d3`: the line before it
shifted left, with d3' = (d3 + d1) mod 10. The answer is the digits of line n, after `=`. Nothing shortens the way:
an answer at an earlier line is wrong, and stopping is one token away at every line. Demonstrations do stop
early, with a fixed hazard at each line, so a policy that imitates them can do every step and seldom takes them all.

Problems whose last line equals an earlier one are left out: an early answer is never right by luck.
"""

import functools
import hashlib
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from vcppo.errors import ConfigError
from vcppo.settings.evaluation import Problems
from vcppo.settings.fixed import SLACK_LINES
from vcppo.settings.task import DigitsTaskSettings
from vcppo.tasks import words
from vcppo.tasks.chains import on_the_way
from vcppo.tasks.held_out import divided
from vcppo.tasks.words import ANSWER, ASK, END, PAD
from vcppo.types import DecisionPath, Demonstration, Judgement, Prompt, Verdict


class DigitsTask:
    """See the module; `settings.chain_length`, `spread`, `digits` and `stop_hazard` are the dials of difficulty."""

    name = "digits"

    def __init__(self, settings: DigitsTaskSettings) -> None:
        self.settings = settings
        self.max_tokens = settings.response_tokens + settings.slack_tokens
        self._training, self._held_out = _split(settings)
        self._numbers = dict.fromkeys(_numbers(settings), 0)  # a wrong one is no error

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per word: specials, digits, line numbers."""
        words = [PAD, END, ASK, ANSWER, *"0123456789", *_numbers(self.settings)]
        model = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
        model.pre_tokenizer = WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=PAD)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """See Task: every word that a right response needs is one of its tokens."""
        length, known = self.settings.chain_length, tokenizer.get_vocab()
        others = [word for word in (END, ASK, ANSWER, *"0123456789") if word not in known]
        lines = next((i - 1 for i in range(1, length + 1) if f"#{i}" not in known), length)
        if others or not lines:
            raise ConfigError(
                f"task.name = digits: the tokenizer of {source} has no {(others or ['#1'])[0]}, so it is no policy "
                "of this task and would get every answer wrong; a model that reads text is asked mathematics, expected "
                "task.name = maths (docs/maths.md)"
            )
        if lines < length:
            raise ConfigError(
                f"task.chain_length = {length}: the tokenizer of {source} has words for {lines} lines, its policy was "
                f"made for {max(lines - SLACK_LINES, 1)}; expected task.chain_length = {max(lines - SLACK_LINES, 1)}"
            )

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """See Task."""
        picks = torch.randint(len(self._training), (count,), generator=rng)
        return [_prompt(*self._training[i]) for i in picks.tolist()]

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """See Task: all have as many words."""
        return len(self.encode([_prompt(*self._training[0])], tokenizer)[0])

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task."""
        return [_prompt(*problem) for problem in self._held_out[problems]]

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Right steps, stopped at each line before the last with chance `stop_hazard`."""
        picks = torch.randint(len(self._training), (count,), generator=rng).tolist()
        stops = torch.rand((count, self.settings.chain_length), generator=rng) < self.settings.stop_hazard
        demonstrations = []
        for pick, stop in zip(picks, stops.tolist(), strict=True):
            target, seed = self._training[pick]
            stop[target - 1] = True
            demonstrations.append(Demonstration(_prompt(target, seed), _response(seed, stop.index(True) + 1)))
        return demonstrations

    def decision_path(self, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """See ExactTask: right are all lines and the answer, whatever number a line has been given.

        The verifier reads the answer alone, so that a response with a wrong digit in a line can still be judged
        correct, by a second mistake that makes up for the first. This counts as failing at the first.

        A wrong number is no error, but after it a policy may count on from it, and so stop at another line: it begins
        a detour. There the later lines have their own numbers, and any other begins another one.
        """
        target, _, seed = prompt.name.partition("/")
        way, width = _response(seed, int(target)).split(), self.settings.digits + 1
        tokens, wrote = on_the_way(pieces, way, {})
        numbered = dict.fromkeys(range(0, int(target) * width, width), self._numbers)
        return DecisionPath(tokens, wrote, errors=numbered, lasting=True)

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """See Task."""
        return words.step_starts(pieces)

    def stop_decisions(self, pieces: Sequence[str]) -> list[tuple[int, bool]]:
        """See StoppingTask: after each line another one begins, or the answer."""
        return [(start, pieces[start] == ANSWER) for start in self.step_starts(pieces)[1:]]

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """See Task."""
        return words.encode(prompts, tokenizer)

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task."""
        return [Judgement(self.verify(text, prompt)) for text, prompt in zip(texts, prompts, strict=True)]

    def verify(self, text: str, prompt: Prompt) -> Verdict:
        """Read the digits after the last `=`; what was thought before it does not count."""
        _, marker, tail = text.rpartition(ANSWER)
        digits = tail.replace(END, " ").split()
        if not marker or len(digits) != self.settings.digits or not all(d.isascii() and d.isdigit() for d in digits):
            return Verdict.UNREADABLE
        return Verdict.CORRECT if "".join(digits) == prompt.answer else Verdict.WRONG


def _states(seed: str, lines: int) -> list[str]:
    """The state before line 1 and after each of `lines` lines, as strings of digits."""
    states = [seed]
    for _ in range(lines):
        before = states[-1]
        states.append(before[1:] + str((int(before[-1]) + int(before[0])) % 10))
    return states


def _numbers(settings: DigitsTaskSettings) -> list[str]:
    """The words for numbers of lines."""
    return [f"#{i}" for i in range(1, settings.chain_length + SLACK_LINES + 1)]


def _response(seed: str, lines: int) -> str:
    """So many right lines, and their last one's digits as the answer."""
    thought = [f"#{i} {' '.join(state)}" for i, state in enumerate(_states(seed, lines)[1:], 1)]
    return " ".join([*thought, ANSWER, *thought[-1].split()[1:], END])


def _prompt(target: int, seed: str) -> Prompt:
    return Prompt(f"{target}/{seed}", f"#{target} {' '.join(seed)} {ASK}", _states(seed, target)[-1])


@functools.cache
def _split(settings: DigitsTaskSettings) -> tuple[list[tuple[int, str]], dict[Problems, list[tuple[int, str]]]]:
    """All fair problems, (training, held out by use); which is which depends on the problem's name alone.

    Whether some are reserved for searches changes what is trained on, and not what is reported on.
    """
    targets = range(settings.chain_length - settings.spread, settings.chain_length + 1)
    seeds = (f"{number:0{settings.digits}d}" for number in range(10**settings.digits))
    fair = []
    for seed in seeds:
        states = _states(seed, settings.chain_length)
        fair += [(target, seed) for target in targets if states[target] not in states[:target]]
    fair.sort(key=lambda problem: hashlib.sha256(f"{problem}".encode()).digest())
    return divided(fair, settings, dials="task.digits or task.spread")
