"""What a kind of fault is, and how a case of it goes."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Extent:
    """How much is tried.

    Attributes:
        every: of how many writes one is disturbed.
        first: the first write that is disturbed.
        rounds: of kinds that are drawn at random.
        seed: of those draws.
    """

    every: int = 1
    first: int = 1
    rounds: int = 10
    seed: int = 0

    def writes(self, count: int) -> range:
        """Return which of so many writes are disturbed."""
        return range(self.first, count + 1, self.every)

    def draws(self, kind: str) -> "Iterator[tuple[str, random.Random]]":
        """Yield the name and the generator of each round."""
        for number in range(self.rounds):
            yield f"round {number} of seed {self.seed}", random.Random(f"{kind}/{self.seed}/{number}")


@dataclass(frozen=True)
class Result:
    """What a case has found: see tally.Outcome."""

    wrong: str | None
    faults: int = 1
    seconds_lost: float = 0.0


class Counted(Protocol):
    """What counts the writes of a process, and disturbs one of them."""

    @property
    def count(self) -> int:
        """The writes so far."""
        ...


Case = tuple[str, Callable[[], Result]]
Cases = Callable[[Path, Extent], Iterator[Case]]  # within an empty folder; what cannot be tried here is skipped


@dataclass(frozen=True)
class Kind:
    """A kind of fault: what is done, in words, and the cases of it."""

    words: str
    cases: Cases
