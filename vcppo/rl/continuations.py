"""Values by Monte Carlo: continuations of answers from the starts of their steps (VinePPO, arXiv:2410.01679).

Prefixes are kept as token ids. Equal prefixes are one state, whoever wrote them, and each answer's key/value cache is
read once for all of its states. Continuations are never trained on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from vcppo.engines.base import BranchPoint, Engine, Sampling
from vcppo.rl.rewards import Shaping
from vcppo.rl.sampler import worth
from vcppo.settings.reward import RewardSettings
from vcppo.settings.rollout import VineSettings
from vcppo.stages.context import StageContext
from vcppo.types import Rollout

Place = tuple[int, int]  # (row of the batch, tokens of its answer that stand before the state)


@dataclass(frozen=True)
class StepValues:
    """The steps of each answer and what they start from is worth."""

    segments: Tensor  # [B, T] int64, the step that a token is in
    step_values: Tensor  # [B, J] mean score of continuations from the start of each step
    at: dict[Place, float]  # the same, by place
    generated_tokens: int
    read_tokens: int  # of the answers that were read for their caches, prompts included


@dataclass(frozen=True)
class Means:
    """Mean scores of continuations, and what they took."""

    scores: list[float]
    generated_tokens: int
    read_tokens: int


def step_starts(rollouts: Sequence[Rollout], context: StageContext) -> list[list[int]]:
    """Where each answer's steps begin, in tokens, 0 first."""
    return steps_of([rollout.generation.tokens for rollout in rollouts], context)


def steps_of(answers: Sequence[Sequence[int]], context: StageContext) -> list[list[int]]:
    """`step_starts` of answers given as token ids."""
    name = context.tokenizer.convert_ids_to_tokens
    return [context.task.step_starts(name(list(answer))) for answer in answers]


def merged(starts: list[int], at_most: int | None) -> list[int]:
    """Neighbouring steps joined, so that `at_most` are left, of as near the same number of steps as can be.

    >>> merged([0, 4, 8, 12, 16], 2), merged([0, 4], 2), merged([0, 4, 8], None)
    ([0, 8], [0, 4], [0, 4, 8])
    """
    if at_most is None or len(starts) <= at_most:
        return starts
    return [starts[i * len(starts) // at_most] for i in range(at_most)]


def segments_of(starts: Sequence[Sequence[int]], width: int) -> Tensor:
    """[B, width] int64: how many steps have begun before or at each token, less one.

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
    context: StageContext,
    engine: Engine,
    sampling: Sampling,
    seed: int,
) -> StepValues:
    """`vine.samples` continuations from the start of every step.

    Args:
        scores: [B] shaped. With `vine.cap = first` they stand for the values of the steps beyond `vine.max_steps`,
            which thereby get no advantage, while the last step before them takes all that is left.
    """
    every = step_starts(rollouts, context)
    match settings.cap:
        case "merge":
            starts = [merged(own, settings.max_steps) for own in every]
        case "first":
            starts = every
        case _:
            assert_never(settings.cap)
    asked = [(row, start) for row, own in enumerate(starts) for start in own[: settings.max_steps]]
    found = mean_scores(
        rollouts,
        asked,
        settings.samples,
        shaping,
        context=context,
        engine=engine,
        sampling=sampling,
        seed=seed,
    )
    at = dict(zip(asked, found.scores, strict=True))
    values = torch.zeros((len(starts), max(map(len, starts))))
    for row, own in enumerate(starts):
        values[row, : len(own)] = torch.tensor([at.get((row, start), float(scores[row])) for start in own])
    width = max(len(rollout.generation.tokens) for rollout in rollouts)
    return StepValues(segments_of(starts, width), values, at, found.generated_tokens, found.read_tokens)


def mean_scores(
    rollouts: Sequence[Rollout],
    places: Sequence[Place],
    samples: int,
    shaping: Shaping,
    *,
    context: StageContext,
    engine: Engine,
    sampling: Sampling,
    seed: int,
) -> Means:
    """The mean shaped score of `samples` continuations from each place."""
    owners: dict[tuple[int, ...], Place] = {}  # a state's tokens -> the first place that it was met at
    states = [(*rollouts[row].prompt_tokens, *rollouts[row].generation.tokens[:offset]) for row, offset in places]
    for state, place in zip(states, places, strict=True):
        owners.setdefault(state, place)
    points = [
        BranchPoint(row, len(state), sampling.max_tokens - offset)
        for state, (row, offset) in owners.items()
        for _ in range(samples)
    ]
    stems = [(*rollout.prompt_tokens, *rollout.generation.tokens) for rollout in rollouts]
    continuations = engine.branch(stems, points, sampling, seed=seed)
    before = [rollouts[row].generation.tokens[:offset] for row, offset in owners.values() for _ in range(samples)]
    answers = [(*prefix, *made.tokens) for prefix, made in zip(before, continuations, strict=True)]
    texts = context.tokenizer.batch_decode(answers, skip_special_tokens=True)
    prompts = [rollouts[point.stem].prompt for point in points]
    reward: RewardSettings = context.settings.reward
    raw = [worth(verdict, reward) for verdict, _ in context.task.judge(texts, prompts)]
    shaped = shaping.shape(
        torch.tensor(raw),
        torch.tensor([len(answer) for answer in answers]),
        torch.tensor([made.stop_reason == "length" for made in continuations]),
    )
    means = dict(zip(owners, shaped.view(-1, samples).mean(dim=1).tolist(), strict=True))
    return Means(
        scores=[means[state] for state in states],
        generated_tokens=sum(len(made.tokens) for made in continuations),
        read_tokens=sum(len(stems[row]) for row in {row for row, _ in owners.values()}),
    )
