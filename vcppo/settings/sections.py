"""The sections of a run side by side, and what follows from them together."""

from typing import assert_never

from pydantic import Field

from vcppo.settings.advantage import AdvantageSettings, GaeSettings, WhitenedAdvantageSettings
from vcppo.settings.base import Settings
from vcppo.settings.cold_start import ColdStartSettings
from vcppo.settings.critic import (
    CriticSettings,
    ModelCriticSettings,
    PretrainSettings,
    RewardModelCriticSettings,
    RewardModelSettings,
)
from vcppo.settings.digests import digest
from vcppo.settings.embedded import EmbeddedTaskSettings
from vcppo.settings.engine import EngineSettings, TorchEngineSettings
from vcppo.settings.estimators import ESTIMATORS, Estimator
from vcppo.settings.evaluation import EvaluationSettings
from vcppo.settings.losses import POLICY_LOSSES, PolicyLoss
from vcppo.settings.model import ComputeSettings, LoraSettings, ModelSettings
from vcppo.settings.policy import (
    ClippedPolicySettings,
    EarlyStopSettings,
    KlSettings,
    NoEarlyStopSettings,
    NoKlSettings,
    PolicySettings,
    ReferenceSettings,
)
from vcppo.settings.record import ALIGNMENT_EVERY, GuardSettings, MismatchSettings, RecordSettings
from vcppo.settings.reward import NoTokenRewardSettings, RewardSettings, TokenRewardSettings
from vcppo.settings.rollout import RolloutSettings, SelectSettings, VineSettings
from vcppo.settings.task import DigitsTaskSettings, TaskSettings


class RunSections(Settings):
    """All settings of a run, each section valid by itself; whether they go together is judged by the rules."""

    method: str = Field("vcppo", description="a named set of settings; `vcppo methods` lists them")
    arm: str = Field("vcppo", min_length=1, description="name of the run in tables and figures; changes nothing else")
    seed: int = Field(
        0, ge=0, description="of value pretraining and RL, beside base_seed: problems drawn, tokens sampled, shuffles"
    )
    base_seed: int = Field(0, ge=0, description="of cold start and reward model, shared by the seeds of a base")
    steps: int = Field(50, ge=1, description="RL iterations")
    micro_batch_tokens: int = Field(
        2048, ge=1, description="cells of a forward pass, padding included; fewer pad less, more keep a GPU busy"
    )
    task: TaskSettings = DigitsTaskSettings()
    model: ModelSettings = ModelSettings()
    lora: LoraSettings = LoraSettings()
    compute: ComputeSettings = ComputeSettings()
    cold_start: ColdStartSettings = ColdStartSettings()
    reward_model: RewardModelSettings = RewardModelSettings()
    engine: EngineSettings = TorchEngineSettings()
    rollout: RolloutSettings = RolloutSettings()
    reward: RewardSettings = RewardSettings()
    token_reward: TokenRewardSettings = NoTokenRewardSettings()
    select: SelectSettings = SelectSettings()
    vine: VineSettings = VineSettings()
    pretrain: PretrainSettings = PretrainSettings()
    gae: GaeSettings = GaeSettings()
    advantage: AdvantageSettings = WhitenedAdvantageSettings()
    kl: KlSettings = NoKlSettings()
    reference: ReferenceSettings = ReferenceSettings()
    policy: PolicySettings = ClippedPolicySettings()
    early_stop: EarlyStopSettings = NoEarlyStopSettings()
    critic: CriticSettings = RewardModelCriticSettings()
    mismatch: MismatchSettings = MismatchSettings()
    guard: GuardSettings = GuardSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    record: RecordSettings = RecordSettings()

    @property
    def estimator(self) -> Estimator:
        """The record of the advantage estimator."""
        return ESTIMATORS[self.advantage.estimator]

    @property
    def loss(self) -> PolicyLoss:
        """The record of the policy loss."""
        return POLICY_LOSSES[self.policy.loss]

    @property
    def run_seed(self) -> int:
        """Seed of all draws after the base: `seed` on base 0, another on each other, so that bases share none."""
        return self.seed if self.base_seed == 0 else int(digest([self.seed, self.base_seed]), 16)

    @property
    def has_critic(self) -> bool:
        """True if advantages read the values of a critic."""
        return self.estimator.has_critic

    @property
    def has_value_model(self) -> bool:
        """True if that critic is a model, and none whose values are computed."""
        return self.has_critic and self.critic.init != "exact"

    @property
    def critic_model(self) -> ModelCriticSettings:
        """The critic's settings, of one that is a model."""
        assert isinstance(self.critic, ModelCriticSettings)
        return self.critic

    @property
    def forecasts(self) -> bool:
        """True if the run is forecast before its first iteration."""
        return self.record.forecast_responses > 0 and not self.loss.pairs

    @property
    def pretrains(self) -> bool:
        """True if a critic is pretrained."""
        return self.has_value_model and self.pretrain.steps != 0

    @property
    def samples_continuations(self) -> bool:
        """True if values are means of continuations that are sampled from the ends of a response's steps (VinePPO)."""
        return self.estimator.samples_continuations

    @property
    def starts_at_mean_score(self) -> bool:
        """True if the critic's first values are the mean score of the fixed policy's responses."""
        if self.critic.init not in ("policy", "new"):
            return False
        return self.has_critic and self.critic.initial_value == "mean-score"

    @property
    def fits_reward_model(self) -> bool:
        """True if scale and origin of the reward model are fitted to scores of the fixed policy's responses."""
        return self.has_critic and self.critic.init == "reward-model" and self.critic.scores == "fitted"

    @property
    def starts_from_scores(self) -> bool:
        """True if the critic's start is made with scores of the fixed policy's responses."""
        return self.starts_at_mean_score or self.fits_reward_model

    @property
    def fixed_responses(self) -> tuple[int, int]:
        """Responses of the fixed policy that a run needs: (to pretrain on, further ones); no further ones, none at all.

        Without pretraining their mean alone may be asked for, or a line through them, which the further ones tell well
        enough: a mean of scores -1 and 1 to 0.05, the standard error of 384.
        """
        chosen = self.pretrain
        if self.pretrains:
            return 0 if chosen.fresh_rollouts else chosen.pool, chosen.held_out
        return 0, chosen.held_out if self.starts_from_scores else 0

    @property
    def needs_reference(self) -> bool:
        """True if anything compares the policy with a reference."""
        compares = self.kl.placement != "none" or self.token_reward.kind != "none"
        return compares or self.loss.needs_reference

    @property
    def alignment_interval(self) -> int:
        """Iterations between measurements of where the policy gradient points, 0 for none.

        `auto` measures where it is cheap and a critic may mislead: on an embedded task with its own small model.
        """
        interval = 0 if self.loss.pairs else self.record.alignment_every
        if interval != "auto":
            return interval
        small = isinstance(self.task, EmbeddedTaskSettings) and self.model.path is None
        return ALIGNMENT_EVERY if small and self.has_critic else 0

    @property
    def checks_mismatch(self) -> bool:
        """True if the trainer reads the log-probabilities of sampled tokens itself."""
        match self.mismatch.check:
            case "always":
                return True
            case "never":
                return False
            case "auto":
                return self.engine.kind != "torch" or self.compute.dtype != "float32"
            case _:
                assert_never(self.mismatch.check)

    @property
    def responses_per_iteration(self) -> int:
        """Responses that an iteration samples, or with dynamic sampling keeps."""
        return self.rollout.prompts * self.refill * self.rollout.samples_per_prompt

    @property
    def refill(self) -> int:
        """Factor by which an iteration asks more problems because it will prune (CPPO)."""
        return round(1.0 / (1.0 - self.select.prune_rate)) if self.select.refill else 1
