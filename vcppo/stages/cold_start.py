"""Stage 1, cold start: supervised fine-tuning of a fresh (or given) policy on the task's demonstrations."""

import time

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model, save_state
from vcppo.models.distributed import world
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import load_weights
from vcppo.rl.demonstrations import batch_of, draw
from vcppo.seeding import rng_for
from vcppo.settings.fixed import STEPS_BETWEEN_STATES
from vcppo.stages.context import StageContext, fresh_positions
from vcppo.stages.shared.resuming import resume

LOG_EVERY = 10


def cold_start(context: StageContext) -> dict[str, float]:
    """Train `policy/`; the loss is over the demonstrations' responses, a mean over the update's tokens.

    With 0 steps nothing is saved: the policy is the model that was given, where it lies.
    """
    settings, task, folder = context.settings, context.task, context.folder
    chosen = settings.cold_start
    if chosen.steps == 0:
        return {"steps": 0.0}
    policy, tokenizer = _start(context)
    optimiser = Optimiser(policy, chosen, chosen.steps)
    journal = folder.journal
    state = resume(context, journal)
    if state is not None:
        load_weights(policy, state["policy"])
        optimiser.load_state_dict(state["optimiser"])
        del state  # a second copy of the weights

    checkpoints = context.checkpoint_clock()
    for step in range(optimiser.taken, chosen.steps):
        began = time.perf_counter()
        batch = batch_of(*draw(task, tokenizer, chosen.batch_tokens, rng_for(settings.base_seed, "sft", step)))
        response_tokens, total = int(batch.lengths.sum()), 0.0
        for micro_batch in forward.micro_batches_of_rank(policy, batch.total_lengths, settings.micro_batch_tokens):
            logprobs, _ = forward.response_logprobs(policy, batch.take(micro_batch.rows), 1.0)
            loss = -logprobs.sum() / response_tokens
            (micro_batch.weight * loss).backward()
            total += float(loss.detach()) * micro_batch.counts
        rate = optimiser.learning_rate
        norm = optimiser.step()
        if step % LOG_EVERY == 0 or step + 1 == chosen.steps:
            journal.metrics(
                step,
                {
                    "cold_start/loss": world().total({"loss": total})["loss"],
                    "cold_start/grad_norm": norm,
                    "cold_start/learning_rate": rate,
                    "time/iteration_s": time.perf_counter() - began,
                },
            )
        if checkpoints.is_due((step + 1) % STEPS_BETWEEN_STATES == 0):
            save_state(
                folder.path / "state.pt",
                {"policy": policy.state_dict(), "optimiser": optimiser.state_dict(), "records": journal.sync()},
            )
    save_model(policy, tokenizer, folder.path / "policy")
    return {"steps": float(chosen.steps)}


def _start(context: StageContext) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    settings, task = context.settings, context.task
    path = settings.model.path
    if path is not None:
        tokenizer = context.load_tokenizer(path)
        return context.load_policy(path), tokenizer
    tokenizer = task.tokenizer()
    fresh = loading.new_policy(settings.model, tokenizer, max_length=fresh_positions(task), seed=settings.base_seed)
    return context.prepared(fresh), tokenizer
