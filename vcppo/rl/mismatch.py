"""Log-probabilities of the generator and the trainer: recomputed, compared, and corrected by importance weights."""

import dataclasses
import sys

from torch import Tensor
from transformers import PreTrainedModel

from vcppo.maths.mismatch import importance_weights, mismatch
from vcppo.models.distributed import world
from vcppo.rl.policy_update import read_logprobs
from vcppo.settings.run import RunSettings
from vcppo.types import RolloutBatch


@dataclasses.dataclass(frozen=True)
class Recomputed:
    """A batch with the trainer's log-probabilities in place of the generator's."""

    batch: RolloutBatch
    importance: Tensor | None  # [B, T] truncated weights, trainer over generator; None where nothing is corrected
    metrics: dict[str, float]


def recompute_logprobs(
    rollout_policy: PreTrainedModel, batch: RolloutBatch, settings: RunSettings, *, step: int
) -> Recomputed:
    """Recompute the log-probabilities of sampled tokens under the policy that sampled them, as the trainer computes.

    Warns on stderr of a mean difference above `mismatch.alarm`.
    """
    chosen, mask = settings.mismatch, batch.response_mask
    logprobs = read_logprobs(
        rollout_policy, batch, temperature=settings.rollout.temperature, max_tokens=settings.micro_batch_tokens
    )
    apart = mismatch(logprobs, batch.old_logprobs, mask)
    metrics = {"mismatch/mean": apart.mean, "mismatch/max": apart.largest, "mismatch/kl": apart.kl}
    metrics["mismatch/alarm"] = float(apart.mean > chosen.alarm)
    if apart.mean > chosen.alarm and world().is_main:
        print(
            f"iteration {step}: generator and trainer differ by {apart.mean:.3g} nats a token (at most "
            f"{apart.largest:.3g}), mismatch.alarm is {chosen.alarm:g}: stale weights, or another precision?",
            file=sys.stderr,
        )
    weights = None
    if chosen.cap is not None:
        weights = importance_weights(logprobs, batch.old_logprobs, mask, cap=chosen.cap)
        metrics["mismatch/weight_mean"] = float(weights[mask].mean())
        metrics["mismatch/capped_share"] = float((weights[mask] >= chosen.cap).float().mean())
    return Recomputed(dataclasses.replace(batch, old_logprobs=logprobs), weights, metrics)
