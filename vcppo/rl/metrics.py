"""Metrics and tables of an RL iteration."""

import math
from collections import Counter
from dataclasses import asdict

import torch
from torch import Tensor

from vcppo.maths.diagnostics import explained_variance, real_reward_share, value_bias
from vcppo.rl.advantages import Advantages
from vcppo.rl.critic_update import CriticUpdate
from vcppo.rl.experience import Experience, Updates
from vcppo.rl.policy_update import PolicyUpdate
from vcppo.rl.rewards import verdict_score
from vcppo.settings.reward import RewardSettings
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch, Verdict, credit_of


def iteration_metrics(experience: Experience, updates: Updates, settings: RunSettings) -> dict[str, float]:
    """All that is computed from an iteration's tensors; costs, times, rates and alarms stand beside it in the journal.

    The critic is measured on responses that are trained on and whose Monte-Carlo return is known.
    """
    batch, rows, values = experience.batch, experience.rows, experience.outputs.values
    metrics = {
        **rollout_metrics(experience.sampled, settings.reward),
        **advantage_metrics(batch, rows, experience.advantages, settings.gae.gamma),
        **policy_metrics(updates.policy),
        **critic_metrics(updates.critic),
        "select/kept": float(len(rows)),
    }
    known = experience.rows_with_return
    if values is not None and len(known):
        metrics |= value_metrics(values[known], experience.rewards.monte_carlo[known], batch.response_mask[known])
    return metrics


def rollout_metrics(rollouts: list[Rollout], reward: RewardSettings) -> dict[str, float]:
    """Metrics of all responses that an iteration sampled, trained on or not; rewards before shaping."""
    lengths = torch.tensor([float(len(rollout.generation.tokens)) for rollout in rollouts])
    low, high = torch.quantile(lengths, torch.tensor([0.1, 0.9])).tolist()
    verdicts = [rollout.verdict for rollout in rollouts]
    return {
        "rollout/accuracy": verdicts.count(Verdict.CORRECT) / len(verdicts),
        "rollout/unreadable_rate": verdicts.count(Verdict.UNREADABLE) / len(verdicts),
        "rollout/truncated_rate": _mean([float(r.generation.stop_reason == "length") for r in rollouts]),
        "rollout/reward_mean": _mean([verdict_score(r.verdict, reward, r.credit) for r in rollouts]),
        **credit_metrics(rollouts),
        "rollout/length_tokens": float(lengths.mean()),
        "rollout/length_p10_tokens": low,
        "rollout/length_p90_tokens": high,
        **unreadable_metrics(rollouts),
    }


def unreadable_metrics(rollouts: list[Rollout]) -> dict[str, float]:
    """Share of unreadable responses among all, by the reasons that occurred."""
    notes = Counter(rollout.note for rollout in rollouts if rollout.note)
    return {f"verify/{note.replace(' ', '_')}_rate": times / len(rollouts) for note, times in sorted(notes.items())}


def credit_metrics(rollouts: list[Rollout]) -> dict[str, float]:
    """Mean credit beside accuracy, where the task gives any; a response without has that of its verdict."""
    if not gives_credit(rollouts):
        return {}
    return {"rollout/credit": _mean([credit_of(rollout.verdict, rollout.credit) for rollout in rollouts])}


def gives_credit(rollouts: list[Rollout]) -> bool:
    """True if any response has credit of its task."""
    return any(rollout.credit is not None for rollout in rollouts)


def advantage_metrics(batch: RolloutBatch, rows: Tensor, advantages: Advantages, gamma: float) -> dict[str, float]:
    """Moments of the advantages over the tokens trained on, and how much of them is the real reward (lambda^distance).

    The mean before whitening is near 0 on-policy, whatever the estimator: a check on it.
    """
    mask = batch.response_mask[rows]
    if not bool(mask.any()):
        return {}
    final, raw = advantages.final[rows][mask], advantages.raw[rows][mask]
    gae_lambda = advantages.gae_lambda
    return {
        "advantage/mean": float(final.mean()),
        "advantage/std": float(final.std(correction=0)),
        "advantage/raw_mean": float(raw.mean()),
        "advantage/real_reward_share": real_reward_share(
            mask, gamma=gamma, gae_lambda=gae_lambda[rows] if isinstance(gae_lambda, Tensor) else gae_lambda
        ),
    }


def value_metrics(values: Tensor, monte_carlo: Tensor, response_mask: Tensor) -> dict[str, float]:
    """Metrics of the critic at rollout time against Monte-Carlo returns."""
    return {
        "value/explained_variance": explained_variance(values, monte_carlo, response_mask),
        "value/value_bias": value_bias(values, monte_carlo, response_mask),
        "value/mean": float(values[response_mask].mean()),
    }


def samples_table(rollouts: list[Rollout]) -> dict[str, list[str] | list[int] | list[float]]:
    """Responses to read, with their verdicts, and their credit where the task gives any."""
    return {
        "problem": [r.prompt.text for r in rollouts],
        "answer": [r.prompt.answer for r in rollouts],
        "response": [r.text for r in rollouts],
        "verdict": [str(r.verdict) for r in rollouts],
        "note": [r.note for r in rollouts],
        "tokens": [len(r.generation.tokens) for r in rollouts],
        **({"credit": [credit_of(r.verdict, r.credit) for r in rollouts]} if gives_credit(rollouts) else {}),
    }


def policy_metrics(updates: list[PolicyUpdate]) -> dict[str, float]:
    """Means over an iteration's updates of the actor, and the largest ratio of all."""
    if not updates:
        return {}
    values = {name: [x for u in updates if (x := getattr(u, name)) is not None] for name in asdict(updates[0])}
    means = {f"policy/{name}": _mean(numbers) for name, numbers in values.items() if numbers}
    moved = {"policy/update_kl": update_kl(updates)} if len(updates) > 1 else {}
    largest = {"policy/ratio_max": max(u.ratio_max for u in updates), "policy/updates": float(len(updates))}
    return {**means, **moved, **largest}


def update_kl(updates: list[PolicyUpdate]) -> float:
    """KL of an iteration's updates, in nats per token: the largest approx_kl less the first.

    The first is 0 where the policy itself has sampled, and how far they are apart where another one has. What the last
    update does is not seen, nor what a single one does.
    """
    return max(update.approx_kl for update in updates) - updates[0].approx_kl if updates else 0.0


def critic_metrics(updates: list[CriticUpdate]) -> dict[str, float]:
    """Means over an iteration's updates of the critic."""
    if not updates:
        return {}
    return {f"value/{name}": _mean([getattr(u, name) for u in updates]) for name in asdict(updates[0])}


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)
