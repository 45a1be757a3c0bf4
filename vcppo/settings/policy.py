"""The policy's update, and what keeps it near a reference."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from vcppo.settings.base import Aggregation, Never, Settings, positive_interval
from vcppo.settings.losses import POLICY_LOSSES
from vcppo.settings.optimiser import WARM_UP, OptimiserSettings, Schedule

if TYPE_CHECKING:
    PolicyLossName = str
else:
    PolicyLossName = Literal[tuple(POLICY_LOSSES)]


class KlSettings(Settings):
    """Staying near the cold-start policy."""

    placement: Literal["none", "reward", "loss"] = Field("none", description="where the penalty enters")
    coefficient: float = Field(0.01, ge=0, description="its weight")
    estimator: Literal["k1", "k2", "k3"] = Field("k3", description="see vcppo/maths/losses.py")


class ReferenceSettings(Settings):
    """The policy that KL penalties, APA, DPO and RTO compare with: the cold-start policy, unless it moves."""

    ema: float = Field(0.0, ge=0, le=1, description="share of the policy mixed into it after every iteration")
    refresh_every: int | Never = Field("never", description="iterations after which it is replaced by the policy")

    _interval = field_validator("refresh_every")(positive_interval)


class PolicySettings(OptimiserSettings):
    """The actor's update."""

    learning_rate: float = Field(3e-4, gt=0, description="peak; with model.path unless set 1e-6, adapters 1e-5")
    schedule: Schedule = Field("linear", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    epochs: int = Field(1, ge=1, description="passes over an iteration's answers")
    minibatches: int = Field(4, ge=1, description="updates a pass")
    loss: PolicyLossName = Field("clip", description="see vcppo/maths/losses.py")
    clip_low: float = Field(0.2, gt=0, le=1, description="ratio is clipped at 1 - clip_low; 1 leaves it open")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    dual_clip: float | None = Field(
        None, gt=1, description="bound on the loss of bad tokens, off by default; policy/dual_clip_fraction counts them"
    )
    aggregation: Aggregation = Field("token-mean", description="how token losses become one number")
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    advantage_temperature: float = Field(
        0.1, gt=0, description="APA's target is advantage / temperature, AWR's weight exp(advantage / temperature)"
    )
    dpo_beta: float = Field(0.1, gt=0, description="of DPO's implicit reward")
    positive_nll: float = Field(0.0, ge=0, description="weight of the likelihood of right answers (VAPO: 0.1)")
    demonstration_nll: float = Field(0.0, ge=0, description="weight of the likelihood of demonstrations (PPO-max)")


class EarlyStopSettings(Settings):
    """ESPO (arXiv:2202.00079): instead of clipping ratios, end an iteration's policy updates when they drift."""

    deviation: Literal["none", "tokens", "sequences", "high-entropy-tokens"] = Field(
        "none", description="what |ratio - 1| is averaged over"
    )
    threshold: float = Field(0.25, ge=0, description="updates end after the first that saw more than this")
    entropy_share: float = Field(0.2, gt=0, le=1, description="share of tokens that counts as of high entropy")
