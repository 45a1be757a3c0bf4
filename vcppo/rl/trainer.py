"""One iteration of RL, beside the paper's algorithm. Methods differ in settings alone, which fill its places.

What happens in a place stands in a module by itself: sampler.py, rewards.py, selection.py, continuations.py,
advantages.py, measuring.py, policy_update.py, critic_update.py, reference.py. What passes between them is in
experience.py.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vcppo.maths.advantages import whiten
from vcppo.maths.shaping import DebiasedMoments, RunningMoments
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import copy_weights, load_weights
from vcppo.rl.advantages import actor_advantages, critic_returns, trained_tokens
from vcppo.rl.alarm import KlAlarm
from vcppo.rl.continuations import StepValues, step_values
from vcppo.rl.costs import Clock, Costs, reset_peak_memory
from vcppo.rl.critic_update import update_critic
from vcppo.rl.demonstrations import demonstrations
from vcppo.rl.early_warning import EarlyWarning, advice, observed
from vcppo.rl.experience import CriticTargets, Experience, Iteration, Minibatch, Updates
from vcppo.rl.measuring import Beside, cost_metrics, measure_beside, training_metrics
from vcppo.rl.mismatch import Recomputed, recompute_logprobs
from vcppo.rl.models import Models
from vcppo.rl.outputs import ModelOutputs
from vcppo.rl.policy_update import update_policy
from vcppo.rl.reading import read_outputs
from vcppo.rl.reference import Reference
from vcppo.rl.rewards import Shaping, place_rewards, returns_known, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.rl.selection import choose, until_mixed
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.run import RunSettings
from vcppo.types import Rollout, RolloutBatch, cut_to

VALUE_DECAY = 0.99995  # of running moments of returns (arXiv:2404.10719, its code)


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
            batch, importance = recomputed.batch, recomputed.importance
            units = choose(batch, settings, rng_for(settings.run_seed, "rl", "select", self.step))
            rows = units.flatten().sort().values
            with_return = rows[has_return[rows]]
            outputs = self._forward(rollouts, batch, rows, steps)  # (b)
            rewards = place_rewards(batch, outputs, settings)  # the score on the last token, penalties
            advantages = actor_advantages(batch, rewards, outputs, rows, settings)  # (c)
            returns = critic_returns(batch, rewards, outputs, settings)  # (d)
        experience = Experience(
            sampled, rollouts, batch, rows, with_return, outputs, steps, rewards, advantages, returns, importance
        )
        beside = self._measure_beside(experience, clock)
        with clock.of("update"):
            updates, targets = Updates([], []), self._critic_targets(experience)
            for minibatch in self._minibatches(batch, units):  # (e)
                self._step_policy(minibatch, experience, updates)  # (f)
                self._step_critic(minibatch, targets, updates)  # (g)
            warnings = self._watch(experience, beside, updates)
            self.step += 1
            self._refresh()  # (h)
        metrics = training_metrics(experience, updates, self.sampler, settings)
        metrics |= {**beside.truth.metrics, **beside.alignment, **warnings, **rates, **recomputed.metrics}
        metrics |= cost_metrics(self.costs, clock)
        return Iteration(**vars(experience), true_values=beside.truth.table, metrics=metrics)

    def _roll_out(self) -> tuple[list[Rollout], list[Rollout]]:
        """(the batch's responses, all that were sampled for it)."""
        settings, select = self.settings, self.settings.select
        size, groups = settings.rollout.samples_per_prompt, settings.rollout.prompts * settings.refill

        def sample(number: int) -> list[Rollout]:
            retry = ("again", number) if number else ()
            rng = rng_for(settings.run_seed, "rl", "prompts", self.step, *retry)
            prompts = self.sampler.task.training_prompts(groups, rng)
            return self.sampler.roll_out(
                [prompt for prompt in prompts for _ in range(size)],
                seed=seed_for(settings.run_seed, "rl", "rollout", self.step, *retry),
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
            seed=seed_for(self.settings.run_seed, "rl", "continuations", self.step),
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

    def _measure_beside(self, experience: Experience, clock: Clock) -> Beside:
        return measure_beside(
            experience, self.shaping, self.models, self.sampler, self.settings, step=self.step, clock=clock
        )

    def _watch(self, experience: Experience, beside: Beside, updates: Updates) -> dict[str, float]:
        """Metrics of what watches over a run: KL of its updates, early warnings."""
        settings, score_z = self.settings, beside.alignment.get("alignment/score_z", math.nan)
        alarm = self.kl_alarm.watch(updates.policy, settings, step=self.step)
        now = observed(experience.sampled, score_z)
        warning = self.early_warning.watch(now, step=self.step, advice=lambda rule: advice(rule, settings))
        return {**alarm, **warning}

    def _minibatches(self, batch: RolloutBatch, units: Tensor) -> Iterator[Minibatch]:
        """Epoch by epoch, whole units of responses in an order drawn anew for each; some may have no rows."""
        settings = self.settings
        for epoch in range(settings.policy.epochs):
            order = torch.randperm(len(units), generator=rng_for(settings.run_seed, "rl", "shuffle", self.step, epoch))
            for number, places in enumerate(order.tensor_split(settings.policy.minibatches)):
                rows = units[places].flatten()
                yield Minibatch((epoch, number), rows, batch.take(rows) if len(rows) else None)

    def _step_policy(self, minibatch: Minibatch, experience: Experience, updates: Updates) -> None:
        """One update of the policy, or none: while its critic learns alone, and once it has drifted too far (ESPO).

        The schedule counts the updates that were planned: one without rows, or after drifting, passes without a step.
        """
        settings, part = self.settings, minibatch.batch
        if self.step < settings.critic.policy_starts_after:
            return
        if part is None or updates.drifted_beyond(settings.early_stop.threshold):
            self.policy_optimiser.skip()
            return
        advantages = cut_to(experience.advantages.final, minibatch.rows, part)
        if settings.advantage.whiten == "minibatch":
            advantages = whiten(advantages, part.response_mask)
            if settings.advantage.clip is not None:
                advantages = advantages.clamp(-settings.advantage.clip, settings.advantage.clip)
        if experience.importance is not None:  # every loss that allows it is linear in the advantages
            advantages = advantages * cut_to(experience.importance, minibatch.rows, part)
        imitated = None
        if settings.policy.demonstration_nll:
            rng = rng_for(settings.run_seed, "rl", "demonstrations", self.step, *minibatch.number)
            imitated = demonstrations(self.sampler.task, self.sampler.tokenizer, rng)
        reference = experience.outputs.ref_logprobs
        update = update_policy(
            self.policy,
            self.policy_optimiser,
            part,
            advantages,
            None if reference is None else cut_to(reference, minibatch.rows, part),
            settings,
            fixed_length=self.sampler.sampling.max_tokens,
            costs=self.costs,
            demonstrations=imitated,
        )
        updates.policy.append(update)

    def _critic_targets(self, experience: Experience) -> CriticTargets | None:
        """Targets of the critic in this iteration, in its units, by moments updated first; None if it learns nothing.

        Old values are the critic's outputs, unchanged: a clip around them leaves a critic that has not moved free,
        whatever these returns have done to the moments since.
        """
        interval, outputs, returns = self.settings.critic.update_every, experience.outputs, experience.returns
        if outputs.critic_outputs is None or interval == "never" or self.step % interval:
            return None
        if self.settings.critic.normalise_returns:
            self.value_moments = self.value_moments.updated(returns, trained_tokens(experience.batch, experience.rows))
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
