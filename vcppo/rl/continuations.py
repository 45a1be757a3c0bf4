"""Values by Monte Carlo: continuations of responses from the starts of their steps (VinePPO, arXiv:2410.01679).

Prefixes are token ids. Equal prefixes are one state, whichever response they come from, and each response's key/value
cache is read once for all of its states. Continuations are never trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from vcppo.engines.base import BranchPoint
from vcppo.rl.rewards import Shaping, verdict_score
from vcppo.rl.sampler import Sampler
from vcppo.settings.rollout import VineSettings
from vcppo.types import Rollout

Place = tuple[int, int]  # (row of the batch, tokens of its response before the state)


@dataclass(frozen=True)
class StepValues:
    """The steps of each response and the values of the states they start from."""

    segments: Tensor  # [B, T] int64, the step that a token is in
    step_values: Tensor  # [B, J] mean score of continuations from the start of each step
    at: dict[Place, float]  # the same, by place
    generated_tokens: int
    read_tokens: int  # of the responses that were read for their caches, prompts included


@dataclass(frozen=True)
class Means:
    """Mean scores of continuations, and what they took."""

    scores: list[float]
    generated_tokens: int
    read_tokens: int


def merged(starts: list[int], at_most: int | None) -> list[int]:
    """Join neighbouring steps, so that `at_most` are left, of as nearly the same number of steps as can be.

    >>> merged([0, 4, 8, 12, 16], 2), merged([0, 4], 2), merged([0, 4, 8], None)
    ([0, 8], [0, 4], [0, 4, 8])
    """
    if at_most is None or len(starts) <= at_most:
        return starts
    return [starts[i * len(starts) // at_most] for i in range(at_most)]


def segments_of(starts: Sequence[Sequence[int]], width: int) -> Tensor:
    """[B, width] int64: number of the step that each token is in, from 0.

    >>> segments_of([[0, 2], [0]], 4).tolist()
    [[0, 0, 1, 1], [0, 0, 0, 0]]
    """
    begun = torch.zeros((len(starts), width), dtype=torch.int64)
    for row, offsets in enumerate(starts):
        begun[row, list(offsets)] = 1
    return begun.cumsum(dim=1) - 1


def step_values(
    rollouts: Sequence[Rollout],
    scores: Tensor,
    shaping: Shaping,
    settings: VineSettings,
    *,
    sampler: Sampler,
    seed: int,
) -> StepValues:
    """Sample `vine.samples` continuations from the start of every step.

    Args:
        scores: [B] shaped. With `vine.cap = first` they stand for the values of the steps beyond `vine.max_steps`,
            which thereby get advantage 0, while the last step before them gets all that is left.
    """
    all_starts = sampler.step_starts([rollout.generation.tokens for rollout in rollouts])
    match settings.cap:
        case "merge":
            starts = [merged(steps, settings.max_steps) for steps in all_starts]
        case "first":
            starts = all_starts
        case _:
            assert_never(settings.cap)
    places = [(row, start) for row, steps in enumerate(starts) for start in steps[: settings.max_steps]]
    means = mean_scores(rollouts, places, settings.samples, shaping, sampler=sampler, seed=seed)
    at = dict(zip(places, means.scores, strict=True))
    values = torch.zeros((len(starts), max(map(len, starts))))
    for row, steps in enumerate(starts):
        values[row, : len(steps)] = torch.tensor([at.get((row, start), float(scores[row])) for start in steps])
    width = max(len(rollout.generation.tokens) for rollout in rollouts)
    return StepValues(segments_of(starts, width), values, at, means.generated_tokens, means.read_tokens)


def mean_scores(
    rollouts: Sequence[Rollout],
    places: Sequence[Place],
    samples: int,
    shaping: Shaping,
    *,
    sampler: Sampler,
    seed: int,
) -> Means:
    """Sample continuations from each place; their mean shaped scores."""
    first_place: dict[tuple[int, ...], Place] = {}  # of each state, by its tokens
    states = [(*rollouts[row].prompt_tokens, *rollouts[row].generation.tokens[:offset]) for row, offset in places]
    for state, place in zip(states, places, strict=True):
        first_place.setdefault(state, place)
    points = [
        BranchPoint(row, len(state), sampler.sampling.max_tokens - offset)
        for state, (row, offset) in first_place.items()
        for _ in range(samples)
    ]
    stems = [(*rollout.prompt_tokens, *rollout.generation.tokens) for rollout in rollouts]
    continuations = sampler.engine.branch(stems, points, sampler.sampling, seed=seed)
    before = [rollouts[row].generation.tokens[:offset] for row, offset in first_place.values() for _ in range(samples)]
    responses = [(*prefix, *continuation.tokens) for prefix, continuation in zip(before, continuations, strict=True)]
    judgements = sampler.judge(responses, [rollouts[point.stem].prompt for point in points])
    shaped = shaping.shape(
        torch.tensor([verdict_score(verdict, shaping.settings, credit) for verdict, _, credit in judgements]),
        torch.tensor([len(response) for response in responses]),
        torch.tensor([continuation.stop_reason == "length" for continuation in continuations]),
    )
    means = dict(zip(first_place, shaped.view(-1, samples).mean(dim=1).tolist(), strict=True))
    return Means(
        scores=[means[state] for state in states],
        generated_tokens=sum(len(continuation.tokens) for continuation in continuations),
        read_tokens=sum(len(stems[row]) for row in {row for row, _ in first_place.values()}),
    )
