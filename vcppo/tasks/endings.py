"""Going on costs nothing, and ending well is rare: a chain of digits that may be ended at any line.

A response is lines `#i d1 d2 d3` and then `=`. It is right if its last line is a good one: a fixed rule says in which
contexts, d1 or d1 with d3. Demonstrations do not know the rule: they end at each line with the same small chance. They
do not know of the limit either: going on is always possible, and a response that does is cut there, and not right.

So there are two ways to fail: to end at once, as a policy does whose critic lies below the truth, and to run to the
limit, as one does whose critic lies above it.
"""

import functools
from collections.abc import Sequence

import torch

from vcppo.settings.chains import EndingsTaskSettings
from vcppo.tasks.chains import ChainTask, chance, on_the_way, read_lines, written
from vcppo.tasks.words import ANSWER, END
from vcppo.types import DecisionPath, Demonstration, Prompt, Verdict


class EndingsTask(ChainTask):
    """See the module."""

    name = "endings"

    def __init__(self, settings: EndingsTaskSettings) -> None:
        self.settings = settings
        super().__init__(settings)
        contexts = [f"{context:0{len(str(settings.contexts)) - 1}d}" for context in range(settings.contexts)]
        contexts.sort(key=lambda context: chance(settings.rule_seed, "good", context))
        self.good = frozenset(contexts[: settings.good_contexts])

    def words(self) -> Sequence[str]:
        """None of its own."""
        return ()

    def is_good(self, state: str) -> bool:
        """True where a response that ends at a line with these digits is right."""
        return (state[0] if self.settings.contexts == 10 else state[0] + state[-1]) in self.good

    def good_lines(self, seed: str) -> list[int]:
        """The lines at which a response that ends is right: all but the last have room for an end."""
        return [i for i, state in enumerate(self.chain(seed)[: self.settings.lines]) if i and self.is_good(state)]

    def is_fair(self, seed: str) -> bool:
        """There must be such a line."""
        return bool(self.good_lines(seed))

    @functools.cached_property
    def demonstrations_right(self) -> float:
        """Expected share of right demonstrations."""
        chances = self._ends.double()
        right = [sum(float(chances[i - 1]) for i in self.good_lines(seed)) for seed in self._training]
        return sum(right) / len(right)

    @property
    def _ends(self) -> torch.Tensor:
        """[numbers] float32 chances that a demonstration ends at each line that can be numbered; it does at one."""
        lines = torch.arange(self.settings.numbers)
        chances = (1.0 - self.settings.end_hazard) ** lines
        return chances / chances.sum()

    def demonstrations(self, count: int, rng: torch.Generator) -> list[Demonstration]:
        """Right lines, ended without regard to what is good."""
        prompts = self.training_prompts(count, rng)
        last = torch.multinomial(self._ends, count, replacement=True, generator=rng).tolist()
        fillers = self.draw_fillers(count, rng)
        return [
            Demonstration(
                prompt,
                " ".join([*self.thought(self.chain(self.seed_of(prompt))[1 : line + 2], words), ANSWER, END]),
            )
            for prompt, line, words in zip(prompts, last, fillers, strict=True)
        ]

    def verify(self, text: str, prompt: Prompt) -> Verdict:
        """All lines are those of the true chain, and the last is good."""
        read = read_lines(written(text), self.settings.digits, [self.fillers] if self.fillers else [])
        if read is None or read[1] != [ANSWER]:
            return Verdict.UNREADABLE
        seed, lines = self.seed_of(prompt), [line[:2] for line in read[0]]
        true = [(f"#{i}", state) for i, state in enumerate(self.chain(seed)) if 0 < i <= len(lines)]
        right = lines == true and len(lines) in self.good_lines(seed)
        return Verdict.CORRECT if right else Verdict.WRONG

    def decision_path(self, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        """See ExactTask: to the last good line and an end there, with an exit to an end at each good one before."""
        good = self.good_lines(self.seed_of(prompt))
        way, errors = self.way_of(self.chain(self.seed_of(prompt))[1 : good[-1] + 1])
        width, luck = self.settings.line_tokens, self.settings.luck
        tokens, wrote = on_the_way(pieces, [*way, ANSWER, END], errors)
        at_end = tuple(pieces[wrote : wrote + 2]) == (ANSWER, END)
        exits = {
            line * width: {
                ANSWER: DecisionPath(
                    (END,),
                    int(at_end and wrote == line * width),
                    correct_if_right=1.0 - luck,
                    correct_if_failed=luck,
                )
            }
            for line in good[:-1]
        }
        return DecisionPath(tokens, wrote, errors, exits, 0, correct_if_right=1.0 - luck, correct_if_failed=luck)
