"""The decisions of some responses as tensors, and the chance of success from every state of theirs.

A `DecisionPath` names tokens; here it becomes a way of token ids behind what was written before it, with the ways that
branch off from it. Ways that are the same are read once, as those of all responses to a prompt are where one response
is right. Branches are a level of their own, which is worked out before the one that they branch off from.

Where what is tolerated changes what the policy does later (`DecisionPath.lasting`), each such token begins a detour.
They are too many to read: a problem of `digits` has some 140 with a share of its chance of success above 1e-4. So a
few are read, as if the policy had drawn them, and every detour is taken to keep the share of its way's chance of
success that these keep on average. So is one that begins on another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import torch
from torch import Tensor

from vcppo.maths.exact_values import chances_of_success, error_shares
from vcppo.settings.critic import Unseen
from vcppo.types import DecisionPath, TokenBatch

# What a detour keeps differs, on `digits` with a standard deviation of 0.25. A way's chance of success is then known to
# 0.25 of DETOUR_CHANCE, a quarter of a per cent of itself, as far as MOST_DETOURS allows: up to 8 % through detours.
DETOUR_CHANCE: Final = 0.01  # through detours, of a way's success: one is read; where it is n times that, n^2 are
MOST_DETOURS: Final = 64
DETOURS_IN_TURN: Final = 3  # one on another, that are counted: on `digits` each has a quarter of the effect of the last


class State(NamedTuple):
    """Index of the value of a state."""

    level: int  # of branching
    way: int  # among those of the level
    place: int
    errors: int


@dataclass(frozen=True)
class Way:
    """A way as token ids, from where it begins."""

    level: int
    number: int  # among those of its level
    path: DecisionPath  # of a response that has it; how far another one has come on it is another's to say
    prefix: tuple[int, ...]  # token ids before it, a prompt's first
    before: int  # how many of them are the response's
    ids: tuple[int, ...]  # of its tokens, as far as the length limit leaves them
    branches: dict[int, dict[str, "Way"]] = field(default_factory=dict)  # by place, and the token that leads there

    @property
    def places(self) -> int:
        """Tokens of it that the length limit leaves."""
        return len(self.ids)


@dataclass
class _Reading:
    """What is read at once. Chances are numbered through all readings: `asked` first, then those of `tolerant`."""

    first: int  # number of its first chance
    ways: list[Way] = field(default_factory=list)  # in the order of rows
    asked: list[tuple[int, int, int]] = field(default_factory=list)  # (row, column, token), one a chance that is read
    tolerant: dict[int, tuple[Mapping[str, int], list[tuple[int, int, int, int]]]] = field(
        default_factory=dict
    )  # by what is listed: that, and (level, way, place, row) wherever it is

    def ask(self, row: int, column: int, token: int) -> int:
        """Ask for a chance; its number."""
        self.asked.append((row, column, token))
        return self.first + len(self.asked) - 1


class Ways:
    """The ways of some responses, those that branch off from them, and the chances that their values are made of.

    Args:
        vocabulary: ids of tokens by name; others have no chance. limit: tokens of a response, after which it is cut
            and has failed.
    """

    def __init__(self, vocabulary: dict[str, int], limit: int) -> None:
        self.vocabulary, self.limit = vocabulary, limit
        self.levels: list[list[Way]] = []
        self._known: dict[object, Way] = {}
        self._contents: dict[int, tuple[Mapping[str, int], object]] = {}  # what is tolerated, often one for many places
        self._readings = [_Reading(0)]
        self._on: list[tuple[int, int, int, int, int, int]] = []  # see `_steps`
        self._exits: list[tuple[int, int, int, int, float | Way]] = []  # (level, way, place, number, what it is worth)
        self._detours: list[tuple[Way, int, Way]] = []  # drawn: the way, the place where it is left, and the rest

    def add(self, prompt_tokens: tuple[int, ...], path: DecisionPath, pieces: Sequence[str]) -> Way:
        """Add a response's way, and the detours that it took; ways that are the same are read once."""
        key = (prompt_tokens, self._identity(path))
        if key not in self._known:
            self._known[key] = self._laid_out(prompt_tokens, path, level=0, before=0)
        way = self._known[key]
        while isinstance(left_for := path.left_for(pieces), DecisionPath):
            place = path.written
            way = self._branch(way, place, pieces[place], left_for)
            path, pieces = left_for, pieces[place + 1 :]
        return self._known[key]

    def _identity(self, path: DecisionPath) -> object:
        """Equal for ways that are the same, however far responses have come on them."""
        errors = tuple((place, self._content(listed)) for place, listed in sorted(path.errors.items()))
        exits = tuple(
            (place, token, self._identity(worth) if isinstance(worth, DecisionPath) else worth)
            for place, listed in sorted(path.exits.items())
            for token, worth in listed.items()
        )
        ends = path.errors_allowed, path.correct_if_right, path.correct_if_failed
        return path.tokens, errors, exits, ends, path.lasting

    def _content(self, listed: Mapping[str, int]) -> object:
        if id(listed) not in self._contents:
            self._contents[id(listed)] = listed, frozenset(listed.items())
        return self._contents[id(listed)][1]

    def _laid_out(self, prefix: tuple[int, ...], path: DecisionPath, *, level: int, before: int) -> Way:
        if level == len(self.levels):
            self.levels.append([])
        ids = tuple(self.vocabulary[token] for token in path.tokens)[: max(self.limit - before, 0)]
        way = Way(level, len(self.levels[level]), path, prefix, before, ids)
        self.levels[level].append(way)
        now = self._readings[-1]
        row = len(now.ways)
        now.ways.append(way)
        for place in range(way.places):
            if (listed := path.errors.get(place)) is None:
                self._on.append((level, way.number, place, 0, now.ask(row, place, ids[place]), -1))
            else:
                now.tolerant.setdefault(id(listed), (listed, []))[1].append((level, way.number, place, row))
            for token, worth in path.exits.get(place, {}).items():
                if token not in self.vocabulary:
                    continue
                number = now.ask(row, place, self.vocabulary[token])
                leads_to = self._branch(way, place, token, worth) if isinstance(worth, DecisionPath) else worth
                self._exits.append((level, way.number, place, number, leads_to))
        return way

    def _branch(self, way: Way, place: int, token: str, path: DecisionPath) -> Way:
        """The way that a token at some place of another one leads to, laid out once."""
        branches = way.branches.setdefault(place, {})
        if token not in branches:
            taken = (*way.prefix, *way.ids[:place], self.vocabulary[token])
            branches[token] = self._laid_out(taken, path, level=way.level + 1, before=way.before + place + 1)
        return branches[token]

    def draw_detours(self, chances: Tensor) -> bool:
        """Draw the detours that are read to see what one keeps; False if there are none, and all is read.

        They are spread evenly over the chance of success that goes through each, as far as it goes on unchanged there.
        Nothing is drawn at random: processes that have the same chances, to the bit, read the same.

        Args:
            chances: [N] float64, of what was `asked`, with gradient or without.
        """
        lasting = sum(way.path.lasting for way in self.levels[0])
        if not lasting:
            return False
        steps = self._steps()
        _, number, place, _, of_chance, token = steps[steps[:, 0] == 0].unbind(dim=1)
        chance = chances.detach()[of_chance]
        going_on = chance.new_zeros(len(self.levels[0]), int(place.max()) + 1)
        going_on = going_on.index_put((number, place), chance, accumulate=True)
        through = torch.where(token >= 0, chance / going_on[number, place], 0.0).nan_to_num(0.0).cumsum(0)
        count = min(math.ceil((float(through[-1]) / lasting / DETOUR_CHANCE) ** 2), MOST_DETOURS)
        drawn = torch.searchsorted(through, (torch.arange(count) + 0.5) / max(count, 1) * through[-1])
        names = {i: name for name, i in self.vocabulary.items()}
        self._readings.append(_Reading(len(chances)))
        for i, at, left_by in torch.stack([number, place, token], dim=1)[drawn].tolist():
            way = self.levels[0][i]
            self._detours.append((way, at, self._branch(way, at, names[left_by], way.path.detour(at, ()))))
        return bool(self._readings[-1].ways)

    @property
    def batch(self) -> TokenBatch:
        """What is to be read now: each way as a response to what was written before it."""
        ways = self._readings[-1].ways
        lengths = torch.tensor([way.places for way in ways])
        whole = [torch.tensor(way.prefix + way.ids) for way in ways]
        return TokenBatch(
            input_ids=torch.nn.utils.rnn.pad_sequence(whole, batch_first=True),
            prompt_lengths=torch.tensor([len(way.prefix) for way in ways]),
            response_mask=torch.arange(max(int(lengths.max()), 1)) < lengths[:, None],
        )

    @property
    def asked(self) -> tuple[Tensor, Tensor, Tensor]:
        """([N] rows, [N] columns, [N] tokens) of `batch` whose chances are to be read."""
        now = self._readings[-1]
        rows, columns, tokens = _rows(now.asked, 3).unbind(dim=1)
        parts = [(rows, columns, tokens)]
        for listed, places in now.tolerant.values():
            ids, _ = self._of_vocabulary(listed)
            _, _, place, row = _rows(places, 4).repeat_interleave(len(ids), dim=0).unbind(dim=1)
            parts.append((row, place, ids.repeat(len(places))))
        rows, columns, tokens = map(torch.cat, zip(*parts, strict=True))
        return rows, columns, tokens

    @property
    def read_tokens(self) -> int:
        """Tokens of all ways, each with what was written before it."""
        return sum(len(way.prefix) + way.places for ways in self.levels for way in ways)

    def _steps(self) -> Tensor:
        """[M, 6] int64, every step that goes on or begins a detour.

        Level, way, place, errors added, number of its chance; and the token with which a detour begins, else -1.
        """
        parts = [_rows(self._on, 6)]
        for reading in self._readings:
            number = reading.first + len(reading.asked)
            for listed, places in reading.tolerant.values():
                ids, errors = self._of_vocabulary(listed)
                ways = [self.levels[level][way] for level, way, _, _ in places]
                own = torch.tensor([way.ids[place] for way, (_, _, place, _) in zip(ways, places, strict=True)])
                lasting = torch.tensor([way.path.lasting for way in ways])
                token = torch.where(lasting[:, None] & (ids != own[:, None]), ids, -1).flatten()
                where = _rows(places, 4)[:, :3].repeat_interleave(len(ids), dim=0)
                numbers = number + torch.arange(len(where))
                columns = (errors.repeat(len(places)), numbers, token)
                parts.append(torch.cat([where, torch.stack(columns, dim=1)], dim=1))
                number += len(where)
        return torch.cat(parts)

    def _of_vocabulary(self, listed: Mapping[str, int]) -> tuple[Tensor, Tensor]:
        """([K] ids, [K] errors) of the tokens listed."""
        known = [(self.vocabulary[token], errors) for token, errors in listed.items() if token in self.vocabulary]
        ids, errors = _rows(known, 2).unbind(dim=1)
        return ids, errors

    def worth(self, chances: Tensor, unseen: Unseen = "none") -> list[Tensor]:
        """Chance of being judged correct from each state, by level: [ways, places + 1, numbers of errors].

        Args:
            chances: [N] float64, of what is `asked`.
            unseen: "errors": what a critic would say that does not know how many were made (`error_shares`).
        """
        steps, kept = self._steps(), chances.new_ones(())
        for _ in range(DETOURS_IN_TURN if self._detours else 0):
            worth = self._worth(chances, steps, kept, "none")
            parts = [
                (worth[branch.level][branch.number, 0, 0], worth[way.level][way.number, place + 1, 0])
                for way, place, branch in self._detours
            ]
            detours, unchanged = torch.stack([one for one, _ in parts]), torch.stack([other for _, other in parts])
            known = unchanged > 0
            kept = torch.where(known, detours / torch.where(known, unchanged, 1.0), 1.0).mean()
        return self._worth(chances, steps, kept, unseen)

    def _worth(self, chances: Tensor, steps: Tensor, kept: Tensor, unseen: Unseen) -> list[Tensor]:
        """What `worth` says, where a detour keeps so much of the chance of success that its way has there."""
        by_level = list[Tensor]()
        starts = chances.new_zeros(0)  # of the level above, from which branches are worth what they are
        for level in reversed(range(len(self.levels))):
            on, exits, right, failed = self._terms(level, steps[steps[:, 0] == level], chances, kept, starts)
            worth = chances_of_success(on, exits, right, failed)
            starts = worth[:, 0, 0]
            if unseen == "errors":
                mean = (error_shares(on, right.shape[1]) * worth).sum(dim=2, keepdim=True)
                worth = mean.expand_as(worth)
            by_level.append(worth)
        return by_level[::-1]

    def _terms(
        self, level: int, steps: Tensor, chances: Tensor, kept: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the arguments of `chances_of_success`."""
        ways = self.levels[level]
        rows, places = len(ways), max(max(way.places for way in ways), 1)
        exiting = [step for step in self._exits if step[0] == level]
        most = int(steps[:, 3].max()) + 1 if len(steps) else 1
        counts = torch.arange(max(way.path.errors_allowed for way in ways) + 2)
        failed = chances.new_tensor([way.path.correct_if_failed for way in ways])

        on = chances.new_zeros((rows, places, most))
        ends = torch.tensor([way.places for way in ways])
        on[..., 0].masked_fill_(torch.arange(places) >= ends[:, None], 1.0)
        _, way, place, errors, number, token = steps.unbind(dim=1)
        going_on = torch.where(token >= 0, kept, 1.0) * chances[number]
        on = on.index_put((way, place, errors), going_on, accumulate=True)

        _, way, place, number = _rows([step[:4] for step in exiting], 4).unbind(dim=1)
        of_branches = torch.tensor([step[4].number if isinstance(step[4], Way) else -1 for step in exiting]).long()
        known = chances.new_tensor([0.0 if isinstance(step[4], Way) else step[4] for step in exiting])
        worth = known
        if len(starts):
            worth = torch.where(of_branches >= 0, starts[of_branches.clamp(min=0)], known)
        exits = chances.new_zeros((rows, places))
        exits = exits.index_put((way, place), chances[number] * (worth - failed[way]), accumulate=True)

        if_right = chances.new_tensor([_if_ended(way) for way in ways])
        allowed = torch.tensor([way.path.errors_allowed for way in ways])
        right = torch.where(counts <= allowed[:, None], if_right[:, None], failed[:, None])
        return on, exits, right, failed

    def states(
        self, way: Way, path: DecisionPath, pieces: Sequence[str], unseen: Unseen = "none"
    ) -> list[State | float]:
        """Return the index of each state's value, before each token of a response; or its chance, where known.

        Args:
            way: what `add` made of `path`.
            pieces: the response's tokens by name, or those that it wrote after it branched off.
            unseen: "departures": as though a response had not left its way.
        """
        errors, states = 0, list[State | float]()
        for place in range(min(path.written + 1, len(pieces))):
            states.append(State(way.level, way.number, place, errors))
            if place < path.written:
                errors += path.errors.get(place, {}).get(path.tokens[place], 0)
        if len(pieces) <= path.written + 1:
            return states
        place, left_by, rest = path.written, pieces[path.written], pieces[path.written + 1 :]
        if unseen == "departures" and left_by not in path.errors.get(place, {}):  # what is tolerated is none
            last = max(way.places - 1, 0)
            later = range(place + 1, len(pieces))
            return states + [State(way.level, way.number, min(there, last), errors) for there in later]
        left_for = path.left_for(pieces)
        if isinstance(left_for, DecisionPath):
            return states + self.states(way.branches[place][left_by], left_for, rest, unseen)
        return states + [path.correct_if_failed if left_for is None else left_for] * len(rest)


def _if_ended(way: Way) -> float:
    """Chance of a response that has come to the end of its way: cut before that, it has failed."""
    whole = way.places == len(way.path.tokens)
    return way.path.correct_if_right if whole else way.path.correct_if_failed


def _rows(rows: Sequence[tuple[int, ...]], count: int) -> Tensor:
    """[N, count] int64."""
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, count)


def look_up(worth: Sequence[Tensor], states: Sequence[State | float]) -> Tensor:
    """[N] chances of these states."""
    known = torch.tensor([0.0 if isinstance(state, State) else state for state in states], dtype=torch.float64)
    places = torch.tensor([state if isinstance(state, State) else (-1, 0, 0, 0) for state in states])
    for level, chances in enumerate(worth):
        here = places[:, 0] == level
        _, way, place, errors = places[here].unbind(dim=1)
        known[here] = chances[way, place, errors.clamp(max=chances.shape[2] - 1)].to(known.dtype)
    return known
