"""Stage 1, cold start: supervised fine-tuning of a fresh (or given) policy on the task's demonstrations."""

import time

import torch
from torch import Tensor
from torch.nn import functional

from vcppo import models
from vcppo.checkpoint import load_state, save_model, save_state
from vcppo.optimiser import Optimiser
from vcppo.seeding import rng_for
from vcppo.stages.context import StageContext
from vcppo.stages.demonstrations import draw
from vcppo.stages.sampling import micro_batches

CHECKPOINT_EVERY = 50
LOG_EVERY = 10


def cold_start(context: StageContext) -> dict[str, float]:
    """Train `policy/`; the loss is over the demonstration's answer, its mean over the update's tokens."""
    settings, task, folder = context.settings, context.task, context.folder
    chosen = settings.cold_start
    if settings.model.path is None:
        tokenizer = task.tokenizer()
        policy = models.new_policy(settings.model, tokenizer, max_length=task.max_tokens + 64, seed=settings.base_seed)
    else:
        tokenizer = models.load_tokenizer(settings.model.path)
        policy = models.load_policy(settings.model.path)
    optimiser = Optimiser(policy, chosen, chosen.steps)
    journal = folder.journal
    state = load_state(folder.path / "state.pt")
    if state is not None:
        policy.load_state_dict(state["policy"])
        optimiser.load_state_dict(state["optimiser"])
    journal.truncate(state["records"] if state else 0)

    for step in range(optimiser.taken, chosen.steps):
        began = time.perf_counter()
        sequences, answer_starts = draw(task, tokenizer, chosen.batch_tokens, rng_for(settings.base_seed, "sft", step))
        lengths = torch.tensor([len(s) for s in sequences])
        answer_tokens = int((lengths - torch.tensor(answer_starts)).sum())
        total = 0.0
        for rows in micro_batches(lengths, settings.micro_batch_tokens):
            input_ids, targets = _pad([sequences[i] for i in rows], [answer_starts[i] for i in rows])
            logits = policy(input_ids=input_ids, use_cache=False).logits[:, :-1].float()
            loss = functional.cross_entropy(logits.flatten(0, 1), targets[:, 1:].flatten(), reduction="sum")
            (loss / answer_tokens).backward()
            total += float(loss.detach())
        rate = optimiser.learning_rate
        norm = optimiser.step()
        if step % LOG_EVERY == 0 or step + 1 == chosen.steps:
            journal.metrics(
                step,
                {
                    "cold_start/loss": total / answer_tokens,
                    "cold_start/grad_norm": norm,
                    "cold_start/learning_rate": rate,
                    "time/iteration_s": time.perf_counter() - began,
                },
            )
        if (step + 1) % CHECKPOINT_EVERY == 0:
            records = {"records": journal.count}
            save_state(
                folder.path / "state.pt",
                {"policy": policy.state_dict(), "optimiser": optimiser.state_dict(), **records},
            )
    save_model(policy, tokenizer, folder.path / "policy")
    return {"steps": float(chosen.steps)}


def _pad(sequences: list[Tensor], answer_starts: list[int]) -> tuple[Tensor, Tensor]:
    """([B, S] ids, [B, S] targets with -100 outside the answers)."""
    input_ids = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
    columns = torch.arange(input_ids.shape[1])[None]
    lengths = torch.tensor([len(s) for s in sequences])[:, None]
    inside = (columns >= torch.tensor(answer_starts)[:, None]) & (columns < lengths)
    return input_ids, torch.where(inside, input_ids, -100)
