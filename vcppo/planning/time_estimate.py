"""What a run will cost before it starts: tokens and minutes by stage, from its settings and one matrix product."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vcppo.settings.critic_size import Size, size_of
from vcppo.settings.fixed import WRITTEN_LINES
from vcppo.settings.model import ModelSettings
from vcppo.settings.preference import preference_settings
from vcppo.settings.run import RunSettings
from vcppo.settings.task import MathsTaskSettings, TaskSettings
from vcppo.store.cache import StageFolder, addresses, is_complete
from vcppo.tasks.problems import evaluation_size

EFFICIENCY = 0.25  # of the matrix product's rate that training small models was measured to reach


@dataclass(frozen=True)
class StageCost:
    """One stage's share. Tokens are upper bounds: every response taken at the length of a whole chain."""

    stage: str
    address: str
    cached: bool
    generated_tokens: int
    forward_tokens: int
    trained_tokens: int
    minutes: float


def estimate_costs(settings: RunSettings, out: Path, *, flops_per_s: float | None = None) -> list[StageCost]:
    """Return the costs of the stages that the settings need; those in the cache cost nothing."""
    rate = (flops_per_s or matrix_product_rate()) * EFFICIENCY
    response_tokens = (
        chain_tokens(settings.task) if settings.rollout.max_tokens is None else settings.rollout.max_tokens
    )
    weights, of_critic = weight_count(settings.model), critic_weight_count(settings)
    costs = []
    for stage, address in addresses(settings).items():
        cached = is_complete(StageFolder(out, address), settings)
        generated, forward, trained = (0, 0, 0) if cached else stage_tokens(stage, settings, response_tokens)
        valued, learnt = (0, 0) if cached else critic_tokens(stage, settings, response_tokens)
        passes = weights * (2 * generated + 2 * forward + 6 * trained) + (of_critic - weights) * (
            2 * valued + 6 * learnt
        )
        minutes = passes / rate / 60
        costs.append(StageCost(stage, address.key, cached, generated, forward, trained, minutes))
    return costs


def stage_tokens(stage: str, settings: RunSettings, response_tokens: int) -> tuple[int, int, int]:
    """Return (generated, scored without gradient, trained) tokens of a stage; `response_tokens` per response."""
    pretrain, model = settings.pretrain, settings.reward_model
    if stage == "cold-start":
        return 0, 0, settings.cold_start.steps * settings.cold_start.batch_tokens
    if stage == "reward-model":
        pairs = model.steps * model.pairs * 2 * response_tokens
        return model.responses * response_tokens, pairs, pairs
    if stage == "answers":
        return sum(settings.fixed_responses) * response_tokens, 0, 0
    if stage == "value-pretraining":
        steps = pretrain.max_steps if pretrain.steps == "converge" else pretrain.steps
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
    pretrain = settings.pretrain
    if stage == "value-pretraining":
        steps = pretrain.max_steps if pretrain.steps == "converge" else pretrain.steps
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
    every = settings.evaluation.every
    evaluations = -(-settings.steps // every) if every else 0
    evaluated = evaluations * held_out_problems(settings) * settings.evaluation.samples_during * response_tokens
    retained = tokens * (1.0 - settings.select.prune_rate)
    pairs, vine = settings.loss.pairs, settings.samples_continuations
    readers = settings.has_critic + settings.needs_reference + (settings.token_reward.kind != "none")
    learns = settings.has_value_model and settings.critic.update_every != "never"
    networks = 1 + learns * settings.critic.updates_per_policy_update
    steps = steps_of(settings)
    continued = tokens * settings.vine.samples * (steps + 1) / 2 if vine else 0.0  # half a response is left on average
    scored = retained * (readers + pairs * settings.policy.epochs) + tokens * vine
    return int(tokens + evaluated + continued), int(scored), int(retained * settings.policy.epochs * networks)


def steps_of(settings: RunSettings) -> int:
    """Return states of a response that continuations start from; how many lines a model writes is not known before."""
    at_most = settings.vine.max_steps
    steps = at_most or WRITTEN_LINES if isinstance(settings.task, MathsTaskSettings) else settings.task.steps_of_thought
    return min(at_most or steps, steps)


def held_out_problems(settings: RunSettings) -> int:
    """Return the number of problems of an evaluation."""
    task = settings.task
    if isinstance(task, MathsTaskSettings):
        return evaluation_size(task.maths)
    return task.problems(settings.evaluation.problems)


def chain_tokens(task: TaskSettings) -> int:
    """Return the tokens of a response that thinks to the end."""
    return task.maths.max_tokens if isinstance(task, MathsTaskSettings) else task.response_tokens


def weight_count(model: ModelSettings) -> int:
    """Return the weights of the decoder's layers; embeddings of a small vocabulary are left out."""
    kv = model.hidden_size * model.kv_heads // model.heads
    attention = model.hidden_size * (2 * model.hidden_size + 2 * kv)
    return model.layers * (attention + 3 * model.hidden_size * model.intermediate_size)


def critic_weight_count(settings: RunSettings) -> int:
    """Return the same of the critic, which has the policy's shape unless it is a new network."""
    model, critic = settings.model, settings.critic
    if critic.init != "new":
        return weight_count(model)
    width = model.hidden_size // model.heads
    policy = Size(model.hidden_size, model.intermediate_size, model.layers, model.heads, model.kv_heads, width)
    size = size_of(critic, policy)
    changes = {
        name: getattr(size, name) for name in ("hidden_size", "intermediate_size", "layers", "heads", "kv_heads")
    }
    return weight_count(model.model_copy(update=changes))


def matrix_product_rate() -> float:
    """Return floating-point operations per second of a float32 matrix product here, the best of a few short tries."""
    size = 512
    x = np.ones((size, size), dtype=np.float32)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        x @ x
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best
