"""Exact values against every response that there is: small vocabularies, each response enumerated and judged."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from vcppo.rl.ways import MOST_DETOURS, Ways, look_up
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


# ---- detours: what is tolerated changes what the policy does later ----

# A response writes a, then a, twice; in place of the first a of each pair other tokens are tolerated.
LASTING = DecisionPath(
    ("a", "a", "a", "a"), written=0, errors={0: dict.fromkeys("abcd", 0), 2: dict.fromkeys("abc", 0)}, lasting=True
)
KEPT = {0: 1.0, 1: 0.5, 2: 0.5, 3: 0.5}  # of the chance of the second a of a pair, by what its first token was


def read(ways: Ways, kept: dict[int, float]) -> Tensor:
    """The chances that are asked for, of a policy that writes the second a of a pair as the first token has it."""
    table, batch, chances = policy().tolist(), ways.batch, []
    for row, column, token in zip(*(asked.tolist() for asked in ways.asked), strict=True):
        text = batch.input_ids[row, 2 : int(batch.prompt_lengths[row]) + column].tolist()
        chances.append(table[len(text)][token] * (kept[text[-1]] if len(text) % 2 else 1.0))
    return torch.tensor(chances, dtype=torch.float64)


def read_whole(ways: Ways, kept: dict[int, float]) -> Tensor:
    chances = read(ways, kept)
    return torch.cat([chances, read(ways, kept)]) if ways.draw_detours(chances) else chances


def on_the_way(pieces: Sequence[str], right: str) -> int:
    return len(list(itertools.takewhile(lambda both: both[0] == both[1], zip(pieces, right, strict=False))))


def lasting_states(pieces: Sequence[str], kept: dict[int, float], unseen: Unseen = "none") -> list[float]:
    ways, path = Ways(VOCABULARY, LIMIT), replace(LASTING, written=on_the_way(pieces, "aaaa"))
    way = ways.add((0, 1), path, pieces)
    worth = ways.worth(read_whole(ways, kept), unseen)
    chances: list[float] = look_up(worth, ways.states(way, path, pieces, unseen)).tolist()
    return chances


def lasting_truth(pieces: Sequence[str], kept: dict[int, float]) -> float:
    """By enumeration of all responses that begin so."""
    table, total = policy().tolist(), 0.0
    for rest in itertools.product(VOCABULARY, repeat=4 - len(pieces)):
        whole, chance = [*pieces, *rest], 1.0
        for place in range(len(pieces), 4):
            keeps = kept[VOCABULARY[whole[place - 1]]] if place % 2 else 1.0
            chance *= table[place][VOCABULARY[whole[place]]] * keeps
        total += chance * (whole[1] == "a" and whole[2] in "abc" and whole[3] == "a")
    return total


@pytest.mark.parametrize("response", ["aaaa", "baaa", "caca", "aaba", "dada", "bb", "aabb"])
def test_what_detours_keep_is_read_and_holds_of_all(response: str) -> None:
    """Also of the states of responses that took some, and of a second one after a first."""
    want = [lasting_truth(response[:t], KEPT) for t in range(on_the_way_with_detours(response))]
    assert lasting_states(response, KEPT)[: len(want)] == pytest.approx(want, abs=1e-12)
    assert not any(lasting_states(response, KEPT)[len(want) :])  # it has left for good
    assert want[0] < 0.9 * lasting_truth("", dict.fromkeys(KEPT, 1.0))  # else nothing was tested


def on_the_way_with_detours(response: str) -> int:
    """States before the first token that is wrong, that one's included."""
    wrong = [place for place, token in enumerate(response) if token not in ("abcd", "a", "abc", "a")[place]]
    return min([*wrong, len(response) - 1]) + 1


def test_detours_are_drawn_as_often_as_the_policy_takes_them() -> None:
    """Here each at either place has its own share to keep; 64 are drawn, evenly, so that each counts to 1/64."""
    ways = Ways(VOCABULARY, LIMIT)
    kept = {0: 1.0, 1: 0.1, 2: 0.9, 3: 0.5}
    way = ways.add((0, 1), replace(LASTING, tokens=("a", "a"), errors={0: LASTING.errors[0]}), [])
    worth = ways.worth(read_whole(ways, kept))
    first, second = policy().tolist()[:2]
    want = second[0] * sum(chance * kept[token] for token, chance in enumerate(first))
    assert float(worth[0][way.number, 0, 0]) == pytest.approx(want, rel=1 / 64)
    assert [len(level) for level in ways.levels] == [1, 3]  # each of the three is read once
    plainly = sum(kept[token] for token in (1, 2, 3)) / 3
    by_count = second[0] * (first[0] + plainly * sum(first[1:]))
    assert by_count != pytest.approx(want, rel=2 / 64)  # else nothing was tested


def test_so_many_detours_are_read_as_their_chance_asks_for() -> None:
    def detours(rare: float) -> int:
        ways = Ways(VOCABULARY, LIMIT)
        ways.add((0, 1), replace(LASTING, tokens=("a",) * 4), [])
        number = [column in (0, 2) and token != 0 for _, column, token in zip(*ways.asked, strict=True)]
        chances = torch.where(torch.tensor(number), rare, 1.0).double()
        ways.draw_detours(chances)
        return len(ways._detours)

    assert detours(0.0) == 0
    assert detours(0.001) == 1  # five tokens come to half a per cent
    assert detours(0.01) == 24  # to 3 * 0.01 / 1.03 + 2 * 0.01 / 1.02 = 0.0487, and 4.87 squared is 23.7
    assert detours(0.1) == MOST_DETOURS


def test_a_detour_is_no_departure_and_one_from_it_is() -> None:
    """To a critic that does not see departures."""
    seen = lasting_states("baaa", KEPT)
    assert lasting_states("bb", KEPT, "departures") == pytest.approx(seen[:2])
    assert lasting_states("bbaa", KEPT, "departures") == pytest.approx(seen)


def test_ways_without_detours_are_read_in_one_go() -> None:
    ways = Ways(VOCABULARY, LIMIT)
    ways.add((0, 1), PATH, [])
    assert not ways.draw_detours(torch.ones(len(ways.asked[0]), dtype=torch.float64))
