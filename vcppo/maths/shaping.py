"""Shaping of the verifier's reward before advantages: length penalties, running scales, dense token rewards."""

import math
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import torch
from torch import Tensor

Normalisation = Literal["none", "scale", "standardise"]
LogRatioKind = Literal["rto", "semi-rto", "ddpo", "rs-ppo"]
VARIANCE_FLOOR = 1e-2  # of value normalisation, so that returns which hardly differ are not blown up
TARGET_LIMIT = 5.0  # standard deviations at which normalised returns are cut


def overlong_penalty(lengths: Tensor, *, limit: int, buffer: int, weight: float) -> Tensor:
    """DAPO's soft overlong punishment (arXiv:2503.14476, section 3.4): a ramp over the `buffer` tokens to the limit.

    weight * (0 if length <= limit - buffer; (limit - buffer - length) / buffer up to the limit; -1 beyond).

    Args:
        lengths: [B] int, tokens of each response, end-of-sequence included. limit, buffer: tokens, buffer at least 1.
    Returns:
        [B] float32, in [-weight, 0], to be added to the score.

    >>> overlong_penalty(torch.tensor([60, 80, 90, 100, 120]), limit=100, buffer=20, weight=2.0).tolist()
    [0.0, 0.0, -1.0, -2.0, -2.0]
    """
    return weight * ((limit - buffer - lengths.to(torch.float32)) / buffer).clamp(-1.0, 0.0)


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and sum of squared deviations of every score so far (Chan, Golub & LeVeque 1979).

    The same for any way of cutting the stream into batches, up to rounding, and exactly without spread while all
    scores are equal. `dataclasses.asdict` and `RunningMoments(**saved)` take it to a checkpoint and back.

    >>> RunningMoments().updated(torch.tensor([1.0, 3.0])).updated(torch.tensor([5.0]))
    RunningMoments(count=3, mean=3.0, m2=8.0)
    """

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def updated(self, scores: Tensor) -> "RunningMoments":
        """Return the moments with [N] scores more; N may be 0."""
        if not scores.numel():
            return self
        above = scores.detach().to(torch.float64) - float(scores[0])  # 0 where all are equal, so nothing is rounded
        offset = above.mean()
        count = self.count + scores.numel()
        step = float(scores[0]) + float(offset) - self.mean
        between = step**2 * self.count * scores.numel() / count
        mean = self.mean + step * scores.numel() / count
        return RunningMoments(count, mean, self.m2 + float((above - offset).square().sum()) + between)

    @property
    def std(self) -> float:
        """Standard deviation of the population (divided by the count); 0 before the first score."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0


def normalised(scores: Tensor, moments: RunningMoments, *, kind: Normalisation, clip: float | None) -> Tensor:
    """PPO-max's rewards (arXiv:2307.04964, eq. 18): clip((r - mean) / std, -clip, clip) with running moments.

    "scale" divides without taking the mean away (the released scripts' choice), "none" clips only. Nothing is divided
    while std is 0. The moments are to hold these scores already: the batch updates them before it uses them.

    Args:
        scores: [B] float. clip: None to leave them unclipped.
    Returns:
        [B], dtype of the scores.
    """
    scale = moments.std if moments.std > 0 else 1.0
    match kind:
        case "none":
            pass
        case "scale":
            scores = scores / scale
        case "standardise":
            scores = (scores - moments.mean) / scale
        case _:
            assert_never(kind)
    return scores if clip is None else scores.clamp(-clip, clip)


@dataclass(frozen=True)
class DebiasedMoments:
    """Value normalisation (arXiv:2404.10719, its code ReaLHF at be75fce): the critic predicts (return - mean) / std.

    Exponential averages of the returns and of their squares, divided by `weight` = 1 - decay^updates, which
    makes them unbiased from the first batch on. The variance is at least 1e-2; before the first update nothing is
    normalised (ReaLHF has std 0.1 there). `dataclasses.asdict` and `DebiasedMoments(**saved)` take it to a checkpoint
    and back.
    """

    decay: float  # 0.99995 in ReaLHF
    weight: float = 0.0
    average: float = 0.0
    average_square: float = 0.0

    def updated(self, returns: Tensor, response_mask: Tensor) -> "DebiasedMoments":
        """Return the moments with one batch's [B, T] returns, where the mask is True; unchanged where no cell is."""
        live = returns.detach()[response_mask].to(torch.float64)
        if not live.numel():
            return self
        kept, new = self.decay, 1.0 - self.decay
        return replace(
            self,
            weight=kept * self.weight + new,
            average=kept * self.average + new * float(live.mean()),
            average_square=kept * self.average_square + new * float(live.square().mean()),
        )

    @property
    def mean(self) -> float:
        """Mean of the returns, debiased; 0 before the first update."""
        return self.average / self.weight if self.weight else 0.0

    @property
    def std(self) -> float:
        """Standard deviation of the returns, debiased, at least sqrt(VARIANCE_FLOOR); 1 before the first update."""
        if not self.weight:
            return 1.0
        return math.sqrt(max(self.average_square / self.weight - self.mean**2, VARIANCE_FLOOR))

    def normalise(self, returns: Tensor) -> Tensor:
        """Targets for the critic, any shape, cut at 5 standard deviations."""
        return ((returns - self.mean) / self.std).clamp(-TARGET_LIMIT, TARGET_LIMIT)

    def denormalise(self, predicted: Tensor) -> Tensor:
        """The critic's output in units of reward, any shape, not cut."""
        return predicted * self.std + self.mean


def log_ratio_rewards(
    dpo_logprobs: Tensor,
    ref_logprobs: Tensor,
    segments: Tensor,
    response_mask: Tensor,
    *,
    kind: LogRatioKind,
    weight: float,
    clip: float | None,
) -> Tensor:
    """RTO's dense reward (arXiv:2404.18922, sections 4.2 and 5.2), to be added to the verifier's and the KL penalty.

    rto       weight * (log pi_dpo - log pi_ref) on every token
    semi-rto  its sum over a segment, on the segment's last token
    ddpo      its sum over the response, on the last token
    rs-ppo    rto less ddpo: the response's total is 0, which makes it potential-based shaping with the potential
              Phi(s_t) = sum of rto before t, and leaves the expected policy gradient as it is without

    Args:
        dpo_logprobs, ref_logprobs: [B, T] nats of the sampled tokens. response_mask: [B, T] bool, a prefix of each row.
        segments: [B, T] int64, 0 first, never falling along a row, none left out, read where the mask is True and
            by semi-rto only.
        clip: bound on one token's reward after weighting, before any summing; None for none.
    Returns:
        [B, T], 0 where the mask is False.
    """
    rewards = torch.where(response_mask, weight * (dpo_logprobs - ref_logprobs), 0.0)
    if clip is not None:
        rewards = rewards.clamp(-clip, clip)
    whole = torch.zeros_like(segments)
    match kind:
        case "rto":
            return rewards
        case "semi-rto":
            return _moved_to_ends(rewards, segments, response_mask)
        case "ddpo":
            return _moved_to_ends(rewards, whole, response_mask)
        case "rs-ppo":
            return rewards - _moved_to_ends(rewards, whole, response_mask)
        case _:
            assert_never(kind)


def _moved_to_ends(rewards: Tensor, segments: Tensor, response_mask: Tensor) -> Tensor:
    """[B, T] the sum of each segment's rewards, on its last token."""
    segment = torch.where(response_mask, segments, -1)
    last = response_mask & (segment != torch.nn.functional.pad(segment[:, 1:], (0, 1), value=-1))
    place = segment.clamp(min=0)
    return torch.where(last, torch.zeros_like(rewards).scatter_add(1, place, rewards).gather(1, place), 0.0)
