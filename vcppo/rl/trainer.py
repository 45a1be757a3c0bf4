"""One iteration of RL, slot by slot: sample, shape, choose, read, estimate, update. Methods differ in settings alone.

What a slot does is said in its own room: stages/rewards.py, selection.py, continuations.py, estimates.py,
policy_update.py, critic_update.py, reference.py.
"""

import dataclasses
import sys
import time
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from vcppo.maths.advantages import whiten
from vcppo.maths.mismatch import importance_weights, mismatch
from vcppo.maths.shaping import DebiasedMoments, RunningMoments
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import copy_weights, load_weights
from vcppo.rl.advantages import Estimates, Readings, compared_rows, estimate, trained_tokens
from vcppo.rl.continuations import StepValues, segments_of, step_starts, step_values
from vcppo.rl.costs import Costs, reset_peak_memory
from vcppo.rl.critic_update import CriticUpdate, read_final_values, read_values, update_critic
from vcppo.rl.demonstrations import demonstrations
from vcppo.rl.metrics import (
    advantage_metrics,
    critic_metrics,
    policy_metrics,
    rollout_metrics,
    update_kl,
    value_metrics,
)
from vcppo.rl.policy_update import PolicyUpdate, read_logprobs, update_policy
from vcppo.rl.reference import Reference
from vcppo.rl.rewards import worth_their_score
from vcppo.rl.sampler import collate, roll_out
from vcppo.rl.selection import choose, until_mixed
from vcppo.rl.true_values import true_values
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.rules import bootstraps
from vcppo.stages.context import StageContext
from vcppo.stages.value_pretraining import critic_for, first_shaping
from vcppo.types import Rollout, RolloutBatch, cut_to

VALUE_DECAY = 0.99995  # of running moments of returns (arXiv:2404.10719, its code)


@dataclass(frozen=True)
class Iteration:
    """What one iteration saw and did."""

    rollouts: list[Rollout]  # of the batch, in its order
    batch: RolloutBatch  # scores shaped
    kept: Tensor  # [K] rows that were trained on; what is read and estimated of others means nothing
    known: Tensor  # [N] those of them whose Monte-Carlo return is known, all but bootstrapped ones
    readings: Readings
    steps: StepValues | None  # VinePPO's
    estimates: Estimates
    true_values: dict[str, list[Any]] | None  # columns of the table, in iterations that measure them
    metrics: dict[str, float]


class Trainer:
    """Policy, critic, reference, their optimisers, and the iteration they have come to."""

    def __init__(self, context: StageContext) -> None:
        settings = context.settings
        self.context, self.settings = context, settings
        self.sampling = context.sampling
        first = context.load_first_policy
        self.policy = first()
        updates_planned = settings.policy.epochs * settings.policy.minibatches
        policy_iterations = max(settings.steps - settings.critic.policy_starts_after, 0)
        self.policy_optimiser = Optimiser(self.policy, settings.policy, policy_iterations * updates_planned)
        self.reference = Reference(first(), settings.reference) if settings.needs_reference else None
        self.dpo_policy = context.load_preference_policy() if settings.token_reward.kind != "none" else None
        self.sampler = self.policy if settings.rollout.refresh_every == 1 else first()
        self.engine = context.engine(self.sampler)
        self.pretrain_steps = 0
        self.critic = None
        if settings.has_critic:
            self.critic, self.pretrain_steps = critic_for(context)
            every = settings.critic.update_every
            critic_iterations = 0 if every == "never" else -(-settings.steps // every)
            critic_updates = critic_iterations * updates_planned * settings.critic.updates_per_policy_update
            self.critic_optimiser = Optimiser(self.critic, settings.critic, critic_updates)
        self.shaping = first_shaping(context)
        self.value_moments = DebiasedMoments(VALUE_DECAY)
        self.costs = Costs()
        self.step = 0
        self.kl_told = 0.0  # the largest that was warned of; again at its double
        reset_peak_memory()

    def iterate(self) -> Iteration:
        """Sample, shape, choose, read, estimate, update."""
        settings, step = self.settings, self.step
        began = time.perf_counter()
        rollouts, sampled = self._sample()
        batch = collate(rollouts)
        scored_rows = worth_their_score(batch, settings)
        self.shaping = self.shaping.seen(batch, scored_rows)
        batch = dataclasses.replace(batch, scores=self.shaping.of(batch))
        steps = self._continue(rollouts, batch)
        generated = time.perf_counter()

        batch, weights, mismatched = self._old_logprobs(batch)
        units = choose(batch, settings, rng_for(settings.seed, "rl", "select", step))
        kept = units.flatten().sort().values
        known = kept[scored_rows[kept]]
        readings = self._read(rollouts, batch, kept, steps)
        estimates = estimate(batch, readings, kept, settings)
        scored = time.perf_counter()
        truth = self._true_values(rollouts, kept, readings, steps)  # before the policy changes, and on nobody's account
        measured = time.perf_counter()

        rates = {"policy/learning_rate": self.policy_optimiser.learning_rate}
        if self.critic is not None and settings.critic.update_every != "never":
            rates["value/learning_rate"] = self.critic_optimiser.learning_rate
        policy_updates, critic_updates = self._update(batch, kept, units, readings, estimates, weights)
        alarm = self._watch_kl(policy_updates)
        self.step = step + 1
        self._refresh()
        updated = time.perf_counter()

        self.costs.elapsed_s += updated - began - (measured - scored)
        metrics = {
            **rollout_metrics(sampled),
            **advantage_metrics(batch, kept, estimates, settings.gae.gamma),
            **policy_metrics(policy_updates),
            **alarm,
            **rates,
            **mismatched,
            **self.costs.metrics(),
            "select/kept": float(len(kept)),
            "time/generate_s": generated - began,
            "time/score_s": scored - generated,
            "time/update_s": updated - measured,
            "time/true_values_s": measured - scored,
            "system/rss_mb": psutil.Process().memory_info().rss / 2**20,
        }
        if readings.values is not None and len(known):
            metrics |= value_metrics(readings.values[known], estimates.monte_carlo[known], batch.response_mask[known])
        metrics |= critic_metrics(critic_updates)
        return Iteration(rollouts, batch, kept, known, readings, steps, estimates, truth, metrics)

    def _sample(self) -> tuple[list[Rollout], list[Rollout]]:
        """(the batch's answers, all that were sampled for it)."""
        settings, select = self.settings, self.settings.select
        size = settings.rollout.samples_per_prompt

        def sample(number: int) -> list[Rollout]:
            again = ("again", number) if number else ()
            prompts = self.context.task.training_prompts(
                settings.rollout.prompts * settings.refill, rng_for(settings.seed, "rl", "prompts", self.step, *again)
            )
            return roll_out(
                [prompt for prompt in prompts for _ in range(size)],
                task=self.context.task,
                tokenizer=self.context.tokenizer,
                engine=self.engine,
                sampling=self.sampling,
                reward=settings.reward,
                seed=seed_for(settings.seed, "rl", "rollout", self.step, *again),
            )

        if select.dynamic_sampling:
            groups = settings.rollout.prompts * settings.refill
            rollouts, sampled = until_mixed(sample, groups, size, select.max_rounds)
        else:
            rollouts = sampled = sample(0)
        self.costs.answers += len(sampled)
        self.costs.generated_tokens += sum(len(rollout.generation.tokens) for rollout in sampled)
        return rollouts, sampled

    def _old_logprobs(self, batch: RolloutBatch) -> tuple[RolloutBatch, Tensor | None, dict[str, float]]:
        """(the batch with the trainer's own log-probabilities, importance weights [B, T], what to log of them).

        The batch comes back as it was, and no weights, where generator and trainer are known to agree.
        """
        settings = self.settings
        if not settings.checks_mismatch:
            return batch, None, {}
        chosen, mask = settings.mismatch, batch.response_mask
        own = read_logprobs(
            self.sampler, batch, temperature=settings.rollout.temperature, max_tokens=settings.micro_batch_tokens
        )
        self.costs.forward_tokens += int(batch.total_lengths.sum())
        found = mismatch(own, batch.old_logprobs, mask)
        told = {"mismatch/mean": found.mean, "mismatch/max": found.largest, "mismatch/kl": found.kl}
        told["mismatch/alarm"] = float(found.mean > chosen.alarm)
        if found.mean > chosen.alarm and world().is_main:
            print(
                f"iteration {self.step}: generator and trainer differ by {found.mean:.3g} nats a token (at most "
                f"{found.largest:.3g}), mismatch.alarm is {chosen.alarm:g}: stale weights, or another precision?",
                file=sys.stderr,
            )
        weights = None
        if chosen.cap is not None:
            weights = importance_weights(own, batch.old_logprobs, mask, cap=chosen.cap)
            told["mismatch/weight_mean"] = float(weights[mask].mean())
            told["mismatch/capped_share"] = float((weights[mask] >= chosen.cap).float().mean())
        return dataclasses.replace(batch, old_logprobs=own), weights, told

    def _continue(self, rollouts: list[Rollout], batch: RolloutBatch) -> StepValues | None:
        """VinePPO's auxiliary samples."""
        if self.settings.advantage.estimator != "vine":
            return None
        steps = step_values(
            rollouts,
            batch.scores,
            self.shaping,
            self.settings.vine,
            context=self.context,
            engine=self.engine,
            sampling=self.sampling,
            seed=seed_for(self.settings.seed, "rl", "continuations", self.step),
        )
        self.costs.generated_tokens += steps.generated_tokens
        self.costs.forward_tokens += steps.read_tokens
        return steps

    def _read(self, rollouts: list[Rollout], batch: RolloutBatch, kept: Tensor, steps: StepValues | None) -> Readings:
        """What models say of the rows that will be trained on, and of others only what those are compared by."""
        settings, limit = self.settings, self.settings.micro_batch_tokens
        tokens, temperature = int(batch.total_lengths[kept].sum()), settings.rollout.temperature
        critic_outputs = values = final_values = None
        if self.critic is not None:
            critic_outputs = read_values(self.critic, batch, limit, kept)
            values = self._in_reward(critic_outputs, batch.response_mask)
            self.costs.forward_tokens += tokens
            if bootstraps(settings):
                final_values = self._in_reward(read_final_values(self.critic, batch, limit, kept))
                self.costs.forward_tokens += tokens
        ref_logprobs = dpo_logprobs = None
        rows = compared_rows(batch, kept, settings)
        tokens = int(batch.total_lengths[rows].sum())
        if self.reference is not None:
            ref_logprobs = read_logprobs(
                self.reference.policy, batch, temperature=temperature, max_tokens=limit, rows=rows
            )
            self.costs.forward_tokens += tokens
        if self.dpo_policy is not None:
            dpo_logprobs = read_logprobs(self.dpo_policy, batch, temperature=temperature, max_tokens=limit, rows=rows)
            self.costs.forward_tokens += tokens
        segments = None if steps is None else steps.segments
        if settings.token_reward.kind == "semi-rto":
            segments = segments_of(step_starts(rollouts, self.context), batch.response_mask.shape[1])
        return Readings(
            values=values,
            critic_outputs=critic_outputs,
            final_values=final_values,
            ref_logprobs=ref_logprobs,
            dpo_logprobs=dpo_logprobs,
            segments=segments,
            step_values=None if steps is None else steps.step_values,
        )

    def _in_reward(self, read: Tensor, response_mask: Tensor | None = None) -> Tensor:
        """What the critic says, in units of reward."""
        if not self.settings.critic.normalise_returns:
            return read
        values = self.value_moments.denormalise(read)
        return values if response_mask is None else torch.where(response_mask, values, 0.0)

    def _true_values(
        self, rollouts: list[Rollout], kept: Tensor, readings: Readings, steps: StepValues | None
    ) -> dict[str, list[Any]] | None:
        record = self.settings.record
        nothing_to_compare = (readings.values is None and steps is None) or not len(kept)
        if record.truth_every == 0 or self.step % record.truth_every or nothing_to_compare:
            return None
        return true_values(
            rollouts,
            kept,
            readings.values,
            steps,
            self.shaping,
            record,
            context=self.context,
            engine=self.engine,
            sampling=self.sampling,
            seed=seed_for(self.settings.seed, "rl", "true values", self.step),
        )

    def _update(
        self,
        batch: RolloutBatch,
        kept: Tensor,
        units: Tensor,
        readings: Readings,
        estimates: Estimates,
        weights: Tensor | None,
    ) -> tuple[list[PolicyUpdate], list[CriticUpdate]]:
        """Minibatches of whole units, epoch after epoch; a policy that has drifted too far ends its part (ESPO).

        Both schedules count the updates that were planned: one that has no rows, or that the policy no longer makes,
        passes without a step.
        """
        settings = self.settings
        policy_updates: list[PolicyUpdate] = []
        critic_updates: list[CriticUpdate] = []
        scheduled = learns = self.step >= settings.critic.policy_starts_after
        values, returns = self._for_critic(batch, kept, readings, estimates)
        for epoch in range(settings.policy.epochs):
            order = torch.randperm(len(units), generator=rng_for(settings.seed, "rl", "shuffle", self.step, epoch))
            for number, places in enumerate(order.tensor_split(settings.policy.minibatches)):
                rows = units[places].flatten()
                if scheduled and not (learns and len(rows)):
                    self.policy_optimiser.skip()
                if not len(rows):
                    for _ in range(0 if values is None else settings.critic.updates_per_policy_update):
                        self.critic_optimiser.skip()
                    continue
                part = batch.take(rows)
                if learns:
                    policy_updates.append(
                        self._update_policy(part, rows, readings, estimates, weights, (epoch, number))
                    )
                    deviation, limit = policy_updates[-1].deviation, settings.early_stop.threshold
                    learns = deviation is None or deviation <= limit
                if values is not None:
                    critic_updates += [
                        self._update_critic(part, cut_to(values, rows, part), cut_to(returns, rows, part))
                        for _ in range(settings.critic.updates_per_policy_update)
                    ]
        return policy_updates, critic_updates

    def _watch_kl(self, updates: list[PolicyUpdate]) -> dict[str, float]:
        """Warn of updates that move the policy too far at once: the first time, and whenever it is twice as far."""
        if len(updates) < 2:
            return {}
        moved, chosen = update_kl(updates), self.settings.guard.kl_alarm
        if moved > max(chosen, 2 * self.kl_told):
            self.kl_told = moved
            if world().is_main:
                print(
                    f"iteration {self.step}: its updates moved the policy by {moved:.3g} nats a token, guard.kl_alarm "
                    f"is {chosen:g}: such steps destroy what it knows; lower policy.learning_rate "
                    f"({self.settings.policy.learning_rate:g}) or policy.epochs, or raise policy.warmup_steps",
                    file=sys.stderr,
                )
        return {"policy/kl_alarm": float(moved > chosen)}

    def _update_policy(
        self,
        part: RolloutBatch,
        rows: Tensor,
        readings: Readings,
        estimates: Estimates,
        weights: Tensor | None,
        which: tuple[int, int],
    ) -> PolicyUpdate:
        settings = self.settings
        advantages = cut_to(estimates.advantages, rows, part)
        if settings.advantage.whiten == "minibatch":
            advantages = whiten(advantages, part.response_mask)
            if settings.advantage.clip is not None:
                advantages = advantages.clamp(-settings.advantage.clip, settings.advantage.clip)
        if weights is not None:  # every loss that allows it is linear in the advantages
            advantages = advantages * cut_to(weights, rows, part)
        imitated = None
        if settings.policy.demonstration_nll:
            rng = rng_for(settings.seed, "rl", "demonstrations", self.step, *which)
            imitated = demonstrations(self.context.task, self.context.tokenizer, rng)
        return update_policy(
            self.policy,
            self.policy_optimiser,
            part,
            advantages,
            None if readings.ref_logprobs is None else cut_to(readings.ref_logprobs, rows, part),
            settings,
            fixed_length=self.sampling.max_tokens,
            costs=self.costs,
            demonstrations=imitated,
        )

    def _for_critic(
        self, batch: RolloutBatch, kept: Tensor, readings: Readings, estimates: Estimates
    ) -> tuple[Tensor | None, Tensor]:
        """(old values, returns) in the critic's own units; no values in an iteration that does not train it.

        Old values are what the critic said, as it said it: a clip around them leaves a critic that has not moved free,
        whatever these returns have done to the moments since.
        """
        every, returns = self.settings.critic.update_every, estimates.returns
        if readings.critic_outputs is None or every == "never" or self.step % every:
            return None, returns
        if self.settings.critic.normalise_returns:
            self.value_moments = self.value_moments.updated(returns, trained_tokens(batch, kept))
            returns = self.value_moments.normalise(returns)
        return readings.critic_outputs, returns

    def _update_critic(self, part: RolloutBatch, values: Tensor, returns: Tensor) -> CriticUpdate:
        assert self.critic is not None
        chosen = self.settings.critic
        self.costs.backward_tokens += int(part.total_lengths.sum())
        return update_critic(
            self.critic,
            self.critic_optimiser,
            part,
            values,
            returns,
            kind=chosen.value_loss,
            clip_range=chosen.value_clip_range,
            aggregation=chosen.aggregation,
            fixed_length=self.sampling.max_tokens,
            max_tokens=self.settings.micro_batch_tokens,
        )

    def _refresh(self) -> None:
        """Let the sampler and the reference follow the policy, as far as the settings want it."""
        every = self.settings.rollout.refresh_every
        if every != "never" and self.step % every == 0:
            if self.sampler is not self.policy:
                copy_weights(self.sampler, self.policy)
            self.engine.update_weights(self.sampler)
        if self.reference is not None:
            self.reference.follow(self.policy, self.step)

    def state(self) -> dict[str, Any]:
        """All that resuming needs."""
        state: dict[str, Any] = {
            "step": self.step,
            "policy": self.policy.state_dict(),
            "policy_optimiser": self.policy_optimiser.state_dict(),
            "costs": dataclasses.asdict(self.costs),
            "reward_moments": dataclasses.asdict(self.shaping.moments),
            "value_moments": dataclasses.asdict(self.value_moments),
            "reference": None if self.reference is None else self.reference.state_dict(),
        }
        if self.sampler is not self.policy:
            state["sampler"] = self.sampler.state_dict()
        if self.critic is not None:
            state |= {"critic": self.critic.state_dict(), "critic_optimiser": self.critic_optimiser.state_dict()}
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.step = state["step"]
        load_weights(self.policy, state["policy"])
        self.policy_optimiser.load_state_dict(state["policy_optimiser"])
        self.costs = Costs(**state["costs"])
        self.shaping = dataclasses.replace(self.shaping, moments=RunningMoments(**state["reward_moments"]))
        self.value_moments = DebiasedMoments(**state["value_moments"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        if self.sampler is not self.policy:
            load_weights(self.sampler, state["sampler"])
        if self.critic is not None:
            load_weights(self.critic, state["critic"])
            self.critic_optimiser.load_state_dict(state["critic_optimiser"])
        self.engine.update_weights(self.sampler)
