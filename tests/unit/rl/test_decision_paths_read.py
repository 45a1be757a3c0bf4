"""Exact values against every response that there is: small vocabularies, each response enumerated and judged."""

import functools
import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from vcppo.rl.ways import Ways, look_up
from vcppo.settings.critic import Unseen
from vcppo.types import DecisionPath

VOCABULARY = {"a": 0, "b": 1, "c": 2, "d": 3}
LIMIT = 6

# On its way a response writes a or b (an error), a, b or a (two errors), a; c at the second place is a coin's toss, d
# leads to another way, which wants a, then d, and forgives c in place of it once; and from there b leads back to luck.
BRANCH = DecisionPath(
    ("a", "d"), written=0, errors={1: {"d": 0, "c": 1}}, exits={0: {"b": 0.4}}, errors_allowed=1, correct_if_right=0.8
)
PATH = DecisionPath(
    ("a", "a", "b", "a"),
    written=0,
    errors={0: {"a": 0, "b": 1}, 2: {"b": 0, "a": 2}},
    exits={1: {"c": 0.25, "d": BRANCH}},
    errors_allowed=1,
    correct_if_right=0.9,
    correct_if_failed=0.05,
)


def judged(response: Sequence[str]) -> float:
    """Chance that a response is right, case by case as the comment above has it."""
    first, second, *rest = response
    if first not in "ab":
        return 0.05
    if second == "c":
        return 0.25
    if second == "d":
        if rest[0] == "b":
            return 0.4
        return 0.8 if rest[0] == "a" and rest[1] in "cd" else 0.0
    errors = (first == "b") + 2 * (rest[0] == "a")
    return 0.9 if second == "a" and rest[0] in "ab" and rest[1] == "a" and errors <= 1 else 0.05


@functools.cache
def policy() -> Tensor:
    """[place, token] chances that depend on the place alone."""
    rng = torch.Generator().manual_seed(3)
    return torch.rand((4, len(VOCABULARY)), generator=rng, dtype=torch.float64).softmax(dim=1)


@functools.cache
def by_enumeration(prefix: tuple[str, ...]) -> float:
    table, total = policy().tolist(), 0.0
    for rest in itertools.product(VOCABULARY, repeat=4 - len(prefix)):
        chance = 1.0
        for place, token in enumerate(rest, len(prefix)):
            chance *= table[place][VOCABULARY[token]]
        total += chance * judged([*prefix, *rest])
    return total


def path_of(response: Sequence[str]) -> DecisionPath:
    """The way of a response, as a task would tell it."""
    tokens, written = list(PATH.tokens), 0
    for place, token in enumerate(response):
        if token not in PATH.errors.get(place, {PATH.tokens[place]: 0}):
            break
        tokens[place], written = token, place + 1
    branch, after = BRANCH, response[2:]
    if written == 1 and response[1:2] == ["d"]:
        on = 0
        if after[:1] == ["a"]:
            on = 1 + (after[1:2] in (["c"], ["d"]))
        ending = ("a", after[1] if on == 2 else "d")
        branch = DecisionPath(
            ending, on, errors=BRANCH.errors, exits=BRANCH.exits, errors_allowed=1, correct_if_right=0.8
        )
    return DecisionPath(
        tuple(tokens),
        written,
        errors=PATH.errors,
        exits={1: {"c": 0.25, "d": branch}},
        errors_allowed=1,
        correct_if_right=0.9,
        correct_if_failed=0.05,
    )


def chances_of(response: list[str], unseen: Unseen = "none", limit: int = LIMIT) -> list[float]:
    ways, path = Ways(VOCABULARY, limit), path_of(response)
    way = ways.add((0, 1), path, response)
    rows, columns, tokens = ways.asked
    places = ways.batch.prompt_lengths[rows] - 2 + columns  # of the whole response
    worth = ways.worth(policy()[places, tokens], unseen)
    chances: list[float] = look_up(worth, ways.states(way, path, response, unseen)).tolist()
    return chances


def test_every_state_of_every_response() -> None:
    for response in map(list, itertools.product(VOCABULARY, repeat=4)):
        want = [by_enumeration(tuple(response[:t])) for t in range(4)]
        assert chances_of(response) == pytest.approx(want, abs=1e-12), response


def test_what_is_read_ends_before_the_response() -> None:
    assert chances_of(["a", "d"]) == pytest.approx([by_enumeration(()), by_enumeration(("a",))])


def test_ways_that_are_the_same_are_read_once() -> None:
    ways = Ways(VOCABULARY, LIMIT)
    for response in ("aaba", "aa", "ab", "baba", "ada"):
        ways.add((0,), path_of(list(response)), list(response))
    ways.add((1,), path_of(["a"]), ["a"])
    # aaba, aa, ab and ada are on one way, baba on another, and (1,) is another prompt; each has one that branches off.
    assert [len(level) for level in ways.levels] == [3, 3]
    assert len(ways.batch.response_mask) == 6


def test_values_that_do_not_see_errors_are_means_over_all_that_are_still_on_the_way() -> None:
    """Of responses that are on it at a place, each weighed by its chance, whether or not it has erred too often."""
    table = policy().tolist()
    on_way = [PATH.errors.get(place, {token: 0}) for place, token in enumerate(PATH.tokens)]
    for response in (["a", "a", "b", "a"], ["b", "a", "a", "a"]):
        want = []
        for t in range(4):
            prefixes = list(itertools.product(*on_way[:t]))
            weights = [
                math.prod(table[place][VOCABULARY[token]] for place, token in enumerate(prefix)) for prefix in prefixes
            ]
            values = [by_enumeration(prefix) for prefix in prefixes]
            want.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        assert chances_of(response, "errors") == pytest.approx(want, abs=1e-12)
    left = chances_of(["a", "b", "b", "a"], "errors")
    assert left[2:] == [0.05, 0.05]  # that it has left its way is seen


def test_values_that_do_not_see_departures_are_those_of_the_way_that_was_left() -> None:
    """At the same place, with the errors made before; a response longer than its way is taken to be before its end."""
    on_way = [by_enumeration(tuple(prefix)) for prefix in ("", "b", "ba", "bab")]
    for left in (["b", "b", "b", "b"], ["b", "c", "a", "a"], ["b", "d", "c", "c"]):
        assert chances_of(left, "departures") == pytest.approx(on_way, abs=1e-12)
    assert chances_of([*"bbbbbb"], "departures")[4:] == pytest.approx([on_way[3]] * 2)
    assert chances_of([*"baba"], "departures") == pytest.approx(on_way)


def test_a_way_longer_than_the_limit_has_failed_but_for_exits_before_it() -> None:
    """Cut after two tokens: c at the second is worth 0.25; the branch that d begins has no token left, and fails."""
    first, second = policy().tolist()[:2]
    exits = second[VOCABULARY["c"]] * 0.25 + (1 - second[VOCABULARY["c"]] - second[VOCABULARY["d"]]) * 0.05
    on = first[VOCABULARY["a"]] + first[VOCABULARY["b"]]
    chances = chances_of(["a", "a"], limit=2)
    assert chances == pytest.approx([on * exits + (1 - on) * 0.05, exits])
