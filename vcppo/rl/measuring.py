"""Measurements of an iteration: before its updates, where no weight moves and no costs count, and after them."""

from dataclasses import dataclass

import numpy as np
import psutil

from vcppo.rl.alignment import alignment_metrics
from vcppo.rl.costs import Clock, Costs
from vcppo.rl.experience import Experience, Updates
from vcppo.rl.metrics import iteration_metrics
from vcppo.rl.models import Models
from vcppo.rl.push import push_metrics
from vcppo.rl.rewards import Shaping
from vcppo.rl.sampler import Sampler
from vcppo.rl.true_values import Truth, measure_truth
from vcppo.seeding import seed_for
from vcppo.settings.fixed import ALIGNMENT_CHUNKS, ALIGNMENT_MEMORY
from vcppo.settings.run import RunSettings
from vcppo.types import cut_to

MEASURED_BESIDE = ("true_values", "alignment")  # parts of an iteration that are no training, and cost a run nothing


@dataclass(frozen=True)
class Beside:
    """Measurements of an iteration's experience before the policy changes."""

    truth: Truth
    alignment: dict[str, float]


def measure_beside(
    experience: Experience,
    shaping: Shaping,
    models: Models,
    sampler: Sampler,
    settings: RunSettings,
    *,
    step: int,
    clock: Clock,
) -> Beside:
    """Measure values against true ones, and the direction of the gradient, in iterations that shall.

    Args:
        models: whose rollout policy is the one that sampled.
    """
    with clock.of("true_values"):
        policy = models.rollout_policy
        truth = measure_truth(experience, shaping, policy=policy, sampler=sampler, settings=settings, step=step)
    with clock.of("alignment"):
        alignment = _measure_alignment(experience, models, settings, step)
    return Beside(truth, alignment)


def _measure_alignment(experience: Experience, models: Models, settings: RunSettings, step: int) -> dict[str, float]:
    interval, rows = settings.alignment_interval, experience.rows_with_return
    if not interval or step % interval or not len(rows):
        return {}
    part = experience.batch.take(rows)
    return alignment_metrics(
        models.rollout_policy,
        part,
        cut_to(experience.advantages.raw, rows, part),
        cut_to(experience.rewards.monte_carlo, rows, part),
        temperature=settings.rollout.temperature,
        max_tokens=settings.micro_batch_tokens,
        chunks=ALIGNMENT_CHUNKS,
        memory=ALIGNMENT_MEMORY,
        rng=np.random.default_rng(seed_for(settings.run_seed, "rl", "alignment", step)),
    )


def training_metrics(
    experience: Experience, updates: Updates, sampler: Sampler, settings: RunSettings
) -> dict[str, float]:
    """Metrics of the experience and of what the updates made of it."""
    measured = iteration_metrics(experience, updates, settings)
    if settings.loss.pairs:
        return measured
    rollouts, batch, rows = experience.rollouts, experience.batch, experience.rows
    task, tokenizer = sampler.task, sampler.tokenizer
    return {**measured, **push_metrics(rollouts, batch, rows, experience.advantages.raw, task, tokenizer)}


def cost_metrics(costs: Costs, clock: Clock) -> dict[str, float]:
    """Costs since the run began, the clock's iteration included, its seconds by part, and memory."""
    costs.elapsed_s += sum(seconds for part, seconds in clock.seconds.items() if part not in MEASURED_BESIDE)
    memory = {"system/rss_mb": psutil.Process().memory_info().rss / 2**20}
    return {**costs.metrics(), **clock.metrics(), **memory}
