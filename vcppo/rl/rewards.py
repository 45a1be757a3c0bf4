"""From verdicts to rewards: scores of responses, their shaping, and the rewards of tokens beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from vcppo.errors import DataError
from vcppo.maths.advantages import monte_carlo_returns
from vcppo.maths.losses import KL_ESTIMATORS
from vcppo.maths.shaping import RunningMoments, log_ratio_rewards, normalised, overlong_penalty
from vcppo.rl.outputs import ModelOutputs
from vcppo.settings.reward import RewardSettings
from vcppo.settings.rules import bootstraps
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch, Verdict


def verdict_score(verdict: Verdict, reward: RewardSettings, credit: float | None = None) -> float:
    """Score of a verdict, in units of reward, before any shaping.

    Args:
        credit: where the task gives some, the score lies so far from `reward.wrong` to `reward.correct`, whatever the
            verdict.
    Raises:
        DataError: the credit is not in [0, 1].
    """
    if credit is not None:
        if not 0.0 <= credit <= 1.0:
            raise DataError(f"Judgement.credit = {credit:g}: expected a number in [0, 1]")
        return (1.0 - credit) * reward.wrong + credit * reward.correct
    match verdict:
        case Verdict.CORRECT:
            return reward.correct
        case Verdict.WRONG:
            return reward.wrong
        case Verdict.UNREADABLE:
            return reward.unreadable
        case _:
            assert_never(verdict)


def verdict_scores(rollouts: Sequence[Rollout], reward: RewardSettings) -> Tensor:
    """[B] float32: `verdict_score` of each response."""
    scores = [verdict_score(rollout.verdict, reward, rollout.credit) for rollout in rollouts]
    return torch.tensor(scores, dtype=torch.float32)


@dataclass(frozen=True)
class Shaping:
    """Shaping of scores at some moment of a run: settings, the length limit, and the running moments so far."""

    settings: RewardSettings
    limit: int  # tokens
    moments: RunningMoments = field(default_factory=RunningMoments)

    def plain(self, scores: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
        """[B] scores after the rules for truncated and overlong responses (DAPO), before any normalisation."""
        if self.settings.truncated is not None:
            scores = torch.where(truncated, self.settings.truncated, scores)
        if self.settings.overlong_share is not None:
            buffer = max(round(self.settings.overlong_share * self.limit), 1)
            weight = self.settings.overlong_penalty
            scores = scores + overlong_penalty(lengths, limit=self.limit, buffer=buffer, weight=weight)
        return scores

    def updated(self, batch: RolloutBatch, rows: Tensor) -> "Shaping":
        """Update the running moments with these rows ([B] bool); PPO-max updates them before it uses them."""
        plain = self.plain(batch.scores, batch.lengths, batch.truncated)
        return Shaping(self.settings, self.limit, self.moments.updated(plain[rows]))

    def shape(self, scores: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
        """[B] shaped scores of responses with these raw scores, lengths and stop reasons."""
        plain = self.plain(scores, lengths, truncated)
        return normalised(plain, self.moments, kind=self.settings.normalise, clip=self.settings.clip)

    def of(self, batch: RolloutBatch) -> Tensor:
        """[B] shaped scores of a batch."""
        return self.shape(batch.scores, batch.lengths, batch.truncated)


def returns_known(batch: RolloutBatch, settings: RunSettings) -> Tensor:
    """[B] bool: False for truncated responses where those are worth V in place of their score.

    The others' Monte-Carlo returns are known; nobody can say what a truncated response would have come to.
    """
    return ~batch.truncated if bootstraps(settings) else torch.ones_like(batch.truncated)


def score_range(reward: RewardSettings, *, gamma: float) -> tuple[float, float]:
    """(least, most) value of a state, before any normalisation: scores, and what discounting makes of them."""
    scores = [reward.correct, reward.wrong, reward.unreadable]
    scores += [] if reward.truncated is None else [reward.truncated]
    scores += [0.0] if gamma < 1 else []
    penalty = reward.overlong_penalty if reward.overlong_share is not None else 0.0
    return min(scores) - penalty, max(scores)


def place_scores(batch: RolloutBatch) -> Tensor:
    """[B, T] float32: each response's score on its last token, 0 elsewhere."""
    return on_last_token(batch.scores, batch)


def on_last_token(x: Tensor, batch: RolloutBatch) -> Tensor:
    """[B] to [B, T]: each number on its response's last token, 0 elsewhere."""
    placed = torch.zeros(batch.response_mask.shape, dtype=x.dtype)
    placed[torch.arange(len(x)), batch.lengths - 1] = x
    return placed


def bootstrapped(batch: RolloutBatch, final_values: Tensor, *, gamma: float) -> Tensor:
    """[B, T] on the last token: the score, or of a response cut at the limit gamma * V(after that token) in its place.

    The score of a truncated response penalises the truncation, which V includes already: their sum counts it twice.
    """
    return on_last_token(torch.where(batch.truncated, gamma * final_values, batch.scores), batch)


@dataclass(frozen=True)
class Rewards:
    """Everything [B, T] float32, 0 where masked."""

    tokens: Tensor  # beside the score: RTO's reward, less the KL penalty where it is a reward
    total: Tensor  # the shaped score on the last token, and `tokens`: the rewards in fact
    earned: Tensor  # the same, but of a truncated response V in place of its score, where such are bootstrapped
    monte_carlo: Tensor  # returns of `total`, with no value in them: diagnostics measure the critic against them


def place_rewards(batch: RolloutBatch, outputs: ModelOutputs, settings: RunSettings) -> Rewards:
    """Place the rewards of a batch, whose scores are shaped already, on its tokens."""
    gamma = settings.gae.gamma
    tokens = token_rewards(batch, outputs.ref_logprobs, outputs.dpo_logprobs, outputs.segments, settings)
    total = earned = place_scores(batch) + tokens
    if outputs.final_values is not None:
        earned = bootstrapped(batch, outputs.final_values, gamma=gamma) + tokens
    return Rewards(tokens, total, earned, monte_carlo_returns(total, batch.response_mask, gamma=gamma))


def token_rewards(
    batch: RolloutBatch,
    ref_logprobs: Tensor | None,
    dpo_logprobs: Tensor | None,
    segments: Tensor | None,
    settings: RunSettings,
) -> Tensor:
    """[B, T] rewards added to the score on the last token: RTO's reward, less the KL penalty where it is a reward.

    Args:
        ref_logprobs, dpo_logprobs: [B, T] under the reference and under RTO's DPO policy, where they are needed.
        segments: [B, T] the step that a token is in, needed by Semi-RTO.
    """
    mask = batch.response_mask
    rewards = torch.zeros(mask.shape)
    kl = settings.kl
    match kl.placement:
        case "reward":
            assert ref_logprobs is not None
            penalty = KL_ESTIMATORS[kl.estimator](batch.old_logprobs, ref_logprobs)
            rewards = rewards - kl.coefficient * torch.where(mask, penalty, 0.0)
        case "loss" | "none":
            pass
        case _:
            assert_never(kl.placement)
    chosen = settings.token_reward
    if chosen.kind != "none" and chosen.weight > 0:
        assert ref_logprobs is not None
        assert dpo_logprobs is not None
        rewards = rewards + log_ratio_rewards(
            dpo_logprobs,
            ref_logprobs,
            torch.zeros(mask.shape, dtype=torch.int64) if segments is None else segments,
            mask,
            kind=chosen.kind,
            weight=chosen.weight,
            clip=chosen.clip,
        )
    return rewards
