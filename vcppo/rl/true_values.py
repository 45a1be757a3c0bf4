"""How far an estimate of a state's value is from the truth: many continuations of a few answers' states."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from vcppo.engines.base import Engine, Sampling
from vcppo.rl.continuations import StepValues, mean_scores, merged, step_starts
from vcppo.rl.rewards import Shaping
from vcppo.settings.record import RecordSettings
from vcppo.stages.context import StageContext
from vcppo.types import Rollout

STATES = 8  # of each answer, spread evenly over its steps


def true_values(
    rollouts: Sequence[Rollout],
    kept: Tensor,
    values: Tensor | None,
    steps: StepValues | None,
    shaping: Shaping,
    record: RecordSettings,
    *,
    context: StageContext,
    engine: Engine,
    sampling: Sampling,
    seed: int,
) -> dict[str, list[Any]]:
    """The table `true_values`: a row a state with its true value and the estimate that training used there.

    Args:
        kept: [K] rows that are trained on, at least one, ascending: of others no value was read.
        values: [B, T] of the critic. steps: VinePPO's values; states that it did not estimate are left out.
    Returns:
        Columns answer, position (tokens before the state), fraction (of the answer's tokens), truth (mean shaped
        score of `record.truth_samples` continuations), estimate.
    """
    every = [merged(own, STATES) for own in step_starts(rollouts, context)]
    count = min(record.truth_answers, len(kept))
    # Spread over the batch: neighbours share a question.
    rows = [int(kept[i * len(kept) // count]) for i in range(count)]
    places = [(row, start) for row in rows for start in every[row]]
    if steps is not None:
        places = [place for place in places if place in steps.at]
    found = mean_scores(
        rollouts, places, record.truth_samples, shaping, context=context, engine=engine, sampling=sampling, seed=seed
    )
    if steps is not None:
        estimates = [steps.at[place] for place in places]
    else:
        assert values is not None
        estimates = [float(values[place]) for place in places]
    return {
        "answer": [row for row, _ in places],
        "position": [start for _, start in places],
        "fraction": [start / len(rollouts[row].generation.tokens) for row, start in places],
        "truth": found.scores,
        "estimate": estimates,
    }
