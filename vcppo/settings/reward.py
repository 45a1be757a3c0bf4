"""Rewards of responses and of tokens."""

from typing import Annotated, Literal

from pydantic import Field

from vcppo.settings.base import Settings


class RewardSettings(Settings):
    """The scores of the verifier's three verdicts, and their shaping."""

    correct: float = Field(1.0, description="reward of a right response")
    wrong: float = Field(-1.0, description="reward of a wrong response")
    unreadable: float = Field(-1.0, description="reward of a response with no readable result")
    truncated: float | None = Field(None, description="reward of a response cut at the limit; none: as it was verified")
    overlong_share: float | None = Field(
        None, gt=0, le=1, description="last share of the length limit in which a response is punished; DAPO uses 0.2"
    )
    overlong_penalty: float = Field(1.0, gt=0, description="punishment at the limit, growing linearly to it")
    normalise: Literal["none", "scale", "standardise"] = Field(
        "none", description="by running moments: divide by the deviation, or subtract the mean too"
    )
    clip: float | None = Field(None, gt=0, description="rewards are kept within +-clip, after normalisation")


_KIND = "on each token; at the end of each step; at the end; on each token and taken back at the end"


class NoTokenRewardSettings(Settings):
    """A reward for every token from a policy trained by DPO (RTO, arXiv:2404.18922)."""

    kind: Literal["none"] = Field("none", description=_KIND)


class LogRatioRewardSettings(Settings):
    """A token is worth how much likelier a policy trained by DPO finds it than the reference does."""

    kind: Literal["rto", "semi-rto", "ddpo", "rs-ppo"] = Field(description=_KIND)
    weight: float = Field(0.05, ge=0, description="of log(pi_dpo / pi_ref)")
    clip: float | None = Field(None, gt=0, description="a token's reward is kept within +-clip")
    dpo_steps: int = Field(25, ge=1, description="iterations of DPO that train pi_dpo, as `method=dpo` trains it")


TokenRewardSettings = Annotated[NoTokenRewardSettings | LogRatioRewardSettings, Field(discriminator="kind")]
