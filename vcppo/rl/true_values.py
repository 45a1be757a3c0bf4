"""Errors of estimates of states' values against the truth.

Where a task's values can be computed, the truth of every state is; else many continuations are sampled from the states
of a few responses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.diagnostics import explained_variance, root_mean_square, value_bias
from vcppo.rl.continuations import StepValues, mean_scores, merged
from vcppo.rl.exact_values import Response, exact_values, refuse_credit
from vcppo.rl.experience import Experience
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.rewards import Shaping
from vcppo.rl.sampler import Sampler
from vcppo.seeding import seed_for
from vcppo.settings.record import RecordSettings
from vcppo.settings.rules import has_exact_values
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout

STATES = 8  # of each response, spread evenly over its steps


@dataclass(frozen=True)
class Truth:
    """Table and metrics of true values, as an iteration measured them."""

    table: dict[str, list[Any]] | None = None  # columns of `true_values`
    metrics: dict[str, float] = field(default_factory=dict)


def error_metrics(estimates: Tensor, truth: Tensor, mask: Tensor, *, stage: str) -> dict[str, float]:
    """Mean and root mean square of what estimates are off by, over the True cells.

    Args:
        estimates, truth: [B, T] float. mask: [B, T] bool. stage: that the metrics are of.
    """
    return {
        f"{stage}/true_bias": value_bias(estimates, truth, mask),
        f"{stage}/true_error": root_mean_square(estimates - truth, mask),
    }


def measure_truth(
    experience: Experience,
    shaping: Shaping,
    *,
    policy: PreTrainedModel,
    sampler: Sampler,
    settings: RunSettings,
    step: int,
) -> Truth:
    """Measure what training took for values against the true ones: computed, where the task allows, else sampled.

    Computed ones cost a forward pass, and are measured in every iteration that has tables of the critic too.

    Args:
        policy: that sampled, and that the sampler samples from.
    Raises:
        DataError: values can be computed, and responses have partial credit.
    """
    record, rollouts, rows = settings.record, experience.rollouts, experience.rows
    outputs, steps = experience.outputs, experience.steps
    tabled = record.truth_every > 0 and step % record.truth_every == 0
    measured = tabled or step % record.positions_every == 0 or step + 1 == settings.steps
    if (outputs.values is None and steps is None) or not len(rows) or not measured:
        return Truth()
    truth, metrics = None, dict[str, float]()
    if has_exact_values(settings):
        refuse_credit(experience.batch, settings.reward)
        exact = outputs.exact or exact_values(
            policy,
            [Response.of(rollout) for rollout in rollouts],
            sampler=sampler,
            reward=settings.reward,
            max_tokens=settings.micro_batch_tokens,
            rows=rows,
        )
        truth = exact.values()
        monte_carlo, known = experience.rewards.monte_carlo, experience.rows_with_return
        metrics = truth_metrics(truth, monte_carlo, experience.batch.response_mask, rows, known, outputs, steps)
    if not tabled:
        return Truth(metrics=metrics)
    seed = seed_for(settings.run_seed, "rl", "true values", step)
    table = true_values(rollouts, rows, outputs.values, steps, truth, shaping, record, sampler=sampler, seed=seed)
    return Truth(table, metrics)


def truth_metrics(
    truth: Tensor,
    monte_carlo: Tensor,
    response_mask: Tensor,
    rows: Tensor,
    rows_with_return: Tensor,
    outputs: ModelOutputs,
    steps: StepValues | None,
) -> dict[str, float]:
    """Error of the values that training used; and explained variance of the true ones, a ceiling for any critic's.

    Args:
        truth, monte_carlo: [B, T] true values, and Monte-Carlo returns. rows: [K] that are trained on.
        rows_with_return: [N] of them, which the critic's explained variance is measured on.
        steps: VinePPO's values, which stand at the starts of steps alone.
    """
    if steps is not None:
        trained = set(rows.tolist())
        places = [place for place in steps.at if place[0] in trained]
        estimates = torch.tensor([[steps.at[place] for place in places]])
        true = torch.tensor([[float(truth[place]) for place in places]])
        return error_metrics(estimates, true, torch.ones_like(true, dtype=torch.bool), stage="value")
    assert outputs.values is not None
    metrics = error_metrics(outputs.values[rows], truth[rows], response_mask[rows], stage="value")
    if len(rows_with_return):
        measured = (x[rows_with_return] for x in (truth, monte_carlo, response_mask))
        metrics["value/explained_variance_ceiling"] = explained_variance(*measured)
    return metrics


def true_values(
    rollouts: Sequence[Rollout],
    rows: Tensor,
    values: Tensor | None,
    steps: StepValues | None,
    truth: Tensor | None,
    shaping: Shaping,
    record: RecordSettings,
    *,
    sampler: Sampler,
    seed: int,
) -> dict[str, list[Any]]:
    """Measure the table `true_values`: one row per state, its true value and the estimate that training used there.

    Args:
        rows: [K] rows that are trained on, at least one, ascending: others have no values.
        values: [B, T] of the critic. steps: VinePPO's values; states that it did not estimate are left out.
        truth: [B, T] true values, where they are computed.
    Returns:
        Columns answer (row of the response), position (tokens before the state), fraction (of its tokens), truth (the
        computed value, else the mean shaped score of `record.truth_samples` continuations), estimate, samples (so many
        continuations, 0 for a computed value).
    """
    starts_of = [merged(starts, STATES) for starts in sampler.step_starts([r.generation.tokens for r in rollouts])]
    count = min(record.truth_responses, len(rows))
    # Spread over the batch: neighbours share a prompt.
    chosen = [int(rows[i * len(rows) // count]) for i in range(count)]
    places = [(row, start) for row in chosen for start in starts_of[row]]
    if steps is not None:
        places = [place for place in places if place in steps.at]
    if truth is not None:
        true = [float(truth[place]) for place in places]
    else:
        true = mean_scores(rollouts, places, record.truth_samples, shaping, sampler=sampler, seed=seed).scores
    if steps is not None:
        estimates = [steps.at[place] for place in places]
    else:
        assert values is not None
        estimates = [float(values[place]) for place in places]
    return {
        "answer": [row for row, _ in places],
        "position": [start for _, start in places],
        "fraction": [start / len(rollouts[row].generation.tokens) for row, start in places],
        "truth": true,
        "estimate": estimates,
        "samples": [0 if truth is not None else record.truth_samples] * len(places),
    }
