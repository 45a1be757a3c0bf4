"""Stage 4, RL: the PPO family on verified answers (arXiv:2503.01491, algorithm 1)."""

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from vcppo.checkpoint import load_state, save_model, save_state
from vcppo.engines.torch_engine import TorchEngine
from vcppo.errors import TrainingError
from vcppo.maths.advantages import whiten
from vcppo.maths.diagnostics import explained_variance, real_reward_share, value_bias
from vcppo.optimiser import Optimiser
from vcppo.seeding import rng_for, seed_for
from vcppo.stages.context import StageContext
from vcppo.stages.critic_update import CriticUpdate, read_final_values, read_values, update_critic
from vcppo.stages.estimates import Estimates, estimate
from vcppo.stages.evaluation import evaluate_policy
from vcppo.stages.policy_update import PolicyUpdate, read_logprobs, update_policy
from vcppo.stages.sampling import collate, roll_out, sampling_of
from vcppo.stages.value_pretraining import critic_for, critic_tables
from vcppo.types import Rollout, RolloutBatch, Verdict


class Trainer:
    """Policy, critic, their optimisers, and the iteration they have come to."""

    def __init__(self, context: StageContext) -> None:
        settings = context.settings
        self.context, self.settings = context, settings
        self.fixed_length = settings.rollout.max_tokens or context.task.max_tokens
        self.policy = context.load_first_policy()
        updates_an_iteration = settings.policy.epochs * settings.policy.minibatches
        policy_iterations = max(settings.steps - settings.critic.policy_starts_after, 0)
        self.policy_optimiser = Optimiser(self.policy, settings.policy, policy_iterations * updates_an_iteration)
        self.reference = context.load_first_policy() if settings.kl.placement != "none" else None
        self.engine = TorchEngine(self.policy)
        self.pretrain_steps = 0
        self.critic = None
        if settings.advantage.estimator == "gae":
            self.critic, self.pretrain_steps = critic_for(context)
            self.critic_optimiser = Optimiser(
                self.critic,
                settings.critic,
                settings.steps * updates_an_iteration * settings.critic.updates_per_policy_update,
            )
        self.generated_tokens = self.trained_tokens = 0
        self.step = 0

    def iterate(self) -> tuple[list[Rollout], RolloutBatch, Tensor | None, Estimates, dict[str, float]]:
        """Sample, verify, score, estimate, update; returns what it saw and what to log of it."""
        settings, step = self.settings, self.step
        began = time.perf_counter()
        rollouts = self._sample()
        generated = time.perf_counter()
        batch = collate(rollouts)
        limit = settings.micro_batch_tokens
        values = None if self.critic is None else read_values(self.critic, batch, limit)
        reference = None
        if self.reference is not None:
            reference = read_logprobs(self.reference, batch, temperature=settings.rollout.temperature, max_tokens=limit)
        estimates = estimate(batch, values, reference, self._final_values(batch), settings)
        scored = time.perf_counter()
        rates = {"policy/learning_rate": self.policy_optimiser.learning_rate}
        if self.critic is not None:
            rates["value/learning_rate"] = self.critic_optimiser.learning_rate
        policy_updates, critic_updates = self._update(batch, values, reference, estimates)
        self.engine.update_weights(self.policy)
        updated = time.perf_counter()
        tokens = int(batch.response_mask.sum())
        self.generated_tokens += tokens
        self.trained_tokens += tokens * settings.policy.epochs * bool(policy_updates)
        self.step = step + 1
        metrics = {
            **rollout_metrics(rollouts, batch),
            **advantage_metrics(batch, estimates, settings.gae.gamma),
            **_policy_metrics(policy_updates),
            **rates,
            "time/generate_s": generated - began,
            "time/score_s": scored - generated,
            "time/update_s": updated - scored,
            "system/generated_tokens": self.generated_tokens,
            "system/trained_tokens": self.trained_tokens,
            "system/rss_mb": psutil.Process().memory_info().rss / 2**20,
        }
        if values is not None:
            metrics |= value_metrics(values, estimates.monte_carlo, batch.response_mask)
            metrics |= _critic_metrics(critic_updates)
        return rollouts, batch, values, estimates, metrics

    def _sample(self) -> list[Rollout]:
        settings, task = self.settings, self.context.task
        prompts = task.training_prompts(settings.rollout.prompts, rng_for(settings.seed, "rl", "prompts", self.step))
        return roll_out(
            [prompt for prompt in prompts for _ in range(settings.rollout.samples_per_prompt)],
            task=task,
            tokenizer=self.context.tokenizer,
            engine=self.engine,
            sampling=sampling_of(settings.rollout, task),
            reward=settings.reward,
            seed=seed_for(settings.seed, "rl", "rollout", self.step),
        )

    def _final_values(self, batch: RolloutBatch) -> Tensor | None:
        if self.critic is None or not self.settings.gae.bootstrap_truncated:
            return None
        return read_final_values(self.critic, batch, self.settings.micro_batch_tokens)

    def _update(
        self, batch: RolloutBatch, values: Tensor | None, reference: Tensor | None, estimates: Estimates
    ) -> tuple[list[PolicyUpdate], list[CriticUpdate]]:
        settings = self.settings
        policy_updates: list[PolicyUpdate] = []
        critic_updates: list[CriticUpdate] = []
        for epoch in range(settings.policy.epochs):
            order = torch.randperm(
                len(batch.scores), generator=rng_for(settings.seed, "rl", "shuffle", self.step, epoch)
            )
            for rows in order.tensor_split(settings.policy.minibatches):
                part = batch.take(rows)
                width = part.response_mask.shape[1]
                if self.step >= settings.critic.policy_starts_after:
                    advantages = estimates.advantages[rows, :width]
                    if settings.advantage.whiten == "minibatch":
                        advantages = whiten(advantages, part.response_mask)
                    policy_updates.append(
                        update_policy(
                            self.policy,
                            self.policy_optimiser,
                            part,
                            advantages,
                            None if reference is None else reference[rows, :width],
                            settings,
                            fixed_length=self.fixed_length,
                        )
                    )
                if self.critic is None or values is None:
                    continue
                for _ in range(settings.critic.updates_per_policy_update):
                    critic_updates.append(
                        update_critic(
                            self.critic,
                            self.critic_optimiser,
                            part,
                            values[rows, :width],
                            estimates.returns[rows, :width],
                            kind=settings.critic.value_loss,
                            clip_range=settings.critic.value_clip_range,
                            aggregation=settings.critic.aggregation,
                            fixed_length=self.fixed_length,
                            max_tokens=settings.micro_batch_tokens,
                        )
                    )
        return policy_updates, critic_updates

    def state(self) -> dict[str, Any]:
        """All that resuming needs."""
        state: dict[str, Any] = {
            "step": self.step,
            "policy": self.policy.state_dict(),
            "policy_optimiser": self.policy_optimiser.state_dict(),
            "tokens": [self.generated_tokens, self.trained_tokens],
        }
        if self.critic is not None:
            state |= {"critic": self.critic.state_dict(), "critic_optimiser": self.critic_optimiser.state_dict()}
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.step = state["step"]
        self.policy.load_state_dict(state["policy"])
        self.policy_optimiser.load_state_dict(state["policy_optimiser"])
        self.generated_tokens, self.trained_tokens = state["tokens"]
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.engine.update_weights(self.policy)


def rl(context: StageContext) -> dict[str, float]:
    """Train `policy/` and `critic/` for `steps` iterations.

    Raises:
        TrainingError: see `update_policy`; the state of the last checkpoint stays in the folder.
    """
    settings, folder = context.settings, context.folder
    trainer = Trainer(context)
    journal = folder.journal
    state_path = folder.path / "state.pt"
    state = load_state(state_path)
    if state is not None:
        trainer.load(state)
    journal.truncate(state["records"] if state else 0)
    record, every = settings.record, settings.evaluation.every
    while trainer.step < settings.steps:
        began, step = time.perf_counter(), trainer.step
        if every and step % every == 0:
            results = evaluate_policy(trainer.policy, context, settings.evaluation.samples_during)
            journal.metrics(step, results.metrics(context.task.name))
        started = time.perf_counter()
        try:
            rollouts, batch, values, estimates, metrics = trainer.iterate()
        except TrainingError as error:
            raise TrainingError(f"RL iteration {step}: {error}; {_last_good(state_path)}") from None
        if values is not None and (step % record.positions_every == 0 or step + 1 == settings.steps):
            critic_tables(journal, step, values, estimates.monte_carlo, batch.response_mask, limit=trainer.fixed_length)
        if step % record.samples_every == 0 or step + 1 == settings.steps:
            journal.table("samples", step, samples_table(rollouts[: record.samples]))
        ended = time.perf_counter()
        parts = sum(metrics[f"time/{part}_s"] for part in ("generate", "score", "update"))
        timing = {"time/other_s": ended - started - parts, "time/evaluate_s": started - began}
        journal.metrics(step, {**metrics, **timing, "time/iteration_s": ended - began})
        if trainer.step % record.checkpoint_every == 0:
            save_state(state_path, {**trainer.state(), "records": journal.count})
    save_model(trainer.policy, context.tokenizer, folder.path / "policy")
    if trainer.critic is not None:
        save_model(trainer.critic, context.tokenizer, folder.path / "critic")
    return {"steps": float(settings.steps), "pretrain_steps_done": float(trainer.pretrain_steps)}


def rollout_metrics(rollouts: list[Rollout], batch: RolloutBatch) -> dict[str, float]:
    """What the policy did, over the answers of one iteration."""
    lengths = batch.lengths.float()
    low, high = torch.quantile(lengths, torch.tensor([0.1, 0.9])).tolist()
    verdicts = [rollout.verdict for rollout in rollouts]
    return {
        "rollout/accuracy": verdicts.count(Verdict.CORRECT) / len(verdicts),
        "rollout/unreadable_rate": verdicts.count(Verdict.UNREADABLE) / len(verdicts),
        "rollout/truncated_rate": float(batch.truncated.float().mean()),
        "rollout/reward_mean": float(batch.scores.mean()),
        "rollout/length_tokens": float(lengths.mean()),
        "rollout/length_p10_tokens": low,
        "rollout/length_p90_tokens": high,
    }


def advantage_metrics(batch: RolloutBatch, estimates: Estimates, gamma: float) -> dict[str, float]:
    """Moments of the advantages over generated tokens, and how much of them is the real reward (lambda^distance)."""
    live = estimates.advantages[batch.response_mask]
    return {
        "advantage/mean": float(live.mean()),
        "advantage/std": float(live.std(correction=0)),
        "advantage/real_reward_share": real_reward_share(
            batch.response_mask, gamma=gamma, gae_lambda=estimates.gae_lambda
        ),
    }


def value_metrics(values: Tensor, monte_carlo: Tensor, response_mask: Tensor) -> dict[str, float]:
    """The critic at rollout time against Monte-Carlo returns."""
    return {
        "value/explained_variance": explained_variance(values, monte_carlo, response_mask),
        "value/value_bias": value_bias(values, monte_carlo, response_mask),
        "value/mean": float(values[response_mask].mean()),
    }


def samples_table(rollouts: list[Rollout]) -> dict[str, list[str] | list[int]]:
    """Answers to read, with their verdicts."""
    return {
        "problem": [r.prompt.text for r in rollouts],
        "answer": [r.prompt.answer for r in rollouts],
        "response": [r.text for r in rollouts],
        "verdict": [str(r.verdict) for r in rollouts],
        "tokens": [len(r.generation.tokens) for r in rollouts],
    }


def _policy_metrics(updates: list[PolicyUpdate]) -> dict[str, float]:
    if not updates:
        return {}
    means = {f"policy/{name}": _mean([getattr(u, name) for u in updates]) for name in asdict(updates[0])}
    means["policy/ratio_max"] = max(u.ratio_max for u in updates)
    return means


def _critic_metrics(updates: list[CriticUpdate]) -> dict[str, float]:
    return {f"value/{name}": _mean([getattr(u, name) for u in updates]) for name in asdict(updates[0])}


def _mean(numbers: list[float]) -> float:
    return math.fsum(numbers) / len(numbers)


def _last_good(state_path: Path) -> str:
    state = load_state(state_path)
    return f"the last good state is iteration {state['step']}" if state else "no state was saved yet"
