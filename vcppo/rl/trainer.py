"""One iteration of RL, beside the paper's algorithm. Methods differ in settings alone, which fill its places.

What happens in a place stands in a module by itself: sampler.py, rewards.py, selection.py, continuations.py,
advantages.py, policy_update.py, critic_update.py, reference.py.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor

from vcppo.maths.advantages import whiten
from vcppo.maths.shaping import DebiasedMoments, RunningMoments
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import copy_weights, load_weights
from vcppo.rl.advantages import Advantages, actor_advantages, critic_returns, trained_tokens
from vcppo.rl.alarm import KlAlarm
from vcppo.rl.alignment import alignment_metrics
from vcppo.rl.continuations import StepValues, step_values
from vcppo.rl.costs import Clock, Costs, reset_peak_memory
from vcppo.rl.critic_update import CriticUpdate, update_critic
from vcppo.rl.demonstrations import demonstrations
from vcppo.rl.early_warning import EarlyWarning, advice, observed
from vcppo.rl.metrics import iteration_metrics
from vcppo.rl.mismatch import Recomputed, recompute_logprobs
from vcppo.rl.models import Models
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.policy_update import PolicyUpdate, update_policy
from vcppo.rl.push import push_metrics
from vcppo.rl.reading import read_outputs
from vcppo.rl.reference import Reference
from vcppo.rl.rewards import Rewards, Shaping, place_rewards, returns_known, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.rl.selection import choose, until_mixed
from vcppo.rl.true_values import measure_truth
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.fixed import ALIGNMENT_CHUNKS, ALIGNMENT_MEMORY
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch, cut_to

MEASURED_BESIDE = ("true_values", "alignment")  # parts of an iteration that are no training, and cost a run nothing
VALUE_DECAY = 0.99995  # of running moments of returns (arXiv:2404.10719, its code)


@dataclass(frozen=True)
class Minibatch:
    """Rows of a batch that one update of each model is made of."""

    number: tuple[int, int]  # epoch, and its number in it
    rows: Tensor  # of the batch
    batch: RolloutBatch | None  # these rows; None if there are none


@dataclass(frozen=True)
class CriticTargets:
    """What a critic learns, in its units: normalised, where it learns such returns."""

    old_values: Tensor  # [B, T] at rollout time
    returns: Tensor  # [B, T]


@dataclass(frozen=True)
class Updates:
    """What an iteration's updates report."""

    policy: list[PolicyUpdate]
    critic: list[CriticUpdate]

    def drifted_beyond(self, threshold: float) -> bool:
        """Whether the policy's latest update saw it further from the one that sampled than ESPO allows."""
        deviation = self.policy[-1].deviation if self.policy else None
        return deviation is not None and not deviation <= threshold  # NaN has drifted


@dataclass(frozen=True)
class Iteration:
    """Data and results of one iteration."""

    rollouts: list[Rollout]  # of the batch, in its order
    batch: RolloutBatch  # scores shaped
    rows: Tensor  # [K] that were trained on; outputs and estimates of others are meaningless
    rows_with_return: Tensor  # [N] those of them whose Monte-Carlo return is known, all but bootstrapped ones
    outputs: ModelOutputs
    steps: StepValues | None  # VinePPO's
    rewards: Rewards
    advantages: Advantages
    returns: Tensor  # [B, T] targets of the critic
    true_values: dict[str, list[Any]] | None  # columns of the table, in iterations that have one
    metrics: dict[str, float]


class Trainer:
    """Policy, critic, reference, their optimisers, and the iteration they have come to.

    Args:
        sampler: its engine samples with `models.rollout_policy`'s weights.
        shaping: how scores are shaped when RL begins.
    """

    def __init__(self, settings: RunSettings, models: Models, sampler: Sampler, shaping: Shaping) -> None:
        self.settings, self.models, self.sampler, self.shaping = settings, models, sampler, shaping
        self.policy, self.critic = models.policy, models.critic
        self.reference = None if models.reference is None else Reference(models.reference, settings.reference)
        updates_planned = settings.policy.epochs * settings.policy.minibatches
        policy_iterations = max(settings.steps - settings.critic.policy_starts_after, 0)
        self.policy_optimiser = Optimiser(self.policy, settings.policy, policy_iterations * updates_planned)
        if self.critic is not None:
            interval = settings.critic.update_every
            critic_iterations = 0 if interval == "never" else -(-settings.steps // interval)
            critic_updates = critic_iterations * updates_planned * settings.critic.updates_per_policy_update
            self.critic_optimiser = Optimiser(self.critic, settings.critic_model, critic_updates)
        self.value_moments = DebiasedMoments(VALUE_DECAY)
        self.costs = Costs()
        self.step = 0
        self.kl_alarm, self.early_warning = KlAlarm(), EarlyWarning()
        reset_peak_memory()

    def iterate(self) -> Iteration:
        """One iteration of Algorithm 1 (arXiv:2503.01491), the critic having been pretrained.

        The algorithm, each iteration:
            (a) sample responses with the current policy, and score them
            (b) V(s_t) of every token under the critic
            (c) advantages A_t by GAE with lambda_actor                          (line 5)
            (d) value targets R_t by GAE with lambda_critic                      (line 6)
            (e) for each epoch, for each minibatch:
            (f)     one step of the policy up the clipped surrogate of A_t
            (g)     one step of the critic down the squared error of V(s_t) to R_t
            (h) the policy that samples is the updated one

        Lines without a letter are places that other methods fill: continuations from the steps of a response (VinePPO),
        log-probabilities computed again where generator and trainer differ, responses that are not trained on.
        """
        settings, clock, rates = self.settings, Clock(), self._learning_rates()
        with clock.of("generate"):
            rollouts, sampled = self._roll_out()  # (a)
            batch, has_return = self._score_and_shape(rollouts)  # (a)
            steps = self._continue(rollouts, batch)
        with clock.of("score"):
            recomputed = self._old_logprobs(batch)
            batch = recomputed.batch
            units = choose(batch, settings, rng_for(settings.seed, "rl", "select", self.step))
            rows = units.flatten().sort().values
            outputs = self._forward(rollouts, batch, rows, steps)  # (b)
            rewards = place_rewards(batch, outputs, settings)  # the score on the last token, penalties
            advantages = actor_advantages(batch, rewards, outputs, rows, settings)  # (c)
            returns = critic_returns(batch, rewards, outputs, settings)  # (d)
        with clock.of("true_values"):  # before the policy changes, and counted in no costs
            with_return = rows[has_return[rows]]
            truth = measure_truth(
                rollouts,
                batch,
                rows,
                with_return,
                outputs,
                steps,
                rewards,
                self.shaping,
                policy=self.models.rollout_policy,
                sampler=self.sampler,
                settings=settings,
                step=self.step,
            )
        with clock.of("alignment"):  # likewise
            alignment = self._alignment(batch, with_return, advantages, rewards)
        with clock.of("update"):
            updates, targets = Updates([], []), self._critic_targets(batch, rows, outputs, returns)
            for minibatch in self._minibatches(batch, units):  # (e)
                self._step_policy(minibatch, advantages.final, outputs, recomputed.importance, updates)  # (f)
                self._step_critic(minibatch, targets, updates)  # (g)
            alarm = self.kl_alarm.watch(updates.policy, settings, step=self.step)
            now = observed(sampled, alignment.get("alignment/score_z", math.nan))
            warning = self.early_warning.watch(now, step=self.step, advice=lambda rule: advice(rule, settings))
            self.step += 1
            self._refresh()  # (h)
        measured = iteration_metrics(
            sampled, batch, rows, with_return, outputs, rewards, advantages, updates.policy, updates.critic, settings
        )
        task, tokenizer = self.sampler.task, self.sampler.tokenizer
        push = {} if settings.loss.pairs else push_metrics(rollouts, batch, rows, advantages.raw, task, tokenizer)
        metrics = {**measured, **push, **truth.metrics, **alignment, **alarm, **warning}
        metrics |= {**rates, **recomputed.metrics, **self._spent(clock)}
        return Iteration(
            rollouts, batch, rows, with_return, outputs, steps, rewards, advantages, returns, truth.table, metrics
        )

    def _roll_out(self) -> tuple[list[Rollout], list[Rollout]]:
        """(the batch's responses, all that were sampled for it)."""
        settings, select = self.settings, self.settings.select
        size, groups = settings.rollout.samples_per_prompt, settings.rollout.prompts * settings.refill

        def sample(number: int) -> list[Rollout]:
            retry = ("again", number) if number else ()
            rng = rng_for(settings.seed, "rl", "prompts", self.step, *retry)
            prompts = self.sampler.task.training_prompts(groups, rng)
            return self.sampler.roll_out(
                [prompt for prompt in prompts for _ in range(size)],
                seed=seed_for(settings.seed, "rl", "rollout", self.step, *retry),
            )

        if select.dynamic_sampling:
            rollouts, sampled = until_mixed(sample, groups, size, select.max_rounds)
        else:
            rollouts = sampled = sample(0)
        self.costs.answers += len(sampled)
        self.costs.generated_tokens += sum(len(rollout.generation.tokens) for rollout in sampled)
        return rollouts, sampled

    def _score_and_shape(self, rollouts: list[Rollout]) -> tuple[RolloutBatch, Tensor]:
        """(the batch with shaped scores, [B] whether a response's Monte-Carlo return is known)."""
        batch = collate(rollouts, verdict_scores(rollouts, self.settings.reward))
        has_return = returns_known(batch, self.settings)
        self.shaping = self.shaping.updated(batch, has_return)
        return dataclasses.replace(batch, scores=self.shaping.of(batch)), has_return

    def _continue(self, rollouts: list[Rollout], batch: RolloutBatch) -> StepValues | None:
        """Sample VinePPO's continuations."""
        if not self.settings.samples_continuations:
            return None
        steps = step_values(
            rollouts,
            batch.scores,
            self.shaping,
            self.settings.vine,
            sampler=self.sampler,
            seed=seed_for(self.settings.seed, "rl", "continuations", self.step),
        )
        self.costs.generated_tokens += steps.generated_tokens
        self.costs.forward_tokens += steps.read_tokens
        return steps

    def _old_logprobs(self, batch: RolloutBatch) -> Recomputed:
        """Recompute them; the batch as it is, where generator and trainer are known to agree."""
        if not self.settings.checks_mismatch:
            return Recomputed(batch, None, {})
        self.costs.forward_tokens += int(batch.total_lengths.sum())
        return recompute_logprobs(self.models.rollout_policy, batch, self.settings, step=self.step)

    def _forward(
        self, rollouts: list[Rollout], batch: RolloutBatch, rows: Tensor, steps: StepValues | None
    ) -> ModelOutputs:
        return read_outputs(
            self.models,
            rollouts,
            batch,
            rows,
            steps,
            value_moments=self.value_moments,
            sampler=self.sampler,
            settings=self.settings,
            step=self.step,
            costs=self.costs,
        )

    def _alignment(
        self, batch: RolloutBatch, rows: Tensor, advantages: Advantages, rewards: Rewards
    ) -> dict[str, float]:
        """Measure where the gradient of these advantages points, in iterations that shall: no weight moves."""
        settings, interval = self.settings, self.settings.alignment_interval
        if not interval or self.step % interval or not len(rows):
            return {}
        part = batch.take(rows)
        return alignment_metrics(
            self.models.rollout_policy,
            part,
            cut_to(advantages.raw, rows, part),
            cut_to(rewards.monte_carlo, rows, part),
            temperature=settings.rollout.temperature,
            max_tokens=settings.micro_batch_tokens,
            chunks=ALIGNMENT_CHUNKS,
            memory=ALIGNMENT_MEMORY,
            rng=np.random.default_rng(seed_for(settings.seed, "rl", "alignment", self.step)),
        )

    def _minibatches(self, batch: RolloutBatch, units: Tensor) -> Iterator[Minibatch]:
        """Epoch by epoch, whole units of responses in an order drawn anew for each; some may have no rows."""
        settings = self.settings
        for epoch in range(settings.policy.epochs):
            order = torch.randperm(len(units), generator=rng_for(settings.seed, "rl", "shuffle", self.step, epoch))
            for number, places in enumerate(order.tensor_split(settings.policy.minibatches)):
                rows = units[places].flatten()
                yield Minibatch((epoch, number), rows, batch.take(rows) if len(rows) else None)

    def _step_policy(
        self,
        minibatch: Minibatch,
        advantages: Tensor,
        outputs: ModelOutputs,
        importance: Tensor | None,
        updates: Updates,
    ) -> None:
        """One update of the policy, or none: while its critic learns alone, and once it has drifted too far (ESPO).

        The schedule counts the updates that were planned: one without rows, or after drifting, passes without a step.
        """
        settings, part = self.settings, minibatch.batch
        if self.step < settings.critic.policy_starts_after:
            return
        if part is None or updates.drifted_beyond(settings.early_stop.threshold):
            self.policy_optimiser.skip()
            return
        advantages = cut_to(advantages, minibatch.rows, part)
        if settings.advantage.whiten == "minibatch":
            advantages = whiten(advantages, part.response_mask)
            if settings.advantage.clip is not None:
                advantages = advantages.clamp(-settings.advantage.clip, settings.advantage.clip)
        if importance is not None:  # every loss that allows it is linear in the advantages
            advantages = advantages * cut_to(importance, minibatch.rows, part)
        imitated = None
        if settings.policy.demonstration_nll:
            rng = rng_for(settings.seed, "rl", "demonstrations", self.step, *minibatch.number)
            imitated = demonstrations(self.sampler.task, self.sampler.tokenizer, rng)
        update = update_policy(
            self.policy,
            self.policy_optimiser,
            part,
            advantages,
            None if outputs.ref_logprobs is None else cut_to(outputs.ref_logprobs, minibatch.rows, part),
            settings,
            fixed_length=self.sampler.sampling.max_tokens,
            costs=self.costs,
            demonstrations=imitated,
        )
        updates.policy.append(update)

    def _critic_targets(
        self, batch: RolloutBatch, rows: Tensor, outputs: ModelOutputs, returns: Tensor
    ) -> CriticTargets | None:
        """What the critic learns in this iteration, in its units, by moments updated first; None if it learns nothing.

        Old values are the critic's outputs, unchanged: a clip around them leaves a critic that has not moved free,
        whatever these returns have done to the moments since.
        """
        interval = self.settings.critic.update_every
        if outputs.critic_outputs is None or interval == "never" or self.step % interval:
            return None
        if self.settings.critic.normalise_returns:
            self.value_moments = self.value_moments.updated(returns, trained_tokens(batch, rows))
            returns = self.value_moments.normalise(returns)
        return CriticTargets(outputs.critic_outputs, returns)

    def _step_critic(self, minibatch: Minibatch, targets: CriticTargets | None, updates: Updates) -> None:
        """`critic.updates_per_policy_update` updates of the critic; without rows its schedule alone goes on."""
        if targets is None:
            return
        chosen, part = self.settings.critic, minibatch.batch
        assert self.critic is not None
        assert chosen.init != "exact"
        for _ in range(chosen.updates_per_policy_update):
            if part is None:
                self.critic_optimiser.skip()
                continue
            self.costs.backward_tokens += int(part.total_lengths.sum())
            update = update_critic(
                self.critic,
                self.critic_optimiser,
                part,
                cut_to(targets.old_values, minibatch.rows, part),
                cut_to(targets.returns, minibatch.rows, part),
                kind=chosen.value_loss,
                clip_range=chosen.value_clip_range,
                aggregation=chosen.aggregation,
                fixed_length=self.sampler.sampling.max_tokens,
                max_tokens=self.settings.micro_batch_tokens,
            )
            updates.critic.append(update)

    def _refresh(self) -> None:
        """Refresh the rollout policy and the reference from the policy, as the settings want it."""
        interval = self.settings.rollout.refresh_every
        if interval != "never" and self.step % interval == 0:
            if self.models.rollout_policy is not self.policy:
                copy_weights(self.models.rollout_policy, self.policy)
            self.sampler.engine.update_weights(self.models.rollout_policy)
        if self.reference is not None:
            self.reference.follow(self.policy, self.step)

    def _learning_rates(self) -> dict[str, float]:
        """Learning rates of the next updates."""
        rates = {"policy/learning_rate": self.policy_optimiser.learning_rate}
        if self.critic is not None and self.settings.critic.update_every != "never":
            rates["value/learning_rate"] = self.critic_optimiser.learning_rate
        return rates

    def _spent(self, clock: Clock) -> dict[str, float]:
        """Costs since the run began, this iteration included, its seconds by part, and memory."""
        self.costs.elapsed_s += sum(seconds for part, seconds in clock.seconds.items() if part not in MEASURED_BESIDE)
        memory = {"system/rss_mb": psutil.Process().memory_info().rss / 2**20}
        return {**self.costs.metrics(), **clock.metrics(), **memory}

    def state(self) -> dict[str, Any]:
        """Return all that resuming needs."""
        state: dict[str, Any] = {
            "step": self.step,
            "policy": self.policy.state_dict(),
            "policy_optimiser": self.policy_optimiser.state_dict(),
            "costs": dataclasses.asdict(self.costs),
            "early_warning": self.early_warning.state(),
            "reward_moments": dataclasses.asdict(self.shaping.moments),
            "value_moments": dataclasses.asdict(self.value_moments),
            "reference": None if self.reference is None else self.reference.state_dict(),
        }
        if self.models.rollout_policy is not self.policy:
            state["sampler"] = self.models.rollout_policy.state_dict()
        if self.critic is not None:
            state |= {"critic": self.critic.state_dict(), "critic_optimiser": self.critic_optimiser.state_dict()}
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Restore from what `state` returned."""
        self.step = state["step"]
        load_weights(self.policy, state["policy"])
        self.policy_optimiser.load_state_dict(state["policy_optimiser"])
        self.costs = Costs(**state["costs"])
        if "early_warning" in state:  # else of a version that did not warn
            self.early_warning.load(state["early_warning"], self.step)
        self.shaping = dataclasses.replace(self.shaping, moments=RunningMoments(**state["reward_moments"]))
        self.value_moments = DebiasedMoments(**state["value_moments"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        if self.models.rollout_policy is not self.policy:
            load_weights(self.models.rollout_policy, state["sampler"])
        if self.critic is not None:
            load_weights(self.critic, state["critic"])
            self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.sampler.engine.update_weights(self.models.rollout_policy)
