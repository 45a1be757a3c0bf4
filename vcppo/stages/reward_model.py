"""Stage 2, reward model: Bradley-Terry on correct and incorrect responses, scored at the last token only.

Its loss never sees unfinished responses, so its values of them are an accident. PPO that starts its critic from it
reads exactly those (arXiv:2503.01491, section 3.1).

Bradley-Terry leaves the scores' origin free. A small penalty on the square of a pair's sum fixes it
(arXiv:2312.09244): right and wrong responses score about the same distance above and below 0.
"""

import torch
from torch.nn import functional

from vcppo.errors import TrainingError
from vcppo.models import forward
from vcppo.models.checkpoints import save_model, save_state
from vcppo.models.optimiser import Optimiser
from vcppo.models.sharding import load_weights
from vcppo.rl.critic_update import read_final_values
from vcppo.rl.rewards import verdict_scores
from vcppo.rl.sampler import collate
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.fixed import PAIRED_PROMPTS_AT_ONCE, STEPS_BETWEEN_STATES
from vcppo.stages.context import StageContext
from vcppo.stages.shared.resuming import resume
from vcppo.stages.shared.sampling_parts import forget_parts, roll_out_in_parts
from vcppo.types import RolloutBatch


def reward_model(context: StageContext) -> dict[str, float]:
    """Train `critic/`, a token classifier with one label, from the cold-start policy's weights."""
    settings, folder, chosen = context.settings, context.folder, context.settings.reward_model
    journal = folder.journal
    state = resume(context, journal)
    batch = RolloutBatch(**state["answers"]) if state else _sample_responses(context)
    correct, incorrect = pair_pools(batch)
    if not correct:
        raise TrainingError(
            f"none of {len(batch.scores)} responses of the cold-start policy is right beside a wrong one "
            "to the same prompt; raise reward_model.responses or rollout.max_tokens, or make the task easier"
        )
    model = context.load_critic(context.first_policy, head_seed=seed_for(settings.base_seed, "reward-model", "head"))
    optimiser = Optimiser(model, chosen, chosen.steps)
    if state is not None and "model" in state:
        load_weights(model, state["model"])
        optimiser.load_state_dict(state["optimiser"])
    del state  # a second copy of the weights

    def save() -> None:
        save_state(
            folder.path / "state.pt",
            {
                "answers": vars(batch),
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "records": journal.sync(),
            },
        )
        forget_parts(context)

    checkpoints = context.checkpoint_clock()
    for step in range(optimiser.taken, chosen.steps):
        if checkpoints.is_due(step % STEPS_BETWEEN_STATES == 0):
            save()
        rng = rng_for(settings.base_seed, "reward-model", "pairs", step)
        groups = [list(correct)[i] for i in torch.randint(len(correct), (chosen.pairs,), generator=rng).tolist()]
        better = [_pick(correct[group], rng) for group in groups]
        worse = [_pick(incorrect[group], rng) for group in groups]
        pairs = batch.take(torch.tensor(better + worse))
        scores = read_final_values(model, pairs, settings.micro_batch_tokens)
        margins = scores[: chosen.pairs] - scores[chosen.pairs :]
        sums = scores[: chosen.pairs] + scores[chosen.pairs :]
        # d(-log sigmoid(margin) + centering * sum^2) / d(score): micro-batches are differentiated one at a time
        pull, centre = -torch.sigmoid(-margins) / chosen.pairs, 2.0 * chosen.centering * sums / chosen.pairs
        slopes = torch.cat([centre + pull, centre - pull])
        for micro_batch in forward.micro_batches_of_rank(model, pairs.total_lengths, settings.micro_batch_tokens):
            weighted = forward.last_token_values(model, pairs.take(micro_batch.rows)) * slopes[micro_batch.rows]
            (micro_batch.weight * weighted.sum()).backward()
        norm = optimiser.step()
        journal.metrics(
            step,
            {
                "reward_model/loss": float(-functional.logsigmoid(margins).mean()),
                "reward_model/pair_accuracy": float((margins > 0).float().mean()),
                "reward_model/margin": float(margins.mean()),
                "reward_model/centre": float(sums.mean()) / 2.0,
                "reward_model/grad_norm": norm,
            },
        )
    save_model(model, context.tokenizer, folder.path / "critic")
    return {"steps": float(chosen.steps), "prompts_with_both": float(len(correct))}


def pair_pools(batch: RolloutBatch) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Rows of the correct responses and of the others, by group, for the groups that have both."""
    correct: dict[int, list[int]] = {}
    incorrect: dict[int, list[int]] = {}
    for row, (group, good) in enumerate(zip(batch.group.tolist(), batch.correct.tolist(), strict=True)):
        (correct if good else incorrect).setdefault(group, []).append(row)
    both = sorted(correct.keys() & incorrect.keys())
    return {g: correct[g] for g in both}, {g: incorrect[g] for g in both}


def _sample_responses(context: StageContext) -> RolloutBatch:
    """Sample responses of the cold-start policy, several per prompt, as rollouts are."""
    settings, chosen = context.settings, context.settings.reward_model
    count = max(chosen.responses // chosen.responses_per_prompt, 1)
    prompts = context.task.training_prompts(count, rng_for(settings.base_seed, "reward-model", "prompts"))
    sampler = context.sampler(context.load_first_policy())
    times = chosen.responses_per_prompt
    rollouts = roll_out_in_parts(
        context,
        sampler,
        [prompt for prompt in prompts for _ in range(times)],
        size=PAIRED_PROMPTS_AT_ONCE * times,
        seed_of=lambda start: seed_for(settings.base_seed, "reward-model", "answers", start // times),
    )
    return collate(rollouts, verdict_scores(rollouts, settings.reward))


def _pick(rows: list[int], rng: torch.Generator) -> int:
    return rows[int(torch.randint(len(rows), (), generator=rng))]
