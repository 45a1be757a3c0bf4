"""How far an estimate of a state's value is from the truth: many continuations from the states of a few responses."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vcppo.rl.continuations import StepValues, mean_scores, merged
from vcppo.rl.rewards import Shaping
from vcppo.rl.sampler import Sampler
from vcppo.settings.record import RecordSettings
from vcppo.types import Rollout

STATES = 8  # of each response, spread evenly over its steps


def true_values(
    rollouts: Sequence[Rollout],
    rows: Tensor,
    values: Tensor | None,
    steps: StepValues | None,
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
    Returns:
        Columns answer (row of the response), position (tokens before the state), fraction (of its tokens), truth (mean
        shaped score of `record.truth_samples` continuations), estimate.
    """
    starts_of = [merged(starts, STATES) for starts in sampler.step_starts([r.generation.tokens for r in rollouts])]
    count = min(record.truth_responses, len(rows))
    # Spread over the batch: neighbours share a prompt.
    chosen = [int(rows[i * len(rows) // count]) for i in range(count)]
    places = [(row, start) for row in chosen for start in starts_of[row]]
    if steps is not None:
        places = [place for place in places if place in steps.at]
    truth = mean_scores(rollouts, places, record.truth_samples, shaping, sampler=sampler, seed=seed)
    if steps is not None:
        estimates = [steps.at[place] for place in places]
    else:
        assert values is not None
        estimates = [float(values[place]) for place in places]
    return {
        "answer": [row for row, _ in places],
        "position": [start for _, start in places],
        "fraction": [start / len(rollouts[row].generation.tokens) for row, start in places],
        "truth": truth.scores,
        "estimate": estimates,
    }
