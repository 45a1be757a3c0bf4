"""Errors that count, and choices that kill: a chain of digits whose lines end with a label.

Line i is `#i d1 d2 d3 a`, or b: a fixed rule gives each context, d1 or d1 with d3, its label. Demonstrations know most
rules; in the contexts of the others, the misunderstood, they slip with a fixed chance. A policy that imitates them has
one decision for each misunderstood rule, and no single direction in which it must be surer.

Where wrong labels count, no later line needs them: a response is right if it has every line, all digits are those of
the true chain, at most `errors_allowed` labels are wrong, and `=` ends it. Where they kill, the label decides of the
next line, d3' = d3 + d1 after a and d3 + d1 + 1 after b, every label must be right, and the digits of the last line
follow `=`.

Whether a label is wrong can be seen from digits and label together, or, where each context has labels of its own (a7,
b7), from the label alone: what a critic must learn differs, and nothing that a policy must.
"""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from vcppo.settings.chains import LabelsTaskSettings
from vcppo.tasks.chains import ChainTask, chance, on_the_way, read_lines, shifted, written
from vcppo.tasks.words import ANSWER, END
from vcppo.types import DecisionPath, Demonstration, Prompt, Verdict

LABELS = ("a", "b")
BISECTIONS = 40
TENTH = 0.1  # of demonstrations are right, unless settings say how many errors a right response may have


class LabelsTask(ChainTask):
    """See the module."""

    name = "labels"

    def __init__(self, settings: LabelsTaskSettings) -> None:
        self.settings, self.kills = settings, settings.wrong_label == "kills"
        super().__init__(settings)
        contexts = [f"{context:0{len(str(settings.contexts)) - 1}d}" for context in range(settings.contexts)]
        shuffled = sorted(contexts, key=lambda context: chance(settings.rule_seed, "label", context))
        own = settings.label_words == "own"
        self.pairs = {context: (f"a{context}", f"b{context}") if own else LABELS for context in contexts}
        self.rule = {context: self.pairs[context][i % 2] for i, context in enumerate(shuffled)}  # as many a as b
        by_chance = sorted(contexts, key=lambda context: chance(settings.rule_seed, "misunderstood", context))
        self.misunderstood = frozenset(by_chance[: settings.misunderstood_contexts])

    @functools.cached_property
    def slip(self) -> float:
        """Chance of a slip where a rule is misunderstood; unset and fatal, what leaves a tenth right."""
        if self.settings.slip is not None or not self.kills:
            return 0.5 if self.settings.slip is None else self.settings.slip
        least, most = 0.0, 1.0
        for _ in range(BISECTIONS):
            middle = (least + most) / 2
            least, most = (middle, most) if self.demonstrations_right(middle)[0] > TENTH else (least, middle)
        return least

    @functools.cached_property
    def errors_allowed(self) -> int:
        """Wrong labels that a right response may have; unset, the number that leaves most nearly a tenth right."""
        if self.kills or self.settings.errors_allowed is not None:
            return self.settings.errors_allowed or 0
        shares = self.demonstrations_right(self.slip)
        return min(range(len(shares)), key=lambda allowed: abs(math.log(max(shares[allowed], 1e-9) / TENTH)))

    def demonstrations_right(self, slip: float) -> list[float]:
        """Expected share of right demonstrations, by the number of wrong labels allowed: [lines + 1]."""
        problems, lines = len(self._training), self.settings.lines
        right = [0.0] * (lines + 1)
        for visits, count in self._visits.items():
            below = itertools.accumulate(binomial(visits, slip) + [0.0] * (lines - visits))
            right = [share + count * chance_of / problems for share, chance_of in zip(right, below, strict=True)]
        return right

    @functools.cached_property
    def _visits(self) -> Mapping[int, int]:
        """Number of training problems by how many of their lines have a misunderstood rule."""
        return Counter(sum(hard for _, hard in self._labelled(seed)) for seed in self._training)

    def words(self) -> Sequence[str]:
        """The labels."""
        return list(dict.fromkeys(itertools.chain(*self.pairs.values())))

    @functools.cached_property
    def _words(self) -> tuple[str, ...]:
        return tuple(self.words())

    def context(self, state: str) -> str:
        """Return the digits of a line that its label depends on."""
        return state[0] if self.settings.contexts == 10 else state[0] + state[-1]

    def after(self, state: str) -> str:
        """See ChainTask."""
        return self.next_state(state, self.rule[self.context(state)])

    def next_state(self, state: str, label: str) -> str:
        """The digits of the line after one with these digits and this label."""
        return shifted(state, int(self.kills and label.startswith(LABELS[1])))

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Right steps to the last line, with slips where the rule is misunderstood."""
        picks = torch.randint(len(self._training), (count,), generator=rng).tolist()
        slips = (torch.rand((count, self.settings.lines), generator=rng) < self.slip).tolist()
        fillers = self.draw_fillers(count, rng)
        return [
            Demonstration(self.prompt(self._training[pick]), self._response(self._training[pick], *drawn))
            for pick, *drawn in zip(picks, slips, fillers, strict=True)
        ]

    def _response(self, seed: str, slips: Sequence[bool], fillers: Sequence[str]) -> str:
        state, words = seed, []
        before = self.rule[self.context(seed)]
        for number, (slip, filler) in enumerate(zip(slips, fillers, strict=True), 1):
            state = self.next_state(state, before)
            context = self.context(state)
            before = self.rule[context]
            if slip and context in self.misunderstood:
                first, second = self.pairs[context]
                before = second if before == first else first
            words += [f"#{number}", *state, before, filler]
        return " ".join([*filter(None, words), ANSWER, *(state if self.kills else ""), END])

    def verify(self, text: str, prompt: Prompt) -> Verdict:
        """Every line is compared with the true chain, not with what the response says before it."""
        places = (self._words, self.fillers) if self.fillers else (self._words,)
        read = read_lines(written(text), self.settings.digits, places)
        if read is None:
            return Verdict.UNREADABLE
        lines, (mark, *answer) = read[0], read[1] or [""]
        if mark != ANSWER or len(answer) != (self.settings.digits if self.kills else 0):
            return Verdict.UNREADABLE
        if any(len(word) != 1 or not "0" <= word <= "9" for word in answer):
            return Verdict.UNREADABLE
        true = self._labelled(self.seed_of(prompt))
        chain = self.chain(self.seed_of(prompt))
        numbered = [(f"#{i}", state) for i, state in enumerate(chain[1:], 1)]
        if [line[:2] for line in lines] != numbered or (self.kills and "".join(answer) != chain[-1]):
            return Verdict.WRONG
        errors = sum(words[0] != label for (_, _, words), (label, _) in zip(lines, true, strict=True))
        return Verdict.CORRECT if errors <= self.errors_allowed else Verdict.WRONG

    def decision_path(self, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """See ExactTask: where labels count, either goes on; words that do not matter always do."""
        way, errors = self._way(self.seed_of(prompt))
        tokens, wrote = on_the_way(pieces, way, errors)
        luck = self.settings.luck
        return DecisionPath(
            tokens,
            wrote,
            errors=errors,
            errors_allowed=self.errors_allowed,
            correct_if_right=1.0 - luck,
            correct_if_failed=luck,
        )

    def _labelled(self, seed: str) -> list[tuple[str, bool]]:
        """The label of each line, and whether its rule is misunderstood."""
        contexts = [self.context(state) for state in self.chain(seed)[1:]]
        return [(self.rule[context], context in self.misunderstood) for context in contexts]

    def _way(self, seed: str) -> tuple[list[str], Mapping[int, Mapping[str, int]]]:
        """A right response without an error, and by place the errors of all words that go on its way."""
        way: list[str] = []
        errors: dict[int, Mapping[str, int]] = {}
        chain = self.chain(seed)
        for number, (state, (label, _)) in enumerate(zip(chain[1:], self._labelled(seed), strict=True), 1):
            way += [f"#{number}", *state, label]
            if not self.kills:
                errors[len(way) - 1] = {word: int(word != label) for word in self._words}
            if self.fillers:
                errors[len(way)] = self.filler_errors()
                way.append(self.filler_of(number, state))
        return [*way, ANSWER, *(chain[-1] if self.kills else ""), END], errors


def binomial(tries: int, share: float) -> list[float]:
    """P(X = n) of a binomial X for n = 0 to `tries`: [tries + 1].

    >>> binomial(2, 0.5)
    [0.25, 0.5, 0.25]
    """
    return [math.comb(tries, n) * share**n * (1.0 - share) ** (tries - n) for n in range(tries + 1)]
