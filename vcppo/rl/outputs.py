"""What models and continuations say of a batch, before anything is made of it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.rules import rewards_tokens
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class ModelOutputs:
    """Each None where nothing asks for it; of rows that are neither trained on nor compared with it means nothing."""

    values: Tensor | None = None  # [B, T] of the critic, in units of reward
    critic_outputs: Tensor | None = None  # [B, T] the same as it gave them: normalised, where it learns such returns
    final_values: Tensor | None = None  # [B] V after the last token, where truncated responses are bootstrapped
    ref_logprobs: Tensor | None = None  # [B, T] under the reference
    dpo_logprobs: Tensor | None = None  # [B, T] under RTO's DPO policy
    segments: Tensor | None = None  # [B, T] int64, the reasoning step that a token is in
    step_values: Tensor | None = None  # [B, J] mean score of continuations from the start of each step


def compared_rows(batch: RolloutBatch, rows: Tensor, settings: RunSettings) -> Tensor:
    """[N] rows whose token rewards enter an advantage of `rows`.

    Those of the whole batch where responses to a prompt are compared by more than their scores, which are known of
    all: a response that is not trained on is still one of its group.
    """
    grouped = ESTIMATORS[settings.advantage.estimator].compares and rewards_tokens(settings)
    return torch.arange(len(batch.scores)) if grouped and len(rows) else rows
