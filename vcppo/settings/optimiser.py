"""AdamW and its learning-rate schedule."""

from typing import Literal

from pydantic import Field

from vcppo.settings.base import Settings

Schedule = Literal["constant", "linear", "cosine"]
WARM_UP = "steps over which the rate rises linearly from 0; with model.path unless set 10"


class OptimiserSettings(Settings):
    """AdamW and its learning-rate schedule; defaults.py has other rates and warm-ups where a model is given."""

    learning_rate: float = Field(1e-3, gt=0, description="peak")
    schedule: Schedule = Field("constant", description="after the warm-up")
    warmup_steps: int = Field(0, ge=0, description="steps over which the rate rises linearly from 0")
    adam_beta1: float = Field(0.9, ge=0, lt=1, description="decay of AdamW's mean of gradients")
    adam_beta2: float = Field(0.95, ge=0, lt=1, description="decay of AdamW's mean of squared gradients")
    adam_epsilon: float = Field(1e-8, gt=0, description="added to AdamW's denominator")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are scaled down to this norm")
