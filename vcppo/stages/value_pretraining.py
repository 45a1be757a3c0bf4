"""Stage 3, value pretraining: Monte-Carlo returns of the fixed policy (arXiv:2503.01491, section 4.1).

The returns are those that RL will meet: scores shaped alike, by running moments that RL goes on with; RTO's rewards on
tokens (a KL penalty is 0 here, the fixed policy being the reference); and no truncated response, where RL has V in
place of its score or drops it.

The stage can be extended: a run that asks for 40 updates takes the checkpoint at 40 of a run that went to 80, and one
that asks for more goes on where the last one stopped. `converge` stops once the held-out loss has settled, and takes
the critic with the lowest. The responses are generated once and reused (`pretrain.fresh_rollouts` samples new ones for
each update).
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import torch
from torch import Tensor

from vcppo.errors import CheckpointError
from vcppo.maths.diagnostics import explained_variance, value_bias
from vcppo.maths.losses import AGGREGATIONS, denominators, value_loss
from vcppo.maths.settling import Measurement, first_phase_end
from vcppo.models.checkpoints import remove_state, save_model, save_state
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import load_weights
from vcppo.rl.critic_tables import critic_tables
from vcppo.rl.critic_update import read_values, update_critic
from vcppo.rl.exact_values import Response, exact_values, refuse_credit
from vcppo.rl.pretraining_targets import (
    TokenRewardModels,
    ValueTargets,
    has_target,
    mixed_returns,
    rows_with_targets,
    value_targets,
)
from vcppo.rl.rewards import verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.rl.true_values import error_metrics
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.rules import has_exact_values
from vcppo.stages.answers import response_prompts
from vcppo.stages.context import StageContext
from vcppo.stages.shared.critic_start import first_shaping, start_of_critic
from vcppo.stages.shared.fixed_prompts import fixed_prompts, training_prompts
from vcppo.stages.shared.resuming import cut_back, move_state_aside, usable_state
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.store.pretrained_critics import (
    TrainingEnd,
    add_request,
    chosen_step,
    critic_folder,
    critic_is_saved,
    end_of,
    end_without_moments,
    measurements_in,
    saved_states,
    step_of,
    thin,
)


def token_reward_models(context: StageContext) -> TokenRewardModels | None:
    """Load them; None without token rewards."""
    if context.settings.token_reward.kind == "none":
        return None
    reference, dpo_policy = context.load_first_policy(), context.load_preference_policy()
    return TokenRewardModels(reference, dpo_policy, context.task, context.tokenizer)


class Pretraining:
    """Pretraining of one critic: model, optimiser, held-out responses, journal."""

    def __init__(self, context: StageContext) -> None:
        self.context, self.settings, self.folder = context, context.settings, context.folder.path
        self.critic = start_of_critic(context)
        self.optimiser = Optimiser(self.critic, self.settings.pretrain, self.settings.pretrain.max_steps)
        self.limit = context.sampling.max_tokens
        raw = load_responses(context.earlier["answers"].path)
        self.shaping = first_shaping(context, raw)
        models = token_reward_models(context)
        targets = value_targets(dataclasses.replace(raw, scores=self.shaping.of(raw)), models, self.settings)
        self.token_reward_models = models if self.settings.pretrain.fresh_rollouts else None
        training = len(raw.scores) - self.settings.pretrain.held_out
        self.pool = None if self.settings.pretrain.fresh_rollouts else self._part(targets, 0, training)
        self.held_out = self._part(targets, training, len(raw.scores))
        self.held_out_rows = self._rows(targets, training, len(raw.scores))
        self.journal = context.folder.journal
        self.logged = 0  # updates that the journal holds; a rerun of them logs nothing again
        self.between = self.folder / "state.pt"  # between two critics, by time

    def _rows(self, targets: ValueTargets, start: int, end: int) -> Tensor:
        """The rows that have targets among these."""
        batch = targets.batch.take(torch.arange(start, end))
        return start + rows_with_targets(batch, self.settings, self.limit)

    def _part(self, targets: ValueTargets, start: int, end: int) -> ValueTargets:
        return targets.take(self._rows(targets, start, end))

    @functools.cached_property
    def true_values(self) -> Tensor | None:
        """[B, T] true values of the held-out responses under the fixed policy, where the task allows.

        Raises:
            CheckpointError: the responses are not to the prompts that the settings draw.
            DataError: they have partial credit.
        """
        if not has_exact_values(self.settings):
            return None
        context, batch = self.context, self.held_out.batch
        refuse_credit(batch, self.settings.reward)
        prompts = response_prompts(context)
        asked = [prompts[row] for row in self.held_out_rows.tolist()]
        ends = zip(batch.prompt_lengths.tolist(), batch.total_lengths.tolist(), strict=True)
        responses = [
            Response(prompt, tuple(ids[:start]), tuple(ids[start:end]))
            for prompt, ids, (start, end) in zip(asked, batch.input_ids.tolist(), ends, strict=True)
        ]
        if context.task.encode(asked, context.tokenizer) != [response.prompt_tokens for response in responses]:
            path = responses_file(context.earlier["answers"].path)
            raise CheckpointError(f"{path}: not responses to the prompts that its settings draw, expected those")
        policy = context.load_first_policy()
        return exact_values(
            policy,
            responses,
            sampler=context.sampler(policy),
            reward=self.settings.reward,
            max_tokens=self.settings.micro_batch_tokens,
        ).values()

    def go_to(self, target: int | None) -> None:
        """Train to exactly `target` updates, or, given None, until it is decided which critic to take."""
        self._resume(target)
        every, limit = self.settings.pretrain.evaluate_every, self.settings.pretrain.max_steps
        checkpoints = self.context.checkpoint_clock()
        if not self.logged:
            self._measure()
        while self._unfinished(target):
            metrics = self._train_once()
            step = self.optimiser.taken
            if step > self.logged:
                self.logged = step
                self.journal.metrics(step, metrics)
                if step % every == 0 or step == limit:
                    self._measure()
            saves_critic = step % every == 0 or step in (limit, target)
            due = checkpoints.is_due(saves_critic)
            if saves_critic:
                self._save()
            elif due:
                save_state(self.between, {**self._state(), "logged": self.logged})
        if target == 0:
            self._save()

    def _unfinished(self, target: int | None) -> bool:
        if target is None:  # what the main process has measured is in its journal
            return world().from_main(world().is_main and chosen_step(self.folder, self.settings.pretrain) is None)
        return self.optimiser.taken < target

    def _resume(self, target: int | None) -> None:
        """Load the latest saved state that is not past the target; cut the journal back to the latest of all."""
        latest, step = self._latest(None)
        between = usable_state(self.context, self.between, self.between.name)
        ended = world().from_main(self._ended_after(step))
        ends = [(step, 0 if latest is None else latest["records"])]  # updates logged, and records of the journal
        ends += [] if ended is None else [(ended.updates, ended.records)]
        ends += [] if between is None else [(between["logged"], between["records"])]
        ends.sort(reverse=True)
        logged = next((updates for updates, records in ends if cut_back(self.journal, records)), None)
        if logged is None:
            names = [path.parent.name for path in world().from_main(saved_states(self.folder))]
            reason = f"{self.journal.path}: has fewer records than the states beside it count"
            move_state_aside(self.context, [*names, self.between.name, self.journal.path.name], reason)
            latest, step, between, logged = None, 0, None, 0
            cut_back(self.journal, 0)
        self.logged = logged
        state, taken = (latest, step) if target is None or step <= target else self._latest(target)
        if between is not None and between["logged"] <= logged:
            in_reach = target is None or between["optimiser"]["taken"] <= target
            state = between if in_reach and between["optimiser"]["taken"] > taken else state
        if state is not None:
            load_weights(self.critic, state["critic"])
            self.optimiser.load_state_dict(state["optimiser"])

    def _ended_after(self, step: int) -> TrainingEnd | None:
        """Return the end of training beyond a step, if the moments of then have been removed and the journal has it."""
        end = end_without_moments(self.folder)
        return end if end is not None and end.updates > step and self.journal.count >= end.records else None

    def _latest(self, target: int | None) -> tuple[dict[str, Any] | None, int]:
        """Return the latest state that can be read and is not past the target, and its step; (None, 0) without one."""
        for path in reversed(world().from_main(saved_states(self.folder))):
            if target is None or step_of(path.parent) <= target:
                state = usable_state(self.context, path, path.parent.name)
                if state is not None:
                    return state, step_of(path.parent)
        return None, 0

    def _train_once(self) -> dict[str, float]:
        settings, step = self.settings, self.optimiser.taken
        targets = self._targets(step)
        if targets is None:
            self.optimiser.skip()
            return {}
        returns = targets.returns
        if settings.pretrain.gae_lambda < 1:
            values = read_values(self.critic, targets.batch, settings.micro_batch_tokens)
            chosen = {"gamma": settings.gae.gamma, "gae_lambda": settings.pretrain.gae_lambda}
            returns = mixed_returns(targets, values, **chosen)
        update = update_critic(
            self.critic,
            self.optimiser,
            targets.batch,
            values=returns,  # rollout-time values: unused by the plain squared error
            returns=returns,
            kind="mse",
            clip_range=1.0,
            aggregation=settings.critic.aggregation,
            fixed_length=self.limit,
            max_tokens=settings.micro_batch_tokens,
        )
        return {"pretrain/loss": update.loss, "pretrain/grad_norm": update.grad_norm}

    def _targets(self, step: int) -> ValueTargets | None:
        """Targets of one update: a slice of a shuffled pool, or new responses of the fixed policy (maybe none)."""
        settings = self.settings
        size = settings.pretrain.batch
        if self.pool is None:
            prompts = training_prompts(self.context, size, self._held_out_texts, "pretrain", "prompts", step)
            rollouts = self._sampler().roll_out(prompts, seed=seed_for(settings.run_seed, "pretrain", "answers", step))
            batch = collate(rollouts, verdict_scores(rollouts, settings.reward))
            rows = has_target(batch, settings).nonzero()[:, 0]
            scored = dataclasses.replace(batch, scores=self.shaping.of(batch))
            return value_targets(scored.take(rows), self.token_reward_models, settings) if len(rows) else None
        count = len(self.pool.batch.scores)
        places = range(step * size, (step + 1) * size)
        places_in_pool = [
            _shuffle(settings.run_seed, epoch, count)[place % count]
            for epoch, group in itertools.groupby(places, key=lambda place: place // count)
            for place in group
        ]
        return self.pool.take(torch.stack(places_in_pool))

    @functools.cached_property
    def _held_out_texts(self) -> set[str]:
        """Return the texts that fresh prompts must not have."""
        if self.settings.pretrain.held_out_prompts == "shared":
            return set()
        return {prompt.text for prompt in fixed_prompts(self.context).held_out}

    def _sampler(self) -> Sampler:
        if not hasattr(self, "_fixed"):
            self._fixed = self.context.sampler(self.context.load_first_policy())
        return self._fixed

    def _measure(self) -> None:
        """Held-out loss, explained variance and bias against Monte-Carlo returns; tables by position.

        Where true values can be computed, the error against them too, and the explained variance that they have. Beside
        them the loss of the best constant: the first measurement that is as good has ended the first phase, and notes
        its step.
        """
        step = self.optimiser.taken
        batch, returns, settings = self.held_out.batch, self.held_out.returns, self.settings
        values = read_values(self.critic, batch, settings.micro_batch_tokens)
        measured = {
            "pretrain/held_out_loss": self._held_out_loss(values),
            "pretrain/explained_variance": explained_variance(values, returns, batch.response_mask),
            "pretrain/value_bias": value_bias(values, returns, batch.response_mask),
            "pretrain/constant_loss": self._constant_loss,
        }
        earlier = measurements_in(self.journal.path)
        this = Measurement(step, measured["pretrain/held_out_loss"], math.nan, self._constant_loss)
        if first_phase_end(earlier) is None and first_phase_end([this]) is not None:
            measured["pretrain/first_phase_updates"] = float(step)
        if (truth := self.true_values) is not None:
            measured |= error_metrics(values, truth, batch.response_mask, stage="pretrain")
            measured["pretrain/explained_variance_ceiling"] = explained_variance(truth, returns, batch.response_mask)
        self.journal.metrics(step, measured)
        for name, columns in critic_tables(values, returns, batch.response_mask, limit=self.limit).items():
            self.journal.table(name, step, columns)

    @functools.cached_property
    def _constant_loss(self) -> float:
        """Held-out loss of the best constant: the mean of returns, weighted as the loss weighs tokens."""
        mask, returns = self.held_out.batch.response_mask, self.held_out.returns
        weigh = AGGREGATIONS[self.settings.critic.aggregation]
        over = denominators(mask, fixed_length=self.limit)
        mean = weigh(returns, mask, over) / weigh(torch.ones_like(returns), mask, over)
        return self._held_out_loss(torch.ones_like(returns) * mean)

    def _held_out_loss(self, values: Tensor) -> float:
        mask = self.held_out.batch.response_mask
        over = denominators(mask, fixed_length=self.limit)
        aggregation = self.settings.critic.aggregation
        given = (values, values, self.held_out.returns, mask)
        return float(value_loss(*given, kind="mse", clip_range=1.0, aggregation=aggregation, over=over).loss)

    def _save(self) -> None:
        step = self.optimiser.taken
        path = critic_folder(self.folder, step)
        if world().from_main(not (path / "config.json").exists()):
            save_model(self.critic, self.context.tokenizer, path)
        save_state(path / "state.pt", self._state())
        if world().is_main:
            remove_state(self.between)
            thin(self.folder, training={step})
            self.context.folder.record()  # another cell may use this critic before the stage has ended
        world().wait()

    def _state(self) -> dict[str, Any]:
        return {
            "critic": self.critic.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "records": self.journal.sync(),
        }


def value_pretraining(context: StageContext) -> dict[str, float]:
    """Make the checkpoint that the settings request.

    Returns:
        steps: updates of the critic that RL starts from. Of `converge` also updates, those taken until it had settled,
        and first_phase_updates, those after which the critic was as good as the best constant, if it ever was.
    """
    chosen, folder = context.settings.pretrain, context.folder.path
    if world().is_main:
        add_request(folder, chosen)
    Pretraining(context).go_to(None if chosen.steps == "converge" else chosen.steps)
    measurements = measurements_in(folder / "journal.jsonl")
    end = end_of(measurements, chosen)
    assert end is not None
    if not world().from_main(critic_is_saved(folder, end.best)):  # the start, or what an earlier version did not save
        Pretraining(context).go_to(end.best)
    if world().is_main:
        thin(folder)
    result = {"steps": float(end.best)}
    if chosen.steps != "converge":
        return result
    first_phase = first_phase_end([m for m in measurements if m.step <= end.stopped])
    noted = {} if first_phase is None else {"first_phase_updates": float(first_phase)}
    return {**result, "updates": float(end.stopped), **noted}


def _shuffle(seed: int, epoch: int, count: int) -> Tensor:
    return torch.randperm(count, generator=rng_for(seed, "pretrain", "shuffle", epoch))
