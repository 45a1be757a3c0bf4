"""Cost of a run before it starts: tokens and minutes by stage, from its settings and the speed of networks here.

Shapes, lengths and speeds are those that `vcppo plan` counts with (shapes.py, lengths.py, speeds.py).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from vcppo.errors import CheckpointError, ConfigError
from vcppo.planning.lengths import Lengths, lengths_of
from vcppo.planning.memory_estimate import Network
from vcppo.planning.shapes import critic_shapes_of, shapes_of
from vcppo.planning.speed_store import stored_speed
from vcppo.planning.speeds import Machine, Speed, estimated_speed
from vcppo.planning.writing import Writing, evaluation_writing, held_out_problems, training_writing
from vcppo.settings.fixed import DEMONSTRATIONS_AT_ONCE, WRITTEN_LINES
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings
from vcppo.store.cache import StageFolder, addresses, is_complete
from vcppo.system.terminal import duration

NVIDIA = Path("/proc/driver/nvidia/version")  # there where its driver is loaded


@dataclass(frozen=True)
class StageCost:
    """One stage's share. Tokens are upper bounds: every response taken at the length of a whole chain."""

    stage: str
    address: str
    cached: bool
    prompt_tokens: int  # read before responses are written
    generated_tokens: int
    forward_tokens: int  # without gradient; of prompts and responses, as are those trained on
    trained_tokens: int
    minutes: float  # NaN where nobody here knows the model's shapes


def estimate_costs(settings: RunSettings, out: Path, *, machine: Machine | None = None) -> list[StageCost]:
    """Return the costs of the stages that the settings need; those in the cache cost nothing.

    Args:
        machine: what speeds are estimated from where none was measured; by default this one's products.
    """
    lengths, speeds = lengths_of(settings), speeds_of(settings, machine)
    costs = []
    for stage, address in addresses(settings).items():
        if is_complete(StageFolder(out, address), settings):
            costs.append(StageCost(stage, address.key, True, 0, 0, 0, 0, 0.0))
            continue
        work = stage_work(stage, settings, lengths)
        minutes = math.nan if speeds is None else work.seconds(*speeds) / 60
        costs.append(
            StageCost(stage, address.key, False, work.prompts, work.generated, work.scored, work.trained, minutes)
        )
    return costs


def minutes_text(minutes: float) -> str:
    """Minutes in print, `?` where they are not known."""
    return "?" if math.isnan(minutes) else f"{minutes:.1f}"


def time_words(minutes: float) -> str:
    """Say how long that is, for a sentence.

    >>> time_words(85.7), time_words(math.nan)
    ('about 1 h 25 min', 'time unknown')
    """
    return "time unknown" if math.isnan(minutes) else f"about {duration(60 * minutes)}"


def basis(settings: RunSettings) -> str:
    """Say in words what the minutes rest on."""
    speeds = speeds_of(settings, Machine(1.0, 1.0))
    if speeds is None:
        return f"the shapes of {settings.model.path} are not known here, so no time is estimated"
    if (day := speeds[0].measured) is not None:
        return f"by speeds of this model measured here on {day}"
    of = " on the processor, not on the GPU," if NVIDIA.exists() else ","
    return f"by two products of numpy{of} not measured; `vcppo plan --calibrate` measures this model here in a minute"


def networks_of(settings: RunSettings) -> tuple[Network, Network]:
    """Return policy and critic as one process computes them.

    Raises:
        ConfigError, CheckpointError: the shapes of the model are not known here.
    """
    compute, lora = settings.compute, settings.lora
    policy, critic = shapes_of(settings), critic_shapes_of(settings)
    return Network(policy, False, compute, lora, 1), Network(critic, True, compute, lora, 1)


def speeds_of(settings: RunSettings, machine: Machine | None = None) -> tuple[Speed, Speed] | None:
    """Return the speeds of policy and critic: measured here, or estimated; None where their shapes are not known."""
    try:
        policy, critic = networks_of(settings)
    except (ConfigError, CheckpointError):  # a model that nobody here has seen, or one of unknown names
        return None
    if (measured := stored_speed(policy, settings)) is not None:
        return measured, measured.for_network(policy, critic)
    machine = machine or Machine.here()
    return estimated_speed(policy, machine), estimated_speed(critic, machine)


@dataclass(frozen=True)
class StageWork:
    """Work of a stage, in tokens and optimiser steps; of what it scores and trains, a part is the critic's."""

    prompts: int
    written: tuple[tuple[Writing, int], ...]  # tokens of responses that are written alike
    scored: int
    trained: int
    scored_by_critic: int
    trained_by_critic: int
    updates: int = 0
    updates_of_critic: int = 0

    @property
    def generated(self) -> int:
        """Tokens of all responses that are written."""
        return sum(tokens for _, tokens in self.written)

    def seconds(self, policy: Speed, critic: Speed) -> float:
        """Seconds that it takes at these speeds."""
        by_policy = sum(policy.writing_s(writing) * tokens for writing, tokens in self.written)
        by_policy += policy.read_s * (self.prompts + self.scored - self.scored_by_critic)
        by_policy += policy.train_s * (self.trained - self.trained_by_critic) + policy.update_s * self.updates
        by_critic = critic.read_s * self.scored_by_critic + critic.train_s * self.trained_by_critic
        return by_policy + by_critic + critic.update_s * self.updates_of_critic


def stage_work(stage: str, settings: RunSettings, lengths: Lengths) -> StageWork:
    """Return what a stage does at most: generation of responses, and passes over prompts with them."""
    prompts, _, _ = stage_tokens(stage, settings, lengths.prompt)
    _, scored, trained = stage_tokens(stage, settings, lengths.prompt + lengths.written)
    by_critic = critic_tokens(stage, settings, lengths.prompt + lengths.written)
    written = tuple(written_tokens(stage, settings, lengths.written))
    return StageWork(prompts, written, scored, trained, *by_critic, *_updates(stage, settings))


def written_tokens(stage: str, settings: RunSettings, response_tokens: int) -> list[tuple[Writing, int]]:
    """Return a stage's generated tokens by how they are written: evaluations have their own rows and nucleus."""
    if stage == "preference":
        return written_tokens("rl", preference_settings(settings), response_tokens)
    generated, _, _ = stage_tokens(stage, settings, response_tokens)
    if stage == "evaluation":
        return [(evaluation_writing(settings, settings.evaluation.samples), generated)]
    evaluated = evaluated_tokens(settings, response_tokens) if stage == "rl" else 0
    during = evaluation_writing(settings, settings.evaluation.samples_during)
    return [(training_writing(stage, settings), generated - evaluated), (during, evaluated)]


def _updates(stage: str, settings: RunSettings) -> tuple[int, int]:
    """Optimiser steps of (policy, critic) in a stage."""
    if stage == "cold-start":
        return settings.cold_start.steps, 0
    if stage == "reward-model":
        return 0, settings.reward_model.steps
    if stage == "value-pretraining":
        return 0, pretraining_steps(settings)
    if stage == "preference":
        return _updates("rl", preference_settings(settings))
    if stage == "rl":
        updates = settings.steps * settings.policy.epochs * settings.policy.minibatches
        learns = settings.has_value_model and settings.critic.update_every != "never"
        return updates, updates * settings.critic.updates_per_policy_update if learns else 0
    return 0, 0


def pretraining_steps(settings: RunSettings) -> int:
    """Return the updates of value pretraining, at most."""
    pretrain = settings.pretrain
    return pretrain.max_steps if pretrain.steps == "converge" else pretrain.steps


def stage_tokens(stage: str, settings: RunSettings, response_tokens: int) -> tuple[int, int, int]:
    """Return (generated, scored without gradient, trained) tokens of a stage; `response_tokens` per response."""
    pretrain, model = settings.pretrain, settings.reward_model
    if stage == "cold-start":
        cold_start = settings.cold_start  # its last draw goes beyond an update's tokens, by half of it
        beyond = min(DEMONSTRATIONS_AT_ONCE // 2 * response_tokens, cold_start.batch_tokens // 2)
        return 0, 0, cold_start.steps * (cold_start.batch_tokens + beyond)
    if stage == "reward-model":
        pairs = model.steps * model.pairs * 2 * response_tokens
        count = max(model.responses // model.responses_per_prompt, 1) * model.responses_per_prompt
        return count * response_tokens, pairs, pairs
    if stage == "answers":
        return sum(settings.fixed_responses) * response_tokens, 0, 0
    if stage == "value-pretraining":
        steps = pretraining_steps(settings)
        sampled = steps * pretrain.batch * response_tokens
        all_tokens = pretrain.held_out * response_tokens + (
            sampled if pretrain.fresh_rollouts else pretrain.pool * response_tokens
        )
        judged = 2 * all_tokens if settings.token_reward.kind != "none" else 0  # by the reference and RTO's DPO policy
        valued, _ = critic_tokens(stage, settings, response_tokens)
        return sampled if pretrain.fresh_rollouts else 0, valued + judged, sampled
    if stage == "forecast-answers":
        return settings.record.forecast_responses * response_tokens, 0, 0
    if stage == "forecast":
        return forecast_tokens(settings, response_tokens)
    if stage == "preference":
        return stage_tokens("rl", preference_settings(settings), response_tokens)
    if stage == "rl":
        return rl_tokens(settings, response_tokens)
    return held_out_problems(settings) * settings.evaluation.samples * response_tokens, 0, 0


def critic_tokens(stage: str, settings: RunSettings, response_tokens: int) -> tuple[int, int]:
    """Return what the critic has of a stage's tokens: (scored without gradient, trained)."""
    pretrain, model = settings.pretrain, settings.reward_model
    if stage == "reward-model":
        pairs = model.steps * model.pairs * 2 * response_tokens
        return pairs, pairs
    if stage == "value-pretraining":
        steps = pretraining_steps(settings)
        sampled = steps * pretrain.batch * response_tokens
        measured = (steps // pretrain.evaluate_every + 1) * pretrain.held_out * response_tokens
        return measured + (sampled if pretrain.gae_lambda < 1 else 0), sampled
    if stage == "rl" and settings.has_critic:
        retained = (
            settings.steps * settings.responses_per_iteration * response_tokens * (1 - settings.select.prune_rate)
        )
        learns = settings.critic.update_every != "never"
        updates = learns * settings.critic.updates_per_policy_update
        return int(retained), int(retained * settings.policy.epochs * updates)
    return 0, 0


def forecast_tokens(settings: RunSettings, response_tokens: int) -> tuple[int, int, int]:
    """Return the same of the forecast: its models read once, then one forward and backward pass and one of three."""
    tokens = settings.record.forecast_responses * response_tokens
    readers = settings.has_critic + settings.needs_reference + (settings.token_reward.kind != "none")
    steps = steps_of(settings) if settings.samples_continuations else 0
    continued = tokens * settings.vine.samples * (steps + 1) // 2 if steps else 0
    backward = 4 * tokens  # two thirds of training on a token each, the other third being the forward pass
    return continued, tokens * readers, 2 * tokens + (backward - 2 * tokens) * 2 // 3


def rl_tokens(settings: RunSettings, response_tokens: int) -> tuple[int, int, int]:
    """Return the same of the RL stage. Dynamic sampling and early stops depend on the policy: as if there were none."""
    tokens = settings.steps * settings.responses_per_iteration * response_tokens
    evaluated = evaluated_tokens(settings, response_tokens)
    retained = tokens * (1.0 - settings.select.prune_rate)
    pairs, vine = settings.loss.pairs, settings.samples_continuations
    readers = settings.has_critic + settings.needs_reference + (settings.token_reward.kind != "none")
    readers += settings.checks_mismatch  # the trainer scores the generator's tokens again
    learns = settings.has_value_model and settings.critic.update_every != "never"
    networks = 1 + learns * settings.critic.updates_per_policy_update
    steps = steps_of(settings)
    continued = tokens * settings.vine.samples * (steps + 1) / 2 if vine else 0.0  # half a response is left on average
    scored = retained * (readers + pairs * settings.policy.epochs) + tokens * vine
    return int(tokens + evaluated + continued), int(scored), int(retained * settings.policy.epochs * networks)


def evaluated_tokens(settings: RunSettings, response_tokens: int) -> int:
    """Return tokens that are generated in evaluations between iterations."""
    every = settings.evaluation.every
    evaluations = -(-settings.steps // every) if every else 0
    return evaluations * held_out_problems(settings) * settings.evaluation.samples_during * response_tokens


def steps_of(settings: RunSettings) -> int:
    """Return states of a response that continuations start from; how many lines a model writes is not known before."""
    at_most = settings.vine.max_steps
    steps = at_most or WRITTEN_LINES if isinstance(settings.task, MathsTaskSettings) else settings.task.steps_of_thought
    return min(at_most or steps, steps)
