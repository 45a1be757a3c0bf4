"""Exact values: V of every state of a response under the policy as it is, computed and not sampled (docs/critics.md).

A task says which decisions a right response is made of (`DecisionPath`); here the policy's chances of each are read in
forward passes, and vcppo/rl/ways.py puts them together. Chances of later decisions are read along the response's own
tokens: the values are exact as far as those do not depend on which of several tolerated tokens was written before, and
as far as the task lists all that may be judged correct. Where they do depend on it, and the path says so, the mean
effect is read beside them, on ways that these responses do not take: on how many there are of them, values then depend
a little. bench/exact_values.py measures all of it against continuations.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.errors import DataError
from vcppo.models import forward
from vcppo.rl.sampler import Sampler
from vcppo.rl.ways import Way, Ways, look_up
from vcppo.settings.critic import Unseen
from vcppo.settings.reward import RewardSettings
from vcppo.tasks.base import ExactTask
from vcppo.types import DecisionPath, Prompt, Rollout, RolloutBatch


class Response(NamedTuple):
    """A response whose values are computed, with its prompt."""

    prompt: Prompt
    prompt_tokens: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, rollout: Rollout) -> "Response":
        """The response of a rollout."""
        return cls(rollout.prompt, rollout.prompt_tokens, rollout.generation.tokens)


@dataclass(frozen=True)
class ExactValues:
    """The policy's chances of every decision of some responses, from which their values follow."""

    ways: Ways
    paths: dict[int, tuple[Way, DecisionPath, list[str]]]  # by row: its way, also as the task tells it; its tokens
    chances: Tensor  # [N] float64, of what the ways ask for
    shape: tuple[int, int]  # [B, T]
    reward: RewardSettings
    read_tokens: int  # of the ways that the policy read, prompts included

    def values(self, unseen: Unseen = "none") -> Tensor:
        """[B, T] float32: V(s_t), before token t is chosen, in units of reward; 0 after a response's end.

        Args:
            unseen: what of a state the values shall not depend on.
        """
        worth = self.ways.worth(self.chances, unseen)
        values = torch.zeros(self.shape, dtype=torch.float64)
        states = {row: self.ways.states(way, path, pieces, unseen) for row, (way, path, pieces) in self.paths.items()}
        found = look_up(worth, list(itertools.chain(*states.values())))
        for row, of_row in zip(states, found.split([len(of_row) for of_row in states.values()]), strict=True):
            values[row, : len(of_row)] = in_reward(of_row, self.reward)
        return values.float()


def refuse_credit(batch: RolloutBatch, reward: RewardSettings) -> None:
    """Refuse responses whose scores are not those of their verdicts: nobody computes what credit they may expect.

    Args:
        batch: its scores, shaped or not: `has_exact_values` holds of the settings, so there is no shaping.
    Raises:
        DataError: there is partial credit.
    """
    plain = torch.where(batch.correct, reward.correct, reward.wrong)
    rows = (batch.scores != plain).nonzero()[:, 0].tolist()
    if rows:
        given, wanted = float(batch.scores[rows[0]]), float(plain[rows[0]])
        raise DataError(
            f"exact values with partial credit: {len(rows)} of {len(plain)} responses have another score than their "
            f"verdict's, the first {given:g} in place of {wanted:g}, and exact values know the chance of a correct "
            "verdict alone; expected a task that gives no credit, or none with decision_path (docs/critics.md)"
        )


def in_reward(chance: Tensor, reward: RewardSettings) -> Tensor:
    """Expected score of a response that is judged correct with some chance, and is wrong otherwise."""
    return reward.wrong + (reward.correct - reward.wrong) * chance


def exact_values(
    policy: PreTrainedModel,
    responses: Sequence[Response],
    *,
    sampler: Sampler,
    reward: RewardSettings,
    max_tokens: int,
    rows: Tensor | None = None,
) -> ExactValues:
    """Read a policy's chances of what the values of these responses are made of, without gradient.

    Every process calls it alike, and they share the passes.

    Args:
        sampler: of responses of this policy; `has_exact_values` holds of its settings, and `refuse_credit` refuses
            nothing.
        max_tokens: cells of a forward pass.
        rows: [K] of the responses, at least one; values of others are 0. All by default.
    """
    task, tokenizer, sampling = sampler.task, sampler.tokenizer, sampler.sampling
    assert isinstance(task, ExactTask)
    ways = Ways(tokenizer.get_vocab(), sampling.max_tokens)
    paths = dict[int, tuple[Way, DecisionPath, list[str]]]()
    for row in range(len(responses)) if rows is None else rows.tolist():
        response = responses[row]
        pieces = tokenizer.convert_ids_to_tokens(list(response.tokens))
        path = task.decision_path(response.prompt, pieces)
        paths[row] = ways.add(response.prompt_tokens, path, pieces), path, pieces

    def read() -> Tensor:
        return forward.gather_token_logprobs(policy, ways.batch, max_tokens, *ways.asked, sampling.temperature)

    chances = _chances(ways, read)
    shape = len(responses), max(len(response.tokens) for response in responses)
    return ExactValues(ways, paths, chances, shape, reward, ways.read_tokens)


def expected_score(
    policy: PreTrainedModel, prompts: Sequence[Prompt], *, sampler: Sampler, reward: RewardSettings, max_tokens: int
) -> Tensor:
    """Mean score of a policy's responses to some prompts: a float64 scalar whose gradient is the exact one.

    All ways are read before any gradient is taken, so memory grows with their tokens; every process reads all of them.
    """
    task, tokenizer, sampling = sampler.task, sampler.tokenizer, sampler.sampling
    assert isinstance(task, ExactTask)
    ways, encoded = Ways(tokenizer.get_vocab(), sampling.max_tokens), task.encode(prompts, tokenizer)
    starts = [ways.add(ids, task.decision_path(prompt, []), []) for prompt, ids in zip(prompts, encoded, strict=True)]

    def read() -> Tensor:
        parts = list(_read_all(policy, ways, sampling.temperature, max_tokens))
        order = torch.cat([numbers for numbers, _ in parts]).argsort()
        return torch.cat([logprobs for _, logprobs in parts])[order]

    chances = _chances(ways, read)
    return in_reward(ways.worth(chances)[0][[way.number for way in starts], 0, 0], reward).mean()


def _chances(ways: Ways, read: Callable[[], Tensor]) -> Tensor:
    """Chances of all that some ways ask for, and then of the detours that are drawn by them: [N] float64.

    Args:
        read: what is asked now, as log-probabilities: [K] float32, the same in every process.
    """
    chances = read().double().exp()
    if ways.draw_detours(chances):
        chances = torch.cat([chances, read().double().exp()])
    return chances


def _read_all(
    policy: PreTrainedModel, ways: Ways, temperature: float, max_tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers of what is asked and its log-probabilities, with gradient, by forward pass."""
    batch, (rows, columns, tokens) = ways.batch, ways.asked
    for taken in forward.split_rows(batch.total_lengths, max_tokens):
        place = torch.full((len(batch.response_mask),), -1)
        place[taken] = torch.arange(len(taken))
        here = (place[rows] >= 0).nonzero()[:, 0]
        part = batch.take(taken)
        yield here, forward.token_logprobs(policy, part, place[rows[here]], columns[here], tokens[here], temperature)
