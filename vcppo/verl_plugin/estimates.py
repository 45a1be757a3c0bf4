"""Advantages and value targets of our trainer from verl's batch: our formulas, masks with holes."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vcppo.maths.advantages import gae, length_adaptive_lambda, monte_carlo_returns, whiten
from vcppo.maths.diagnostics import by_position, explained_variance, real_reward_share, value_bias
from vcppo.maths.early_warning import Observed
from vcppo.maths.losses import denominators, value_loss
from vcppo.maths.settling import Measurement
from vcppo.rl.alignment import surrogate_metrics
from vcppo.seeding import seed_for
from vcppo.verl_plugin.settings import PluginSettings

SURROGATE_CHUNKS = 64  # groups of a step's responses; intervals are over them


@dataclass(frozen=True)
class ResponseBatch:
    """A batch of verl's responses, padded on the right; masks may have holes, the turns of a tool or a user."""

    rewards: Tensor  # [B, T] float32, KL penalty included if verl puts it there; of masked tokens scores alone
    values: Tensor  # [B, T] float32, V(s_t), before token t is chosen
    response_mask: Tensor  # [B, T] bool

    def closed(self) -> tuple["ResponseBatch", Tensor]:
        """Return the batch with each row's unmasked tokens moved together, and [B, T] int64: each column's source.

        verl's recursion passes over a masked token as if it were not there, so closing the holes first, and opening
        them afterwards, computes the same with functions for prefix masks.
        """
        order = torch.argsort(self.response_mask.logical_not().to(torch.int8), dim=1, stable=True)
        return ResponseBatch(*(x.gather(1, order) for x in (self.rewards, self.values, self.response_mask))), order


@dataclass(frozen=True)
class PlacedScores:
    """Rewards as `on_unmasked_tokens` returns them, and the responses that it concerns."""

    rewards: Tensor  # [B, T]; unchanged in a response without any unmasked token, where nothing reads them
    moved: Tensor  # [B] bool, responses of which a reward stood on a masked token and was moved
    lost: Tensor  # [B] bool, responses with a reward and without any unmasked token


def on_unmasked_tokens(rewards: Tensor, response_mask: Tensor) -> PlacedScores:
    """Move a reward on a masked token to the last unmasked one before it, or else to the first.

    verl puts a score on a response's last token. That is a masked one where a tool or a user had the last turn, and
    neither an advantage nor a target would receive it. A tool's turn is credited to the token before it.

    Args:
        rewards: [B, T] float; what is not finite under the mask is padding. response_mask: [B, T] bool.

    >>> rewards, mask = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[True, True, False]])
    >>> on_unmasked_tokens(rewards, mask).rewards.tolist()
    [[0.0, 1.0, 0.0]]
    """
    stray = torch.where(response_mask | ~rewards.isfinite(), 0.0, rewards)
    real, lives = stray.ne(0).any(dim=1), response_mask.any(dim=1)
    columns = torch.arange(response_mask.shape[1], device=rewards.device)
    before = torch.where(response_mask, columns, -1).cummax(dim=1).values
    first = response_mask.to(torch.int8).argmax(dim=1, keepdim=True)
    placed = torch.where(response_mask, rewards, 0.0).scatter_add(1, torch.where(before < 0, first, before), stray)
    return PlacedScores(torch.where(lives[:, None], placed, rewards), real & lives, real & ~lives)


@dataclass(frozen=True)
class Estimates:
    """[B, T] each, 0 where the mask is False."""

    advantages: Tensor  # for the policy, whitened and clipped by the settings
    closed_raw: Tensor  # the same before that, without holes
    returns: Tensor  # targets of the critic
    monte_carlo: Tensor  # sum of rewards after each token, no value in it
    metrics: dict[str, float]
    closed: ResponseBatch  # without holes, for the diagnostics by position
    closed_monte_carlo: Tensor
    moved: Tensor  # [B] bool, responses of which a score stood on a masked token


def estimate(batch: ResponseBatch, settings: PluginSettings, *, gamma: float) -> Estimates:
    """Estimate advantages with lambda_actor, targets with lambda_critic, in pretraining Monte-Carlo returns.

    With both lambdas equal to verl's `algorithm.lam` and whiten = batch, this is what verl computes, but for scores on
    masked tokens, which verl loses.
    """
    scores = on_unmasked_tokens(batch.rewards, batch.response_mask)
    closed, order = replace(batch, rewards=scores.rewards).closed()
    parts = (closed.rewards, closed.values, closed.response_mask)
    lambda_actor: float | Tensor = settings.lambda_actor
    if settings.length_adaptive_alpha is not None:
        lambda_actor = length_adaptive_lambda(closed.response_mask, alpha=settings.length_adaptive_alpha)
    raw = gae(*parts, gamma=gamma, gae_lambda=lambda_actor)
    advantages = whiten(raw, closed.response_mask) if settings.whiten == "batch" else raw
    if settings.clip is not None:
        advantages = advantages.clamp(-settings.clip, settings.clip)
    monte_carlo = monte_carlo_returns(closed.rewards, closed.response_mask, gamma=gamma)
    if settings.pretrain is not None:
        returns = monte_carlo
    else:
        live_values = torch.where(closed.response_mask, closed.values, 0.0)
        returns = gae(*parts, gamma=gamma, gae_lambda=settings.lambda_critic) + live_values
    metrics = {
        **critic_metrics(closed, monte_carlo),
        "advantage/raw_mean": float(raw[closed.response_mask].mean()),
        "advantage/real_reward_share": real_reward_share(closed.response_mask, gamma=gamma, gae_lambda=lambda_actor),
    }

    def opened(x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(1, order, x)

    return Estimates(
        opened(advantages), raw, opened(returns), opened(monte_carlo), metrics, closed, monte_carlo, scores.moved
    )


def critic_metrics(closed: ResponseBatch, monte_carlo: Tensor) -> dict[str, float]:
    """Return the critic's metrics against Monte-Carlo returns, whatever lambda it learns with."""
    values, mask = closed.values, closed.response_mask
    return {
        "value/explained_variance": explained_variance(values, monte_carlo, mask),
        "value/value_bias": value_bias(values, monte_carlo, mask),
        "value/mean": float(values[mask].mean()),
    }


def position_metrics(closed: ResponseBatch, monte_carlo: Tensor, *, bins: int, limit: int) -> dict[str, float]:
    """Return bias and explained variance in `bins` equal parts of the longest response (`limit`, tokens), by name.

    value/bias_from_00512 is of tokens 512 to the next bin's first.
    """
    width = max(-(-limit // bins), 1)
    table = by_position(closed.values, monte_carlo, closed.response_mask, width=width)
    metrics = {}
    for place, bias, spread in zip(table["position"], table["value_bias"], table["explained_variance"], strict=True):
        metrics[f"value/bias_from_{int(place):05d}"] = bias
        metrics[f"value/explained_variance_from_{int(place):05d}"] = spread
    return metrics


def response_metrics(scores: Tensor, lengths: Tensor, *, correct_above: float, limit: int) -> dict[str, float]:
    """Return metrics of responses. scores: [B] float. lengths: [B] int, tokens, tools' included; 0 does not count.

    A response of `limit` tokens counts as cut: verl does not report which were.
    """
    real = lengths > 0
    if not bool(real.any()):
        return {}
    scores, lengths = scores[real], lengths[real].to(torch.float32)
    return {
        "rollout/accuracy": float((scores > correct_above).float().mean()),
        "rollout/truncated_rate": float((lengths >= limit).float().mean()),
        "rollout/length_p10_tokens": float(lengths.quantile(0.1)),
        "rollout/length_p90_tokens": float(lengths.quantile(0.9)),
    }


def alignment(estimates: Estimates, problem: Tensor, *, rows: Tensor, step: int) -> dict[str, float]:
    """Measure which way these advantages push score and length, by the surrogate: verl's gradients are not at hand.

    Args:
        problem: [B] int, equal where the prompt is. rows: [B] bool, responses that are no padding.
    """
    live = rows & estimates.closed.response_mask.any(dim=1)
    parts = (estimates.closed_raw, estimates.closed_monte_carlo, estimates.closed.response_mask, problem)
    rng = np.random.default_rng(seed_for(0, "verl", "alignment", step))
    return surrogate_metrics(*(x[live] for x in parts), chunks=SURROGATE_CHUNKS, rng=rng)


def observed(scores: Tensor, lengths: Tensor, *, correct_above: float, limit: int, score_z: float) -> Observed | None:
    """Return a step's numbers for the rules of early warnings, None without any. Arguments as `response_metrics`."""
    real = lengths > 0
    if not bool(real.any()):
        return None
    scores, lengths = scores[real], lengths[real].double()
    return Observed(
        responses=len(scores),
        length=float(lengths.mean()),
        length_spread=float(lengths.std(correction=0)),
        truncated=float((lengths >= limit).double().mean()),
        right=float((scores > correct_above).double().mean()),
        score_z=score_z,
    )


def advice(rule: str, settings: PluginSettings) -> str:
    """Say what to set in verl against a warning."""
    critic = ["pretrain the critic (+algorithm.vcppo.pretrain.steps=converge)"]
    if settings.lambda_actor < 1 or settings.length_adaptive_alpha is not None:
        critic.append("set +algorithm.vcppo.lambda_actor=1")
    if rule in ("length_grows", "truncation"):
        critic.append("see in the rollouts what they go on about")
    end = "" if settings.on_warning == "stop" else ", and +algorithm.vcppo.on_warning=stop to end such runs"
    return f"{' or '.join(critic)}{end}"


def score_metrics(moved: Tensor, lost: Tensor) -> dict[str, float]:
    """Count responses whose scores stood on masked tokens. moved, lost: [B] bool, see `PlacedScores`."""
    return {"rollout/moved_scores": float(moved.sum()), "rollout/lost_scores": float(lost.sum())}


def score_warnings(metrics: dict[str, float], *, step: int, responses: int) -> dict[str, str]:
    """Return the warnings for a step's `score_metrics`, by name."""
    moved, lost = (int(metrics[f"rollout/{name}_scores"]) for name in ("moved", "lost"))
    warnings = {}
    if moved:
        warnings["moved"] = (
            f"step {step}: the scores of {moved} of {responses} responses stood on masked tokens (a tool's or a user's "
            "turn) and were moved to the last unmasked token before; rollout/moved_scores goes on counting"
        )
    if lost:
        warnings["lost"] = (
            f"step {step}: {lost} of {responses} responses have a score and no unmasked token, so that nothing is "
            "learnt from them; rollout/lost_scores goes on counting"
        )
    return warnings


def held_out_rows(prompts: Sequence[Sequence[int]], *, share: float, seed: int) -> Tensor:
    """Return [B] bool: rows whose prompt is one of the held-out ones.

    A prompt's tokens decide, so it is held out in every epoch and after every restart, all its responses together.
    """

    def drawn(prompt: Sequence[int]) -> float:
        content = ",".join([str(seed), *map(str, prompt)])
        return int.from_bytes(hashlib.sha256(content.encode()).digest()[:8]) / 2**64

    return torch.tensor([drawn(prompt) < share for prompt in prompts], dtype=torch.bool)


class HeldOut:
    """Held-out responses since the last measurement, each valued by the critic at the time they were sampled."""

    def __init__(self) -> None:
        self._values: list[Tensor] = []
        self._returns: list[Tensor] = []

    def add(self, batch: ResponseBatch, monte_carlo: Tensor, rows: Tensor) -> None:
        """Add these rows ([B] bool) of a batch."""
        mask = batch.response_mask & rows[:, None]
        self._values.append(batch.values[mask])
        self._returns.append(monte_carlo[mask])

    @property
    def tokens(self) -> int:
        """Number of held-out tokens since the last measurement."""
        return sum(map(len, self._values))

    def measure(self, step: int) -> tuple[Measurement, dict[str, float]]:
        """Return loss, explained variance and bias over all their tokens, which are then dropped."""
        values, returns = torch.cat(self._values)[None], torch.cat(self._returns)[None]
        self._values, self._returns = [], []
        mask = torch.ones_like(values, dtype=torch.bool)
        normaliser = denominators(mask, fixed_length=1)
        kind = {"kind": "mse", "aggregation": "token-mean"}
        loss = float(value_loss(values, values, returns, mask, clip_range=1.0, over=normaliser, **kind).loss)
        spread = explained_variance(values, returns, mask)
        metrics = {
            "pretrain/held_out_loss": loss,
            "pretrain/explained_variance": spread,
            "pretrain/value_bias": value_bias(values, returns, mask),
        }
        return Measurement(step, loss, spread if spread == spread else float("-inf")), metrics
