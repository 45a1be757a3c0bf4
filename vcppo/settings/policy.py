"""The policy's update, and what keeps it near a reference."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from vcppo.settings.base import Aggregation, Never, Settings, positive_interval
from vcppo.settings.losses import names_of
from vcppo.settings.optimiser import WARM_UP, OptimiserSettings, Schedule

if TYPE_CHECKING:
    _Clipped = str
    _RatioClipped = str
    _Plain = str
    _Tempered = str
    _Preference = str
else:

    def _with(*settings: str) -> Any:
        """The losses whose own settings are these."""
        return Literal[names_of(lambda loss: set(loss.settings) == set(settings))]

    _Clipped = _with("clip_low", "clip_high", "dual_clip", "aggregation")
    _RatioClipped = _with("clip_low", "clip_high", "aggregation")
    _Plain = _with("aggregation")
    _Tempered = _with("advantage_temperature", "aggregation")
    _Preference = _with("dpo_beta")


_PLACEMENT = "where the penalty enters"


class NoKlSettings(Settings):
    """Staying near the cold-start policy."""

    placement: Literal["none"] = Field("none", description=_PLACEMENT)


class KlPenaltySettings(Settings):
    """A penalty for leaving the reference, taken from the reward of each token or added to the loss."""

    placement: Literal["reward", "loss"] = Field(description=_PLACEMENT)
    coefficient: float = Field(0.01, ge=0, description="its weight")
    estimator: Literal["k1", "k2", "k3"] = Field("k3", description="see vcppo/maths/losses.py")


KlSettings = Annotated[NoKlSettings | KlPenaltySettings, Field(discriminator="placement")]


class ReferenceSettings(Settings):
    """The policy that KL penalties, APA, DPO and RTO compare with: the cold-start policy, unless it moves."""

    ema: float = Field(0.0, ge=0, le=1, description="share of the policy mixed into it after every iteration")
    refresh_every: int | Never = Field("never", description="iterations after which it is replaced by the policy")

    _interval = field_validator("refresh_every")(positive_interval)


_LOSS = "see vcppo/maths/losses.py"
_AGGREGATION = "how token losses become one number"
# What the loss of a policy takes that no setting of its kind says: it does not read them.
_UNREAD: Mapping[str, Any] = {"clip_low": 1.0, "clip_high": math.inf, "dual_clip": None, "advantage_temperature": 1.0}


class _PolicySettings(OptimiserSettings):
    """The actor's update."""

    learning_rate: float = Field(3e-4, gt=0, description="peak; with model.path unless set 1e-6, adapters 1e-5")
    schedule: Schedule = Field("linear", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    epochs: int = Field(1, ge=1, description="passes over an iteration's responses")
    minibatches: int = Field(4, ge=1, description="updates per pass")
    loss: str = Field(description=_LOSS)
    entropy_coefficient: float = Field(0.0, ge=0, description="weight of the entropy bonus")
    positive_nll: float = Field(0.0, ge=0, description="weight of the likelihood of right responses (VAPO: 0.1)")
    demonstration_nll: float = Field(0.0, ge=0, description="weight of the likelihood of demonstrations (PPO-max)")

    @property
    def bounds(self) -> dict[str, Any]:
        """Limits on a token's ratio and the like, as `vcppo.maths.losses.policy_loss` takes them."""
        return {name: getattr(self, name, unread) for name, unread in _UNREAD.items()}


class ClippedPolicySettings(_PolicySettings):
    """The actor's update."""

    loss: _Clipped = Field("clip", description=_LOSS)
    clip_low: float = Field(0.2, gt=0, le=1, description="ratio is clipped at 1 - clip_low; 1 leaves it open")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    dual_clip: float | None = Field(
        None, gt=1, description="bound on the loss of bad tokens, off by default; policy/dual_clip_fraction counts them"
    )
    aggregation: Aggregation = Field("token-mean", description=_AGGREGATION)


class RatioClippedPolicySettings(_PolicySettings):
    """The actor's update by another loss that clips ratios."""

    loss: _RatioClipped = Field(description=_LOSS)
    clip_low: float = Field(0.2, gt=0, le=1, description="ratio is clipped at 1 - clip_low; 1 leaves it open")
    clip_high: float = Field(0.2, gt=0, description="ratio is clipped at 1 + clip_high")
    aggregation: Aggregation = Field("token-mean", description=_AGGREGATION)


class PlainPolicySettings(_PolicySettings):
    """The actor's update by a loss without settings of its own."""

    loss: _Plain = Field(description=_LOSS)
    aggregation: Aggregation = Field("token-mean", description=_AGGREGATION)


class TemperedPolicySettings(_PolicySettings):
    """The actor's update by a loss that has a temperature."""

    loss: _Tempered = Field(description=_LOSS)
    advantage_temperature: float = Field(
        0.1, gt=0, description="APA's target is advantage / temperature, AWR's weight exp(advantage / temperature)"
    )
    aggregation: Aggregation = Field("token-mean", description=_AGGREGATION)


class PreferencePolicySettings(_PolicySettings):
    """The actor's update by a loss that compares pairs."""

    loss: _Preference = Field(description=_LOSS)
    dpo_beta: float = Field(0.1, gt=0, description="of DPO's implicit reward")
    aggregation: ClassVar[Aggregation] = "token-mean"  # of an entropy bonus; the loss is a mean over pairs


PolicySettings = Annotated[
    ClippedPolicySettings
    | RatioClippedPolicySettings
    | PlainPolicySettings
    | TemperedPolicySettings
    | PreferencePolicySettings,
    Field(discriminator="loss"),
]


_DEVIATION = "what |ratio - 1| is averaged over"


class NoEarlyStopSettings(Settings):
    """ESPO (arXiv:2202.00079): instead of clipping ratios, end an iteration's policy updates when they drift."""

    deviation: Literal["none"] = Field("none", description=_DEVIATION)
    threshold: ClassVar[float] = math.inf  # no drift ends them


class DeviationStopSettings(Settings):
    """Policy updates end when the mean deviation of tokens, or of sequences, is too large."""

    deviation: Literal["tokens", "sequences"] = Field(description=_DEVIATION)
    threshold: float = Field(0.25, ge=0, description="updates end after the first that saw more than this")
    entropy_share: ClassVar[float] = 1.0  # all tokens count


class HighEntropyStopSettings(Settings):
    """Policy updates end when tokens at which the policy had a choice deviate too much."""

    deviation: Literal["high-entropy-tokens"] = Field("high-entropy-tokens", description=_DEVIATION)
    threshold: float = Field(0.25, ge=0, description="updates end after the first that saw more than this")
    entropy_share: float = Field(0.2, gt=0, le=1, description="share of tokens that counts as of high entropy")


EarlyStopSettings = Annotated[
    NoEarlyStopSettings | DeviationStopSettings | HighEntropyStopSettings, Field(discriminator="deviation")
]
