"""The policy that everything starts from."""

from pydantic import Field

from vcppo.settings.optimiser import WARM_UP, OptimiserSettings, Schedule


class ColdStartSettings(OptimiserSettings):
    """Supervised fine-tuning on demonstrations that mostly stop thinking too early."""

    learning_rate: float = Field(1e-2, gt=0, description="peak; with model.path unless set 1e-5, adapters 1e-4")
    schedule: Schedule = Field("cosine", description="after the warm-up")
    warmup_steps: int = Field(30, ge=0, description=WARM_UP)
    steps: int = Field(
        800, ge=0, description="updates; 0 takes the model of model.path as it is; with model.path unless set 100"
    )
    batch_tokens: int = Field(
        3000,
        ge=1,
        description="tokens an update at least, sixteen demonstrations at a time; with model.path unless set 16384",
    )
