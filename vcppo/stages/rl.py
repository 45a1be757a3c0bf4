"""Stage 4, RL: iterations, evaluations between them, tables, checkpoints (arXiv:2503.01491, algorithm 1)."""

import sys
import time
from pathlib import Path

from vcppo.errors import TrainingError
from vcppo.models.checkpoints import save_model, save_state, saved_number
from vcppo.models.distributed import world
from vcppo.rl.critic_tables import critic_tables
from vcppo.rl.metrics import samples_table
from vcppo.rl.models import Models
from vcppo.rl.trainer import Trainer
from vcppo.stages.context import StageContext
from vcppo.stages.evaluation import evaluate_policy
from vcppo.stages.shared.critic_start import critic_for, first_shaping
from vcppo.stages.shared.resuming import resume

PARTS = ("generate", "score", "true_values", "alignment", "update")  # of an iteration that a clock is held to


def rl(context: StageContext) -> dict[str, float]:
    """Train `policy/` and `critic/` for `steps` iterations, fewer where an early warning shall end them.

    Returns:
        `steps` that were taken, and the updates of value pretraining before them.

    Raises:
        TrainingError: see `update_policy`; the state of the last checkpoint stays in the folder.
    """
    settings, folder = context.settings, context.folder
    trainer, pretrain_steps = assemble(context)
    journal = folder.journal
    state_path = folder.path / "state.pt"
    state = resume(context, journal)
    if state is not None:
        trainer.load(state)
        del state  # a second copy of all weights
    record, every, checkpoints = settings.record, settings.evaluation.every, context.checkpoint_clock()
    while trainer.step < settings.steps and not stopped(trainer):
        began, step = time.perf_counter(), trainer.step
        if every and step % every == 0:
            results = evaluate_policy(trainer.policy, context, settings.evaluation.samples_during)
            journal.metrics(step, results.metrics(context.task.name))
        started = time.perf_counter()
        try:
            done = trainer.iterate()
        except TrainingError as error:
            raise TrainingError(f"iteration {step}: {error}; {_last_good(state_path)}") from None
        values, rows = done.outputs.values, done.rows_with_return
        last = trainer.step == settings.steps or stopped(trainer)
        if values is not None and len(rows) and (step % record.positions_every == 0 or last):
            of_rows = (values[rows], done.rewards.monte_carlo[rows], done.batch.response_mask[rows])
            for name, columns in critic_tables(*of_rows, limit=context.sampling.max_tokens).items():
                journal.table(name, step, columns)
        if done.true_values is not None:
            journal.table("true_values", step, done.true_values)
        if step % record.samples_every == 0 or last:
            journal.table("samples", step, samples_table(done.rollouts[: record.samples]))
        ended = time.perf_counter()
        parts = sum(done.metrics[f"time/{part}_s"] for part in PARTS)
        timing = {"time/other_s": ended - started - parts, "time/evaluate_s": started - began}
        journal.metrics(step, {**done.metrics, **timing, "time/iteration_s": ended - began})
        if checkpoints.is_due(trainer.step % record.checkpoint_every == 0):
            save_state(state_path, {**trainer.state(), "records": journal.sync()})
    save_model(trainer.policy, context.tokenizer, folder.path / "policy")
    if trainer.critic is not None:
        save_model(trainer.critic, context.tokenizer, folder.path / "critic")
    if stopped(trainer) and world().is_main:
        print(f"RL ends after iteration {trainer.step - 1}: guard.on_warning = stop", file=sys.stderr)
    return {"steps": float(trainer.step), "pretrain_steps_done": float(pretrain_steps)}


def stopped(trainer: Trainer) -> bool:
    """True if an early warning has ended the run."""
    return trainer.settings.guard.on_warning == "stop" and bool(trainer.early_warning.since)


def assemble(context: StageContext) -> tuple[Trainer, int]:
    """Build a trainer at its first iteration; also how many pretraining updates its critic has had."""
    settings, first = context.settings, context.load_first_policy
    policy = first()
    reference = first() if settings.needs_reference else None
    dpo_policy = context.load_preference_policy() if settings.token_reward.kind != "none" else None
    rollout_policy = policy if settings.rollout.refresh_every == 1 else first()
    sampler = context.sampler(rollout_policy)
    critic, pretrain_steps = critic_for(context) if settings.has_value_model else (None, 0)
    models = Models(policy, rollout_policy, critic, reference, dpo_policy)
    return Trainer(settings, models, sampler, first_shaping(context)), pretrain_steps


def _last_good(state_path: Path) -> str:
    step = saved_number(state_path, "step")
    return "no state was saved yet" if step is None else f"the last good state is iteration {step}"
