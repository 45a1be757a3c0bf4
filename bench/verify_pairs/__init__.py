"""Pairs of a reference and an answer whose truth is known because they were made equal, or made different.

Nothing here parses or evaluates what was written: a value is drawn, and then written in two ways, or a near miss of it
is written: a neighbouring value, another sign, an open end for a closed one, an element too few. What graders would
quarrel over is left out: a unit that is missing, a last digit that depends on how one rounds, a sum not worked out.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from . import expressions, numbers, sets, words
from .writing import Case

TRIES = 1000  # draws for a pair that was not there before
ENDINGS = (
    "The answer is \\boxed{%s}.",
    "$\\boxed{%s}$",
    "Therefore the answer is $\\boxed{%s}$.",
    "\\[\n\\boxed{%s}\n\\]",
    "**Answer:** \\(\\boxed{%s}\\)",
    "**Final answer**\n\n$$\\boxed{ %s }$$",
    "**\\boxed{%s}**",
)
KINDS: dict[str, Callable[[random.Random], Case]] = {
    "integers": numbers.integers,
    "typography": numbers.typography,
    "decimals": numbers.decimals,
    "roundings": numbers.roundings,
    "repeating decimals": numbers.repeating_decimals,
    "scientific": numbers.scientific,
    "tiny": numbers.tiny,
    "large": numbers.large,
    "fractions": numbers.fractions,
    "mixed numbers": numbers.mixed_numbers,
    "percentages": numbers.percentages,
    "units": numbers.units,
    "complex numbers": numbers.complex_numbers,
    "intervals": sets.intervals,
    "unions": sets.unions,
    "sets": sets.sets,
    "lists": sets.lists,
    "tuples": sets.tuples,
    "matrices": sets.matrices,
    "roots": expressions.roots,
    "constants": expressions.constants,
    "polynomials": expressions.polynomials,
    "equations": expressions.equations,
    "texts": words.texts,
    "choices": words.choices,
    "ratios and bases": words.ratios_and_bases,
}


class Pair(NamedTuple):
    """`answer` is the end of a response, box and all; `equal` is the truth."""

    kind: str
    reference: str
    answer: str
    equal: bool


def pairs(seed: int, count: int) -> list[Pair]:
    """`count` different ones, kinds in turn, as many equal as different; fewer of the same seed are a prefix of more.

    Raises:
        ValueError: a kind does not have so many.
    """
    made = [_pairs_of_kind(kind, random.Random(f"{seed} {kind}"), equal=i % 2 == 0) for i, kind in enumerate(KINDS)]
    return [next(made[i % len(made)]) for i in range(count)]


def _pairs_of_kind(kind: str, rng: random.Random, *, equal: bool) -> Iterator[Pair]:
    """Equal ones and others in turn; `equal` is the first."""
    seen: set[tuple[str, str]] = set()
    for same in itertools.cycle((equal, not equal)):
        for _ in range(TRIES):
            case = KINDS[kind](rng)
            forms = [form for form in case.same if form != case.reference] if same else case.other
            pair = (case.reference, rng.choice(forms))
            if pair not in seen:
                break
        else:
            raise ValueError(f"no more pairs of {kind} after {len(seen)}: expected fewer pairs in all")
        seen.add(pair)
        yield Pair(kind, pair[0], ending(pair[1], rng), same)


def ending(answer: str, rng: random.Random) -> str:
    """As models end a response."""
    if answer.startswith("\\fbox"):
        return f"The answer is ${answer}$."
    inner_dollars: tuple[str, ...] = () if "$" in answer or "*" in answer else ("The answer is \\boxed{$%s$}.",)
    return rng.choice((*ENDINGS, *inner_dollars)).replace("%s", answer)
