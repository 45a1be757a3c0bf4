"""The critic: its start, its pretraining, and its updates during RL."""

import itertools
import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vcppo.settings.base import Aggregation, Never, Settings, in_home, positive_interval
from vcppo.settings.optimiser import WARM_UP, OptimiserSettings, Schedule


class RewardModelSettings(OptimiserSettings):
    """Bradley-Terry on (correct, incorrect) responses, scored at the last token only."""

    learning_rate: float = Field(1e-3, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    steps: int = Field(200, ge=1, description="updates")
    centering: float = Field(0.1, ge=0, description="weight of the squared sum of a pair's scores; 0 leaves it free")
    pairs: int = Field(16, ge=1, description="(correct, incorrect) pairs per update")
    responses: int = Field(4096, ge=2, description="responses sampled from the cold-start policy to make pairs of")
    responses_per_prompt: int = Field(16, ge=2, description="of them to each problem; a pair shares its problem")


class PretrainSettings(OptimiserSettings):
    """Value pretraining: the critic learns Monte-Carlo returns of the fixed cold-start policy (section 4.1)."""

    learning_rate: float = Field(1e-3, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    steps: int | Literal["converge"] = Field(
        "converge", description="updates; 0 for none; `converge`: until the held-out loss has settled, then the best"
    )
    max_steps: int = Field(1000, ge=1, description="`converge` ends here at the latest, and a falling schedule does")
    batch: int = Field(96, ge=1, description="responses per update")
    pool: int = Field(
        2304, ge=1, description="responses of the fixed policy, generated once and shared by every critic"
    )
    held_out: int = Field(384, ge=2, description="further responses that only measure loss and explained variance")
    fresh_rollouts: bool = Field(False, description="sample new responses for every update instead, as the paper does")
    evaluate_every: int = Field(10, ge=1, description="updates between measurements on the held-out responses")
    patience: int = Field(100, ge=1, description="updates since the last improvement that end `converge`")
    min_delta: float = Field(
        0.01, ge=0, lt=1, description="share of the held-out loss at the last improvement that makes the next one"
    )
    held_out_prompts: Literal["disjoint", "shared"] = Field(
        "disjoint", description="held-out responses are to prompts that the critic never learns from, or to any"
    )
    gae_lambda: float = Field(
        1.0, ge=0, le=1, description="of its targets: 1 for Monte-Carlo returns, less mixes in its own present values"
    )
    checkpoints: Literal["requested", "measured"] = Field(
        "requested", description="critics that stay on disk: those that a run takes, or one of every measurement"
    )

    @field_validator("steps")
    @classmethod
    def _not_negative(cls, steps: int | str) -> int | str:
        if isinstance(steps, int) and steps < 0:
            raise PydanticCustomError("steps", "expected 0 or more, or `converge`")
        return steps


Unseen = Literal["none", "departures", "errors"]  # what of a response an exact critic does not see

_INIT = "where value pretraining starts from"


class _ImposedErrors(Settings):
    """Errors of known shape."""

    offset: float = Field(
        0.0,
        description="a constant error: added to the bias of the head that RL starts with, after any pretraining; of an "
        "exact critic, to every value",
    )
    profile: str | None = Field(
        None,
        description="an error that stays, `token:offset ...` with lines between: added to the values that advantages "
        "are made of, never learnt away",
    )

    @field_validator("profile")
    @classmethod
    def _is_a_profile(cls, profile: str | None) -> str | None:
        if profile is not None:
            profile_points(profile)
        return profile

    @property
    def profile_points(self) -> tuple[tuple[float, float], ...]:
        """(token of the response from 0, what is added to its value) by token, none without a profile."""
        return () if self.profile is None else profile_points(self.profile)


class ModelCriticSettings(_ImposedErrors, OptimiserSettings):
    """The critic's start and its update during RL."""

    init: str = Field(description=_INIT)
    bounded: bool = Field(False, description="values cannot leave the range of rewards, by a sigmoid")
    learning_rate: float = Field(
        6e-4,
        gt=0,
        description="peak; papers keep it at twice the actor's; with model.path unless set 1e-5, adapters 1e-4",
    )
    schedule: Schedule = Field("linear", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description=WARM_UP)
    updates_per_policy_update: int = Field(1, ge=1, description="critic updates for each policy update")
    policy_starts_after: int = Field(0, ge=0, description="iterations, exactly so many, that train the critic only")
    value_loss: Literal["mse", "clipped"] = Field(
        "mse", description="plain squared error, or clipped around old values"
    )
    value_clip_range: float = Field(0.5, gt=0, description="range of the clipped value loss")
    aggregation: Aggregation = Field("token-mean", description="the critic's own, whatever the actor's is")
    update_every: int | Never = Field(1, description="iterations between those that train it; `never`: frozen (DVPO)")
    normalise_returns: bool = Field(False, description="it learns returns divided by their running deviation")

    _interval = field_validator("update_every")(positive_interval)


def profile_points(text: str) -> tuple[tuple[float, float], ...]:
    """Parse a profile into (token, offset) points, tokens rising.

    >>> profile_points("0:-0.7 15:0")
    ((0.0, -0.7), (15.0, 0.0))
    """
    try:
        points = tuple((float(token), float(offset)) for token, _, offset in (p.partition(":") for p in text.split()))
    except ValueError:
        points = ()
    tokens = [token for token, _ in points]
    rising = all(before < after for before, after in itertools.pairwise(tokens))
    if not points or not rising or tokens[0] < 0 or not all(math.isfinite(x) for point in points for x in point):
        raise PydanticCustomError(
            "profile", "expected token:offset pairs with rising tokens from 0 on, for example 0:-0.7 15:0 30:0.4"
        )
    return points


class RewardModelCriticSettings(ModelCriticSettings):
    """The critic's start and its update during RL."""

    init: Literal["reward-model"] = Field("reward-model", description=_INIT)
    scores: Literal["raw", "fitted"] = Field(
        "raw",
        description="fitted: scale and origin of the reward model's scores are those that fit the scores of responses "
        "best, by least squares; the same responses as of critic.initial_value = mean-score",
    )


class _FreshHeadSettings(ModelCriticSettings):
    """The critic's start and its update during RL."""

    initial_value: float | Literal["mean-score"] = Field(
        0.0,
        description="first values of a fresh head; `mean-score`: of the responses it will be pretrained on, or, with "
        "pretrain.steps = 0, of pretrain.held_out responses of the fixed policy",
    )


class FreshCriticSettings(_FreshHeadSettings):
    """The critic is the policy with a fresh head."""

    init: Literal["policy"] = Field("policy", description=_INIT)


class NewCriticSettings(_FreshHeadSettings):
    """The critic is a network of its own size with random weights, which shares nothing but tokens with the policy."""

    in_every_record: ClassVar[bool] = False
    init: Literal["new"] = Field("new", description=_INIT)
    layers: int | None = Field(None, ge=1, description="decoder layers of a new critic; none: as many as the policy's")
    hidden_size: int | None = Field(None, ge=8, description="width of a new critic; none: the policy's")
    intermediate_size: int | None = Field(None, ge=8, description="its feed-forward width; none: the policy's")
    heads: int | None = Field(None, ge=1, description="its attention heads; none: the policy's")


class SavedCriticSettings(ModelCriticSettings):
    """The critic is one that was trained before."""

    init: Literal["saved"] = Field("saved", description=_INIT)
    path: str | None = Field(None, description="folder or hub name of the critic that `init = saved` starts from")

    @field_validator("path")
    @classmethod
    def _at_home(cls, path: str | None) -> str | None:
        return in_home(path)


class ExactCriticSettings(_ImposedErrors):
    """The critic is no model: its values are computed from the policy's own chances, then made worse by dials."""

    in_every_record: ClassVar[bool] = False
    init: Literal["exact"] = Field("exact", description=_INIT)
    unseen: Unseen = Field(
        "none",
        description="what an exact critic does not see: that a response has left every right way, or how many errors "
        "it has made (docs/critics.md)",
    )
    sight: float = Field(
        1.0, ge=0, le=1, description="of an exact critic: 1 sees the state, 0 its position alone; between, a mixture"
    )
    blur: float = Field(
        0.0, ge=0, description="standard deviation of noise on an exact critic's values, drawn anew for every state"
    )

    # What a model would be and learn.
    bounded: ClassVar[bool] = False
    policy_starts_after: ClassVar[int] = 0
    value_loss: ClassVar[Literal["mse", "clipped"]] = "mse"
    aggregation: ClassVar[Aggregation] = "token-mean"
    update_every: ClassVar[int | Never] = "never"
    updates_per_policy_update: ClassVar[int] = 1
    normalise_returns: ClassVar[bool] = False


CriticSettings = Annotated[
    RewardModelCriticSettings | FreshCriticSettings | NewCriticSettings | SavedCriticSettings | ExactCriticSettings,
    Field(discriminator="init"),
]
