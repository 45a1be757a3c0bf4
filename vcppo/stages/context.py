"""Inputs of a stage: the run's settings, the stage's folder, and the finished folders before it."""

import functools
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.engines import engine_note, make_engine
from vcppo.engines.base import Sampling
from vcppo.models import loading
from vcppo.models.checkpoint_clock import CheckpointClock
from vcppo.models.limits import Limit, Room, limit_of
from vcppo.models.sharding import prepare
from vcppo.rl.sampler import Sampler
from vcppo.seeding import seed_for
from vcppo.settings.critic import NewCriticSettings
from vcppo.settings.engine import TorchEngineSettings
from vcppo.settings.run import RunSettings
from vcppo.store.cache import StageFolder
from vcppo.tasks import make_task
from vcppo.tasks.base import Task

SLACK = 64  # positions of a fresh policy beyond the longest response to its task


def fresh_positions(task: Task) -> int:
    """Positions of a fresh policy, whose task has short prompts."""
    return task.max_tokens + SLACK


def print_notice(line: str) -> None:
    """Print one line for the user, where a run has nobody else to tell."""
    with suppress(OSError):  # of a worker: to its log, on a disk that may be full
        print(f"note: {line}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class StageContext:
    """Arguments of every stage function; `notice` receives a line on what was damaged, and is made again."""

    settings: RunSettings
    folder: StageFolder
    earlier: dict[str, StageFolder]
    notice: Callable[[str], None] = print_notice

    @functools.cached_property
    def task(self) -> Task:
        """The task of the settings."""
        return make_task(self.settings.task)

    def checkpoint_clock(self) -> CheckpointClock:
        """A clock that says when to save the stage's state; the time counts from now."""
        return CheckpointClock(self.settings.record.checkpoint_every_s)

    @property
    def first_policy(self) -> Path | str:
        """The cold-start policy's checkpoint; the model that was given, where nothing is to be learnt first."""
        if self.settings.cold_start.steps == 0 and self.settings.model.path is not None:
            return self.settings.model.path
        return self.earlier["cold-start"].path / "policy"

    @functools.cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer that the policy was saved with."""
        return self.load_tokenizer(self.first_policy)

    def load_tokenizer(self, path: Path | str) -> PreTrainedTokenizerFast:
        """Load a policy's tokenizer, and check that it can encode the task.

        Raises:
            ConfigError: it cannot.
        """
        tokenizer = loading.load_tokenizer(path, trust_remote_code=self.settings.model.trust_remote_code)
        self.task.check_tokenizer(tokenizer, str(path))
        return tokenizer

    @functools.cached_property
    def sampling(self) -> Sampling:
        """Sampling of rollouts, and of all other responses that are trained on."""
        rollout = self.settings.rollout
        return Sampling(rollout.temperature, rollout.top_p, self.rollout_limit.tokens)

    @property
    def engine_note(self) -> str | None:
        """A line for people where the policy that is given is generated from the slow way."""
        model = self.settings.model
        if model.path is None:
            return None
        config = loading.load_config(model.path, trust_remote_code=model.trust_remote_code)
        return engine_note(self.settings.engine, config)

    @functools.cached_property
    def rollout_limit(self) -> Limit:
        """The limit on a response to a training problem, as long as model and engine allow.

        Raises:
            ConfigError: the one that was set does not fit, or the longest prompt alone.
        """
        return self._limit(self.task.longest_prompt(self._given_tokenizer), "training")

    @functools.cached_property
    def evaluation_limit(self) -> Limit:
        """The same of the problems of evaluation, as `vcppo evaluate` has it."""
        prompts = self.task.held_out_prompts(self.settings.evaluation.problems)
        return self._limit(max(map(len, self.task.encode(prompts, self._given_tokenizer))), "evaluation")

    def _limit(self, longest_prompt: int, of: str) -> Limit:
        settings = self.settings
        max_tokens, default = settings.rollout.max_tokens, self.task.max_tokens
        return limit_of(max_tokens, default, room=self._room, longest_prompt=longest_prompt, of=of)

    @functools.cached_property
    def _room(self) -> Room:
        """The least of the policy (as long as the model that the cold start trains), the critic and the engine."""
        settings, trust = self.settings, self.settings.model.trust_remote_code
        if settings.model.path is None:
            room = Room.of_model("the fresh policy", fresh_positions(self.task))
        else:
            room = loading.room_of(settings.model.path, settings.engine, trust_remote_code=trust)
        if settings.has_critic and settings.critic.init == "saved" and settings.critic.path is not None:
            room = room.smaller(loading.room_of(settings.critic.path, TorchEngineSettings(), trust_remote_code=trust))
        return room

    @functools.cached_property
    def _given_tokenizer(self) -> PreTrainedTokenizerFast:
        """The policy's, which the cold start does not change: there is one before it has run."""
        path = self.settings.model.path
        return self.task.tokenizer() if path is None else self.load_tokenizer(path)

    def load_first_policy(self) -> PreTrainedModel:
        """Load the policy that RL starts from and value pretraining keeps fixed."""
        return self.load_policy(self.first_policy)

    def load_preference_policy(self) -> PreTrainedModel:
        """Load the policy that DPO trained from the first one, for RTO's reward."""
        return self.load_policy(self.earlier["preference"].path / "policy")

    def load_policy(self, path: Path | str) -> PreTrainedModel:
        """Load any policy, prepared as the settings want passes computed."""
        return self.prepared(loading.load_policy(path, trust_remote_code=self.settings.model.trust_remote_code))

    def load_critic(
        self,
        path: Path | str,
        *,
        head_seed: int | None = None,
        initial_value: float = 0.0,
        bounds: tuple[float, float] | None = None,
    ) -> PreTrainedModel:
        """Load any critic, or a checkpoint with a fresh head, prepared alike."""
        critic = loading.load_critic(
            path,
            head_seed=head_seed,
            initial_value=initial_value,
            bounds=bounds,
            trust_remote_code=self.settings.model.trust_remote_code,
        )
        return self.prepared(critic)

    def new_critic(
        self, critic: NewCriticSettings, *, initial_value: float = 0.0, bounds: tuple[float, float] | None = None
    ) -> PreTrainedModel:
        """Build a critic of a size of its own, prepared alike."""
        made = loading.new_critic(
            self.first_policy,
            critic,
            seed=seed_for(self.settings.run_seed, "critic", "new"),
            initial_value=initial_value,
            bounds=bounds,
            trust_remote_code=self.settings.model.trust_remote_code,
        )
        return self.prepared(made)

    def prepared(self, model: PreTrainedModel) -> PreTrainedModel:
        """Prepare a model: adapters, device, shards."""
        settings = self.settings
        return prepare(model, settings.compute, settings.lora, seed=settings.base_seed)

    def sampler(self, policy: PreTrainedModel) -> Sampler:
        """Sampler of this policy's responses to training problems, by the engine of the settings."""
        return Sampler(self.task, self.tokenizer, make_engine(self.settings.engine, policy), self.sampling)

    def evaluation_sampler(self, policy: PreTrainedModel) -> Sampler:
        """Sampler of its responses to the problems of evaluation."""
        chosen = self.settings.evaluation
        sampling = Sampling(chosen.temperature, chosen.top_p, self.evaluation_limit.tokens)
        return Sampler(self.task, self.tokenizer, make_engine(self.settings.engine, policy), sampling)
