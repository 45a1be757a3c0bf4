"""Settings of advantages: GAE with its two lambdas, and the estimators beside it."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from vcppo.settings.base import Settings
from vcppo.settings.estimators import names_of

Scope = Literal["none", "batch", "minibatch"]

if TYPE_CHECKING:
    _Whitened = str
    _Group = str
    _None = str
else:

    def _with(*settings: str) -> Any:
        """The estimators whose own settings are these."""
        return Literal[names_of(lambda estimator: set(estimator.settings) == set(settings))]

    _Whitened = _with("whiten", "clip")
    _Group = _with("whiten", "clip", "group_scale")
    _None = _with()

_CRITICS = names_of(lambda estimator: estimator.has_critic)
_ESTIMATOR = f"{', '.join(_CRITICS)} read a critic; see docs/methods.md"
_WHITEN = "scope of normalisation to mean 0, std 1"
_CLIP = "advantages are kept within +-clip, after whitening"


class GaeSettings(Settings):
    """Generalized advantage estimation, with a lambda for each of its two uses."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lambda_actor: float = Field(0.95, ge=0, le=1, description="bias-variance of the policy's advantages")
    lambda_critic: float = Field(1.0, ge=0, le=1, description="1.0: value targets are Monte-Carlo returns")
    length_adaptive_alpha: float | None = Field(
        None, gt=0, description="lambda_actor = 1 - 1/(alpha * length) instead of a number; VAPO uses 0.05"
    )
    bootstrap_truncated: bool = Field(
        False, description="a response cut at the limit is worth V there, in place of its score"
    )


class WhitenedAdvantageSettings(Settings):
    """The advantage estimator, whitening and clipping."""

    estimator: _Whitened = Field("gae", description=_ESTIMATOR)
    whiten: Scope = Field("none", description=_WHITEN)
    clip: float | None = Field(None, gt=0, description=_CLIP)


class GroupAdvantageSettings(Settings):
    """An estimator that compares responses to one prompt, whitening and clipping."""

    estimator: _Group = Field(description=_ESTIMATOR)
    whiten: Scope = Field("none", description=_WHITEN)
    clip: float | None = Field(None, gt=0, description=_CLIP)
    group_scale: bool = Field(True, description="GRPO divides by the group's standard deviation")


class NoAdvantageSettings(Settings):
    """No advantages: the loss compares pairs."""

    estimator: _None = Field(description=_ESTIMATOR)
    whiten: ClassVar[Scope] = "none"
    clip: ClassVar[float | None] = None


AdvantageSettings = Annotated[
    WhitenedAdvantageSettings | GroupAdvantageSettings | NoAdvantageSettings, Field(discriminator="estimator")
]
