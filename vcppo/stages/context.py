"""What a stage is given: the run's settings, its own folder, and the finished folders before it."""

import functools
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo import models
from vcppo.cache import StageFolder
from vcppo.config import RunSettings
from vcppo.engines import Engine, make_engine
from vcppo.tasks import Task, make_task


@dataclass(frozen=True)
class StageContext:
    """Arguments of every stage function."""

    settings: RunSettings
    folder: StageFolder
    earlier: dict[str, StageFolder]

    @functools.cached_property
    def task(self) -> Task:
        """The task of the settings."""
        return make_task(self.settings.task)

    @property
    def first_policy(self) -> Path:
        """The cold-start policy's checkpoint."""
        return self.earlier["cold-start"].path / "policy"

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that the policy was saved with."""
        return models.load_tokenizer(self.first_policy)

    def load_preference_policy(self) -> PreTrainedModel:
        """The policy that DPO made of the first one, which RTO's reward is made of."""
        return models.load_policy(self.earlier["preference"].path / "policy")

    def load_first_policy(self) -> PreTrainedModel:
        """The policy that RL starts from and value pretraining keeps fixed."""
        return models.load_policy(self.first_policy)

    def engine(self, policy: PreTrainedModel) -> Engine:
        """The generator of the settings, sampling from these weights."""
        return make_engine(self.settings.engine, policy)
