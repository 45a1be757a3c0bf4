"""How good a token was: GAE with its two lambdas, and the estimators beside it."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from vcppo.settings.base import Settings
from vcppo.settings.estimators import ESTIMATORS, names_of

if TYPE_CHECKING:
    EstimatorName = str
else:
    EstimatorName = Literal[tuple(ESTIMATORS)]
_CRITICS = names_of(lambda estimator: estimator.has_critic)


class GaeSettings(Settings):
    """Generalized advantage estimation, with a lambda for each of its two uses."""

    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    lambda_actor: float = Field(0.95, ge=0, le=1, description="bias-variance of the policy's advantages")
    lambda_critic: float = Field(1.0, ge=0, le=1, description="1.0: value targets are Monte-Carlo returns")
    length_adaptive_alpha: float | None = Field(
        None, gt=0, description="lambda_actor = 1 - 1/(alpha * length) instead of a number; VAPO uses 0.05"
    )
    bootstrap_truncated: bool = Field(
        False, description="an answer cut at the limit is worth V there, in place of its score"
    )


class AdvantageSettings(Settings):
    """How good a token was."""

    estimator: EstimatorName = Field(
        "gae", description="gae, td, q and released-dvpo read a critic; see docs/methods.md"
    )
    whiten: Literal["none", "batch", "minibatch"] = Field("none", description="scope of normalisation to mean 0, std 1")
    clip: float | None = Field(None, gt=0, description="advantages are kept within +-clip, after whitening")
    group_scale: bool = Field(True, description="GRPO divides by the group's standard deviation")
