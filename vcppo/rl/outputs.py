"""Model outputs of a batch, and values by continuations, before any formula is applied."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vcppo.rl.exact_values import ExactValues
from vcppo.settings.rules import rewards_tokens
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclass(frozen=True)
class ModelOutputs:
    """Each None where the method does not need it; meaningless in rows neither trained on nor compared with."""

    values: Tensor | None = None  # [B, T] of the critic, in units of reward
    critic_outputs: Tensor | None = (
        None  # [B, T] the same as the critic outputs them: normalised, where it learns such returns
    )
    final_values: Tensor | None = None  # [B] V after the last token, where truncated responses are bootstrapped
    ref_logprobs: Tensor | None = None  # [B, T] under the reference
    dpo_logprobs: Tensor | None = None  # [B, T] under RTO's DPO policy
    segments: Tensor | None = None  # [B, T] int64, the reasoning step that a token is in
    step_values: Tensor | None = None  # [B, J] mean score of continuations from the start of each step
    exact: ExactValues | None = None  # what `values` are computed from, where the critic is an exact one


def compared_rows(batch: RolloutBatch, rows: Tensor, settings: RunSettings) -> Tensor:
    """[N] rows whose token rewards enter an advantage of `rows`.

    Those of the whole batch where responses to a prompt are compared by more than their scores, which all rows
    have: a response that is not trained on is still one of its group.
    """
    grouped = settings.estimator.compares and rewards_tokens(settings)
    return torch.arange(len(batch.scores)) if grouped and len(rows) else rows
