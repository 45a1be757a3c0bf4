"""The data of one iteration: the experience that its updates are made of, the parts they take, and what they report."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from vcppo.rl.advantages import Advantages
from vcppo.rl.continuations import StepValues
from vcppo.rl.critic_update import CriticUpdate
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.policy_update import PolicyUpdate
from vcppo.rl.rewards import Rewards
from vcppo.types import Rollout, RolloutBatch


@dataclass(frozen=True)
class Experience:
    """A batch of responses with all that updates learn from."""

    sampled: list[Rollout]  # for the batch, with those that it does not hold
    rollouts: list[Rollout]  # of the batch, in its order
    batch: RolloutBatch  # scores shaped
    rows: Tensor  # [K] that are trained on; outputs and estimates of others are meaningless
    rows_with_return: Tensor  # [N] those of them whose Monte-Carlo return is known, all but bootstrapped ones
    outputs: ModelOutputs
    steps: StepValues | None  # VinePPO's
    rewards: Rewards
    advantages: Advantages
    returns: Tensor  # [B, T] targets of the critic
    importance: Tensor | None  # [B, T] weights where generator and trainer differ


@dataclass(frozen=True)
class Iteration(Experience):
    """Data and results of one iteration."""

    true_values: dict[str, list[Any]] | None  # columns of the table, in iterations that have one
    metrics: dict[str, float]


@dataclass(frozen=True)
class Minibatch:
    """Rows of a batch that one update of each model is made of."""

    number: tuple[int, int]  # epoch, and its number in it
    rows: Tensor  # of the batch
    batch: RolloutBatch | None  # these rows; None if there are none


@dataclass(frozen=True)
class CriticTargets:
    """Targets of a critic, in its units: normalised, where it learns such returns."""

    old_values: Tensor  # [B, T] at rollout time
    returns: Tensor  # [B, T]


@dataclass(frozen=True)
class Updates:
    """Reports of an iteration's updates, in their order."""

    policy: list[PolicyUpdate]
    critic: list[CriticUpdate]

    def drifted_beyond(self, threshold: float) -> bool:
        """True where the policy's latest update saw it further from the one that sampled than ESPO allows."""
        deviation = self.policy[-1].deviation if self.policy else None
        return deviation is not None and not deviation <= threshold  # NaN has drifted
