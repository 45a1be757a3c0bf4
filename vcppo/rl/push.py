"""Push of an iteration's advantages on the decision to stop thinking, on tasks that say where it is taken."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vcppo.tasks.base import StoppingTask, Task
from vcppo.types import Rollout, RolloutBatch


def push_metrics(
    rollouts: Sequence[Rollout],
    batch: RolloutBatch,
    rows: Tensor,
    advantages: Tensor,
    task: Task,
    tokenizer: PreTrainedTokenizerFast,
) -> dict[str, float]:
    """The push and its standard error over responses; nothing on tasks without such a decision.

    The push is the mean over responses of sum_t A_t d log pi_t / d logit over the decisions to stop or to go on, where
    logit = log p / (1 - p) of the chance p to stop: A_t (1 - p) where it stopped, -A_t p where it went on. Above 0 the
    update makes responses shorter. Going on is read as all that is not stopping, which leaves out other tokens. What a
    critic with a constant error makes of it is derived in vcppo/maths/collapse_law.py.

    Args:
        rows: [K] that are trained on. advantages: [B, T] before whitening, in units of reward.
    """
    if not isinstance(task, StoppingTask) or not len(rows):
        return {}
    sums = []
    for row in rows.tolist():
        names = tokenizer.convert_ids_to_tokens(list(rollouts[row].generation.tokens))
        pieces = [name or "" for name in names]  # a model may have more tokens than names for them
        total = 0.0
        for place, stopped in task.stop_decisions(pieces):
            other = -math.expm1(float(batch.old_logprobs[row, place]))  # chance of the other choice
            total += float(advantages[row, place]) * (other if stopped else -other)
        sums.append(total)
    pushes = torch.tensor(sums, dtype=torch.float64)
    error = {"policy/push_error": float(pushes.std()) / math.sqrt(len(sums))} if len(sums) > 1 else {}
    return {"policy/push": float(pushes.mean()), **error}
