"""Parts that the embedded tasks with several decisions share: a chain of digits, its problems, reading of responses.

A problem gives seed digits. A line of thought is `#i d1 d2 d3`, further words of the task, and one of `fillers` words
that do not matter. The digits are those of the line before it shifted left, with d3' = (d3 + d1) mod 10 unless the task
says otherwise. Every response is judged by the true chain: what a line says is never compared with what another says.
"""

import functools
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from vcppo.errors import ConfigError
from vcppo.settings.chains import ChainSettings
from vcppo.settings.evaluation import Problems
from vcppo.tasks import words
from vcppo.tasks.held_out import divided
from vcppo.tasks.words import ANSWER, ASK, END, PAD
from vcppo.types import Demonstration, Judgement, Prompt, Verdict

DIGITS = frozenset("0123456789")
FEWEST_STATES = 3  # a problem whose chain has less than this part of the states of the richest chain is left out

Chain = tuple[str, ...]  # the digits before line 1 and after each line


class ChainTask(ABC):
    """A task of the family; a subclass says what is written, what is right, and where its decisions are."""

    name: str

    def __init__(self, settings: ChainSettings) -> None:
        self.dials = settings
        self.max_tokens = settings.response_tokens + settings.slack_tokens
        self.fillers = tuple(f"~{i}" for i in range(1, settings.fillers + 1))

    @abstractmethod
    def words(self) -> Sequence[str]:
        """Words of the task beside specials, digits, fillers and line numbers."""

    def after(self, state: str) -> str:
        """The digits of the line after one with these digits."""
        return shifted(state)

    @abstractmethod
    def verify(self, text: str, prompt: Prompt) -> Verdict:
        """Judge a response as a verifier without luck does."""

    @abstractmethod
    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """See Task."""

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token per word."""
        model = Tokenizer(WordLevel({word: i for i, word in enumerate(self._vocabulary())}, unk_token=PAD))
        model.pre_tokenizer = WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=model, pad_token=PAD, eos_token=END, unk_token=PAD)

    def _vocabulary(self) -> list[str]:
        lines = [f"#{i}" for i in range(1, self.dials.numbers + 1)]
        return [PAD, END, ASK, ANSWER, *sorted(DIGITS), *self.words(), *self.fillers, *lines]

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast, source: str) -> None:
        """See Task: every word that a right response needs is one of its tokens."""
        known = tokenizer.get_vocab()
        missing = next((word for word in self._vocabulary() if word not in known), None)
        if missing is not None:
            raise ConfigError(
                f"task.name = {self.name}: the tokenizer of {source} has no {missing}, so it is no policy of this task "
                "and would get every answer wrong; expected a policy that was made with these settings of task, or "
                "task.name = maths for a model that reads text (docs/maths.md)"
            )

    def training_prompts(self, count: int, rng: torch.Generator) -> list[Prompt]:
        """See Task."""
        picks = torch.randint(len(self._training), (count,), generator=rng).tolist()
        return [self.prompt(self._training[i], salt) for i, salt in zip(picks, self._salts(count, rng), strict=True)]

    def longest_prompt(self, tokenizer: PreTrainedTokenizerFast) -> int:
        """See Task: all have as many words."""
        return len(self.encode(self.held_out_prompts()[:1], tokenizer)[0])

    def held_out_prompts(self, problems: Problems = "report") -> list[Prompt]:
        """See Task."""
        number, length = 10**self.dials.salt_digits, self.dials.salt_digits
        salts = (f"{int(number * chance('salt', seed)):0{length}d}"[:length] for seed in self._split[1][problems])
        return [self.prompt(seed, salt) for seed, salt in zip(self._split[1][problems], salts, strict=True)]

    def _salts(self, count: int, rng: torch.Generator) -> list[str]:
        if not self.dials.salt_digits:
            return [""] * count
        drawn = torch.randint(10, (count, self.dials.salt_digits), generator=rng).tolist()
        return ["".join(map(str, digits)) for digits in drawn]

    def step_starts(self, pieces: Sequence[str]) -> list[int]:
        """See Task."""
        return words.step_starts(pieces)

    def encode(self, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerFast) -> list[tuple[int, ...]]:
        """See Task."""
        return words.encode(prompts, tokenizer)

    def judge(self, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        """See Task; with chance `luck` the verdict is a lie, and what is right is called wrong, all else right."""
        return [
            Judgement(self._lie(verdict) if self._lies(text, prompt) else verdict)
            for text, prompt in zip(texts, prompts, strict=True)
            for verdict in [self.verify(text, prompt)]
        ]

    def _lie(self, verdict: Verdict) -> Verdict:
        return Verdict.WRONG if verdict is Verdict.CORRECT else Verdict.CORRECT

    def _lies(self, text: str, prompt: Prompt) -> bool:
        return self.dials.luck > 0 and chance(self.dials.rule_seed, prompt.text, *written(text)) < self.dials.luck

    def prompt(self, seed: str, salt: str = "") -> Prompt:
        """The problem with these seed digits, and others that only the verifier makes something of."""
        lines = self.dials.lines
        return Prompt(f"{lines}/{seed}{salt}", f"#{lines} {' '.join(seed + salt)} {ASK}", self.chain(seed)[lines])

    def seed_of(self, prompt: Prompt) -> str:
        """The seed digits of a problem."""
        return "".join(prompt.text.split()[1 : 1 + self.dials.digits])

    def chain(self, seed: str) -> Chain:
        """The digits before line 1 and after each line that can be numbered."""
        return self._chain(seed, self.dials.numbers)

    @functools.cached_property
    def _chain(self) -> Callable[[str, int], Chain]:
        return functools.cache(lambda seed, lines: states(seed, lines, self.after))

    @property
    def _training(self) -> list[str]:
        return self._split[0]

    @functools.cached_property
    def _split(self) -> tuple[list[str], dict[Problems, list[str]]]:
        """Seeds of all fair problems, (training, held out by use); which is which depends on the seed alone.

        Whether some are reserved for searches changes what is trained on, and not what is reported on.
        """
        dials = self.dials
        seeds = [f"{number:0{dials.digits}d}" for number in range(10**dials.digits)]
        richness = {seed: len(set(self.chain(seed))) for seed in seeds if self.is_fair(seed)}
        least = max(richness.values(), default=0) / FEWEST_STATES
        fair = [seed for seed, different in richness.items() if different >= least]
        fair.sort(key=lambda seed: chance("problem", seed))
        return divided(fair, dials, dials="task.digits")

    def is_fair(self, seed: str) -> bool:
        """True where a problem can be asked; those with poor chains are left out beside."""
        return True

    def draw_fillers(self, count: int, rng: torch.Generator) -> list[list[str]]:
        """Draw the words that end the lines of demonstrations: [count] lists of a word or an empty text a line."""
        lines = self.dials.numbers
        if not self.fillers:
            return [[""] * lines] * count
        drawn = torch.randint(len(self.fillers), (count, lines), generator=rng).tolist()
        return [[self.fillers[i] for i in row] for row in drawn]

    def filler_errors(self) -> dict[str, int]:
        """No error, whichever of the words that do not matter ends a line."""
        return dict.fromkeys(self.fillers, 0)

    def filler_of(self, number: int, state: str) -> str:
        """A word that ends this line of a way along which values are read: as if drawn, so that none stands for all."""
        return self.fillers[int(chance("filler", number, state) * len(self.fillers))]

    def way_of(self, chain: Sequence[str], first: int = 0) -> tuple[list[str], dict[int, Mapping[str, int]]]:
        """The words of right lines, and by place, counted from `first`, the words that do not matter.

        Args:
            chain: the digits of the lines.
        """
        way: list[str] = []
        errors: dict[int, Mapping[str, int]] = {}
        for number, state in enumerate(chain, 1):
            way += [f"#{number}", *state]
            if self.fillers:
                errors[first + len(way)] = self.filler_errors()
                way.append(self.filler_of(number, state))
        return way, errors

    def thought(self, chain: Sequence[str], fillers: Sequence[str]) -> list[str]:
        """The words of a demonstration's lines with these digits."""
        lines = zip(range(1, len(chain) + 1), chain, fillers, strict=False)
        return [word for number, state, filler in lines for word in (f"#{number}", *state, filler) if word]


def states(seed: str, lines: int, after: Callable[[str], str]) -> Chain:
    """The digits before line 1 and after each of `lines` lines."""
    chain = [seed]
    for _ in range(lines):
        chain.append(after(chain[-1]))
    return tuple(chain)


def shifted(state: str, more: int = 0) -> str:
    """The digits of the next line: d1 is dropped, and (dn + d1 + more) mod 10 follows dn.

    >>> shifted("123"), shifted("123", 1)
    ('234', '235')
    """
    return state[1:] + str((int(state[-1]) + int(state[0]) + more) % 10)


def written(text: str) -> list[str]:
    """The words of a response, its end left out."""
    return text.replace(END, " ").split()


def read_lines(
    words: Sequence[str], digits: int, after: Sequence[Sequence[str]]
) -> tuple[list[tuple[str, str, tuple[str, ...]]], list[str]] | None:
    """Read lines of thought: ([(number, digits, further words)], words that follow them); None if one is broken.

    Args:
        words: of a response. digits: of a line. after: which words may stand at each place after a line's digits.
    """
    lines, at, length = [], 0, 1 + digits + len(after)
    while at < len(words) and words[at].startswith("#"):
        line = words[at : at + length]
        further = line[1 + digits :]
        if len(line) < length or not DIGITS.issuperset(line[1 : 1 + digits]):
            return None
        if any(word not in allowed for word, allowed in zip(further, after, strict=True)):
            return None
        lines.append((line[0], "".join(line[1 : 1 + digits]), tuple(further)))
        at += length
    return lines, list(words[at:])


def on_the_way(
    pieces: Sequence[str], way: Sequence[str], others: Mapping[int, Mapping[str, object]]
) -> tuple[tuple[str, ...], int]:
    """The tokens of a DecisionPath, and how many of them a response wrote.

    Args:
        pieces: the response's tokens. way: a right response. others: by place, words that go on the same way as `way`.
    """
    tokens = list(way)
    for place, (piece, wanted) in enumerate(zip(pieces, way, strict=False)):
        if piece != wanted and piece not in others.get(place, {}):
            return tuple(tokens), place
        tokens[place] = piece
    return tuple(tokens), min(len(pieces), len(way))


def chance(*parts: object) -> float:
    """A number in [0, 1) that follows from the parts alone, as if drawn.

    >>> chance("a", 1) == chance("a", 1) != chance("a", 2)
    True
    """
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7]) / 2**56
