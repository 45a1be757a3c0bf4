"""The decisions of some responses as tensors, and the chance of success from every state of theirs.

A `DecisionPath` names tokens; here it becomes a way of token ids behind what was written before it, with the ways that
branch off from it. Ways that are the same are read once, as those of all responses to a prompt are where one response
is right. Branches are a level of their own, which is worked out before the one that they branch off from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from vcppo.maths.exact_values import chances_of_success, error_shares
from vcppo.settings.critic import Unseen
from vcppo.types import DecisionPath, TokenBatch


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
    places: int  # tokens of it that the length limit leaves
    branches: dict[int, dict[str, "Way"]] = field(default_factory=dict)  # by place, and the token that leads there


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
        self._prefixes: list[tuple[int, ...]] = []  # of each way that is read, in order
        self._tokens: list[tuple[int, ...]] = []
        self._asked: list[tuple[int, int, int]] = []  # (row, column, token), one a chance that is read
        self._on: list[tuple[int, int, int, int, int]] = []  # (level, way, place, errors, number of the chance)
        self._tolerant: dict[int, tuple[Mapping[str, int], list[tuple[int, int, int, int]]]] = {}  # by what is listed
        self._exits: list[tuple[int, int, int, int, float | Way]] = []  # the same, and what it is worth

    def add(self, prompt_tokens: tuple[int, ...], path: DecisionPath) -> Way:
        """Add a response's way; ways that are the same are read once."""
        key = (prompt_tokens, self._identity(path))
        if key not in self._known:
            self._known[key] = self._laid_out(prompt_tokens, path, level=0, before=0)
        return self._known[key]

    def _identity(self, path: DecisionPath) -> object:
        """Equal for ways that are the same, however far responses have come on them."""
        errors = tuple((place, self._content(listed)) for place, listed in sorted(path.errors.items()))
        exits = tuple(
            (place, token, self._identity(worth) if isinstance(worth, DecisionPath) else worth)
            for place, listed in sorted(path.exits.items())
            for token, worth in listed.items()
        )
        return path.tokens, errors, exits, path.errors_allowed, path.correct_if_right, path.correct_if_failed

    def _content(self, listed: Mapping[str, int]) -> object:
        if id(listed) not in self._contents:
            self._contents[id(listed)] = listed, frozenset(listed.items())
        return self._contents[id(listed)][1]

    def _laid_out(self, prefix: tuple[int, ...], path: DecisionPath, *, level: int, before: int) -> Way:
        if level == len(self.levels):
            self.levels.append([])
        ids = tuple(self.vocabulary[token] for token in path.tokens)
        way = Way(level, len(self.levels[level]), path, max(min(len(ids), self.limit - before), 0))
        self.levels[level].append(way)
        row = len(self._prefixes)
        self._prefixes.append(prefix)
        self._tokens.append(ids[: way.places])
        for place in range(way.places):
            if (listed := path.errors.get(place)) is None:
                self._on.append((level, way.number, place, 0, len(self._asked)))
                self._asked.append((row, place, ids[place]))
            else:
                self._tolerant.setdefault(id(listed), (listed, []))[1].append((level, way.number, place, row))
            for token, worth in path.exits.get(place, {}).items():
                if token not in self.vocabulary:
                    continue
                number = len(self._asked)
                self._asked.append((row, place, self.vocabulary[token]))
                if isinstance(worth, DecisionPath):
                    taken = (*prefix, *ids[:place], self.vocabulary[token])
                    branch = self._laid_out(taken, worth, level=level + 1, before=before + place + 1)
                    way.branches.setdefault(place, {})[token] = branch
                    self._exits.append((level, way.number, place, number, branch))
                else:
                    self._exits.append((level, way.number, place, number, worth))
        return way

    @property
    def batch(self) -> TokenBatch:
        """All that is to be read: each way as a response to what was written before it."""
        lengths = torch.tensor([len(tokens) for tokens in self._tokens])
        whole = [torch.tensor(prefix + ids) for prefix, ids in zip(self._prefixes, self._tokens, strict=True)]
        return TokenBatch(
            input_ids=torch.nn.utils.rnn.pad_sequence(whole, batch_first=True),
            prompt_lengths=torch.tensor([len(prefix) for prefix in self._prefixes]),
            response_mask=torch.arange(max(int(lengths.max()), 1)) < lengths[:, None],
        )

    @property
    def asked(self) -> tuple[Tensor, Tensor, Tensor]:
        """([N] rows, [N] columns, [N] tokens) of `batch` whose chances are to be read."""
        rows, columns, tokens = _rows(self._asked, 3).unbind(dim=1)
        parts = [(rows, columns, tokens)]
        for listed, places in self._tolerant.values():
            ids, _ = self._of_vocabulary(listed)
            _, _, place, row = _rows(places, 4).repeat_interleave(len(ids), dim=0).unbind(dim=1)
            parts.append((row, place, ids.repeat(len(places))))
        rows, columns, tokens = map(torch.cat, zip(*parts, strict=True))
        return rows, columns, tokens

    def _steps(self) -> Tensor:
        """[M, 5] int64: level, way, place, errors added and number of the chance of every step that goes on."""
        parts, number = [_rows(self._on, 5)], len(self._asked)
        for listed, places in self._tolerant.values():
            ids, errors = self._of_vocabulary(listed)
            where = _rows(places, 4)[:, :3].repeat_interleave(len(ids), dim=0)
            numbers = number + torch.arange(len(where))
            parts.append(torch.cat([where, errors.repeat(len(places))[:, None], numbers[:, None]], dim=1))
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
        by_level, steps = list[Tensor](), self._steps()
        starts = chances.new_zeros(0)  # of the level above, from which branches are worth what they are
        for level in reversed(range(len(self.levels))):
            on, exits, right, failed = self._terms(level, steps[steps[:, 0] == level], chances, starts)
            worth = chances_of_success(on, exits, right, failed)
            starts = worth[:, 0, 0]
            if unseen == "errors":
                mean = (error_shares(on, right.shape[1]) * worth).sum(dim=2, keepdim=True)
                worth = mean.expand_as(worth)
            by_level.append(worth)
        return by_level[::-1]

    def _terms(
        self, level: int, steps: Tensor, chances: Tensor, starts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the arguments of `chances_of_success`."""
        ways = self.levels[level]
        rows, places = len(ways), max(max(way.places for way in ways), 1)
        left = [step for step in self._exits if step[0] == level]
        most = int(steps[:, 3].max()) + 1 if len(steps) else 1
        counts = torch.arange(max(way.path.errors_allowed for way in ways) + 2)
        failed = chances.new_tensor([way.path.correct_if_failed for way in ways])

        on = chances.new_zeros((rows, places, most))
        ends = torch.tensor([way.places for way in ways])
        on[..., 0].masked_fill_(torch.arange(places) >= ends[:, None], 1.0)
        _, way, place, errors, number = steps.unbind(dim=1)
        on = on.index_put((way, place, errors), chances[number], accumulate=True)

        _, way, place, number = _rows([step[:4] for step in left], 4).unbind(dim=1)
        of_branches = torch.tensor([step[4].number if isinstance(step[4], Way) else -1 for step in left]).long()
        known = chances.new_tensor([0.0 if isinstance(step[4], Way) else step[4] for step in left])
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
        later = range(path.written + 1, len(pieces))
        if unseen == "departures":
            last = max(way.places - 1, 0)
            return states + [State(way.level, way.number, min(place, last), errors) for place in later]
        left_by = pieces[path.written]
        taken = path.exits.get(path.written, {}).get(left_by)
        if isinstance(taken, DecisionPath):
            branch = way.branches[path.written][left_by]
            return states + self.states(branch, taken, pieces[path.written + 1 :], unseen)
        return states + [path.correct_if_failed if taken is None else taken] * len(later)


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
