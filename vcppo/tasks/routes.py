"""An early decision with late consequences: a short way that cannot be learnt, or a long one that can.

The first word is S or L. After S come a few lines of a chain of digits, `=` and a guess, a digit: which guesses are
right is a property of the problem that no other problem tells, so that no policy has more than their share. After L
come all lines, `=` and the digits of the last one. Demonstrations of the long way stop early, with the same chance at
each line, so that it is rarely right at first, and can always be: whether S or L is the better choice turns during
training, and only what happens hundreds of tokens later tells.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from vcppo.settings.chains import RoutesTaskSettings
from vcppo.tasks.chains import DIGITS, ChainTask, chance, on_the_way, read_lines, written
from vcppo.tasks.words import ANSWER, END
from vcppo.types import DecisionPath, Demonstration, Prompt, Verdict

SHORT, LONG = "S", "L"


class RoutesTask(ChainTask):
    """See the module; the verifier alone knows what a problem's salt, its further digits, makes right."""

    name = "routes"

    def __init__(self, settings: RoutesTaskSettings) -> None:
        self.settings = settings
        super().__init__(settings)

    def words(self) -> Sequence[str]:
        """The choices."""
        return SHORT, LONG

    def good_guesses(self, prompt: Prompt) -> frozenset[str]:
        """The guesses that are right after the short way."""
        by_chance = sorted(DIGITS, key=lambda digit: chance(self.settings.rule_seed, "guess", prompt.text, digit))
        return frozenset(by_chance[: self.settings.good_guesses])

    @property
    def demonstrations_right(self) -> float:
        """Expected share of right demonstrations."""
        short = self.settings.take_short
        whole = (1.0 - self.settings.stop_chance) ** (self.settings.lines - 1)
        return short * self.settings.good_guesses / 10 + (1.0 - short) * whole

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Right lines; of the long way, often not all."""
        prompts, dials = self.training_prompts(count, rng), self.settings
        short = (torch.rand(count, generator=rng) < dials.take_short).tolist()
        guesses = torch.randint(10, (count,), generator=rng).tolist()
        stops = torch.rand((count, dials.lines), generator=rng) < dials.stop_chance
        stops[:, -1] = True
        last = (stops.int().argmax(dim=1) + 1).tolist()
        made = []
        for i, fillers in enumerate(self.draw_fillers(count, rng)):
            chain = self.chain(self.seed_of(prompts[i]))[1:]
            lines = dials.short_lines if short[i] else last[i]
            answer = [str(guesses[i])] if short[i] else [*chain[lines - 1]]
            way = [SHORT if short[i] else LONG, *self.thought(chain[:lines], fillers), ANSWER, *answer, END]
            made.append(Demonstration(prompts[i], " ".join(way)))
        return made

    def verify(self, text: str, prompt: Prompt) -> Verdict:
        """All lines of the way are there, as the true chain has them, and the answer is the way's."""
        choice, *words = written(text) or [""]
        read = read_lines(words, self.settings.digits, [self.fillers] if self.fillers else [])
        if choice not in (SHORT, LONG) or read is None or read[1][:1] != [ANSWER]:
            return Verdict.UNREADABLE
        lines, answer = [line[:2] for line in read[0]], read[1][1:]
        if len(answer) != (1 if choice == SHORT else self.settings.digits) or not DIGITS.issuperset(answer):
            return Verdict.UNREADABLE
        chain = self._lines(prompt, choice)
        good = answer[0] in self.good_guesses(prompt) if choice == SHORT else "".join(answer) == chain[-1]
        right = good and lines == [(f"#{i}", state) for i, state in enumerate(chain, 1)]
        return Verdict.CORRECT if right else Verdict.WRONG

    def _lines(self, prompt: Prompt, choice: str) -> Sequence[str]:
        lines = self.settings.short_lines if choice == SHORT else self.settings.lines
        return self.chain(self.seed_of(prompt))[1 : lines + 1]

    def decision_path(self, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """See ExactTask: along the way that the response took, with an exit to the other one at its first word."""
        taken, left = (SHORT, LONG) if tuple(pieces[:1]) == (SHORT,) else (LONG, SHORT)
        chosen = tuple(pieces[:1]) == (taken,)
        along, other = self._after(taken, prompt, pieces[1:] if chosen else ()), self._after(left, prompt, ())
        return replace(
            along,
            tokens=(taken, *along.tokens),
            written=along.written + 1 if chosen else 0,
            errors={place + 1: listed for place, listed in along.errors.items()},
            exits={0: {left: other}},
        )

    def _after(self, choice: str, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """The way after its first word. After the short way any good guess goes on."""
        chain, luck = self._lines(prompt, choice), self.settings.luck
        way, errors = self.way_of(chain)
        correct_if_right = 1.0 - luck
        if choice == LONG:
            way += [ANSWER, *chain[-1], END]
        elif guesses := sorted(self.good_guesses(prompt)):
            errors[len(way) + 1] = dict.fromkeys(guesses, 0)
            way += [ANSWER, guesses[0], END]
        else:  # no end is right
            correct_if_right = luck
            way += [ANSWER, "0", END]
            errors[len(way) - 2] = dict.fromkeys(sorted(DIGITS), 0)
        tokens, wrote = on_the_way(pieces, way, errors)
        return DecisionPath(tokens, wrote, errors=errors, correct_if_right=correct_if_right, correct_if_failed=luck)
