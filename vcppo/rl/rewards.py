"""What an answer is worth: the verifier's score, shaped; and what a token is worth beyond that."""

from dataclasses import dataclass, field
from typing import assert_never

import torch
from torch import Tensor

from vcppo.maths.losses import KL_ESTIMATORS
from vcppo.maths.shaping import RunningMoments, log_ratio_rewards, normalised, overlong_penalty
from vcppo.settings.reward import RewardSettings
from vcppo.settings.rules import bootstraps
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class Shaping:
    """How scores are shaped at some moment of a run: settings, the length limit, and what it has seen so far."""

    settings: RewardSettings
    limit: int  # tokens
    moments: RunningMoments = field(default_factory=RunningMoments)

    def plain(self, scores: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
        """[B] scores with what is said of cut and overlong answers (DAPO), before any normalisation."""
        if self.settings.truncated is not None:
            scores = torch.where(truncated, self.settings.truncated, scores)
        if self.settings.overlong_share is not None:
            buffer = max(round(self.settings.overlong_share * self.limit), 1)
            weight = self.settings.overlong_penalty
            scores = scores + overlong_penalty(lengths, limit=self.limit, buffer=buffer, weight=weight)
        return scores

    def seen(self, batch: RolloutBatch, rows: Tensor) -> "Shaping":
        """With the running moments of these rows ([B] bool) more; PPO-max updates them before it uses them."""
        plain = self.plain(batch.scores, batch.lengths, batch.truncated)
        return Shaping(self.settings, self.limit, self.moments.updated(plain[rows]))

    def shape(self, scores: Tensor, lengths: Tensor, truncated: Tensor) -> Tensor:
        """[B] shaped scores of answers with these raw scores, lengths and ends."""
        plain = self.plain(scores, lengths, truncated)
        return normalised(plain, self.moments, kind=self.settings.normalise, clip=self.settings.clip)

    def of(self, batch: RolloutBatch) -> Tensor:
        """[B] shaped scores of a batch."""
        return self.shape(batch.scores, batch.lengths, batch.truncated)


def worth_their_score(batch: RolloutBatch, settings: RunSettings) -> Tensor:
    """[B] bool: False for answers that were cut where those are worth V in place of their score.

    The others' Monte-Carlo returns are known; nobody can say what a cut answer would have come to.
    """
    return ~batch.truncated if bootstraps(settings) else torch.ones_like(batch.truncated)


def score_range(reward: RewardSettings, *, gamma: float) -> tuple[float, float]:
    """(least, most) that a state can be worth, before any normalisation: scores, and what discounting makes of them."""
    worths = [reward.correct, reward.wrong, reward.unreadable]
    worths += [] if reward.truncated is None else [reward.truncated]
    worths += [0.0] if gamma < 1 else []
    punishment = reward.overlong_penalty if reward.overlong_share is not None else 0.0
    return min(worths) - punishment, max(worths)


def token_rewards(
    batch: RolloutBatch,
    ref_logprobs: Tensor | None,
    dpo_logprobs: Tensor | None,
    segments: Tensor | None,
    settings: RunSettings,
) -> Tensor:
    """[B, T] what is added to the score on the last token: RTO's reward, less the KL penalty where it is a reward.

    Args:
        ref_logprobs, dpo_logprobs: [B, T] under the reference and under RTO's DPO policy, where they are needed.
        segments: [B, T] the step that a token is in, needed by Semi-RTO.
    """
    mask = batch.response_mask
    rewards = torch.zeros(mask.shape)
    placement = settings.kl.placement
    match placement:
        case "reward":
            assert ref_logprobs is not None
            penalty = KL_ESTIMATORS[settings.kl.estimator](batch.old_logprobs, ref_logprobs)
            rewards = rewards - settings.kl.coefficient * torch.where(mask, penalty, 0.0)
        case "loss" | "none":
            pass
        case _:
            assert_never(placement)
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
