"""Selection of an iteration's responses that are trained on, and of those that must stay together."""

from collections.abc import Callable

import torch
from torch import Tensor

from vcppo.maths.advantages import group_advantages
from vcppo.maths.selection import mixed_groups, preference_pairs, prune
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch, Verdict


def choose(batch: RolloutBatch, settings: RunSettings, rng: torch.Generator) -> Tensor:
    """[U, n] row numbers: U units of n responses that no minibatch may part, n = 2 for DPO's pairs and 1 otherwise.

    Nothing here needs a model: it runs before every forward pass of training.
    """
    if settings.loss.pairs:
        return preference_pairs(batch.correct, batch.group, rng=rng)
    chosen = settings.select
    rows = torch.arange(len(batch.scores))
    if chosen.prune_rate > 0:
        rows = prune(
            outcome_ranking(batch), batch.group, rate=chosen.prune_rate, scope=chosen.scope, keep=chosen.keep, rng=rng
        )
    if chosen.drop_truncated:
        rows = rows[~batch.truncated[rows]]
    return rows[:, None]


def outcome_ranking(batch: RolloutBatch) -> Tensor:
    """[B] GRPO's advantage of each response, from its whole group: what CPPO knows before any forward pass."""
    first = batch.response_mask[:, :1]
    return group_advantages(batch.scores, batch.group, first, scale=True)[:, 0]


def until_mixed(
    sample: Callable[[int], list[Rollout]], groups: int, size: int, max_rounds: int
) -> tuple[list[Rollout], list[Rollout]]:
    """DAPO's dynamic sampling: rounds of new prompts until `groups` of them have right and wrong responses.

    Args:
        sample: called with the number of the round, returns whole groups of `size` responses, prompt by prompt.
    Returns:
        (the responses to up to `groups` such prompts, fewer after `max_rounds`; all responses sampled). If no prompt
        is mixed, the first are the last round's responses, and they are trained on like any others: where verdicts
        alone make the scores an advantage within the group is 0, but GAE, a KL penalty, an entropy bonus, the
        likelihood of right responses and the momentum of earlier updates move the policy.
    """
    mixed: list[Rollout] = []
    drawn: list[Rollout] = []
    sampled: list[Rollout] = []
    for number in range(max_rounds):
        drawn = sample(number)
        sampled += drawn
        correct = torch.tensor([rollout.verdict is Verdict.CORRECT for rollout in drawn])
        group = torch.arange(len(drawn)) // size
        mixed += [rollout for rollout, keep in zip(drawn, mixed_groups(correct, group).tolist(), strict=True) if keep]
        if len(mixed) >= groups * size:
            break
    return mixed[: groups * size] or drawn, sampled
