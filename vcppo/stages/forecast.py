"""Before stage 4, a forecast of it: where the gradient that RL will begin with points (`record.forecast_responses`).

It has responses of its own, sampled from the policy that RL starts from and shared by all runs of a base, and models of
its own: RL does not know of it, and its numbers and its address are the same with it and without.
"""

import time

from vcppo.rl.forecast import forecast_metrics
from vcppo.rl.models import Models
from vcppo.rl.rewards import verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.fixed import RESPONSES_AT_ONCE
from vcppo.stages.context import StageContext
from vcppo.stages.shared.critic_start import critic_for, first_shaping
from vcppo.stages.shared.sampling_parts import forget_parts, roll_out_in_parts
from vcppo.stages.shared.saved_responses import load_responses, save_responses
from vcppo.types import Generation, Prompt, Rollout


def forecast_responses(context: StageContext) -> dict[str, float]:
    """Sample `record.forecast_responses` responses of the first policy, in groups as RL's, to `answers.safetensors`."""
    settings, prompts = context.settings, forecast_prompts(context)
    sampler = context.sampler(context.load_first_policy())
    rollouts = roll_out_in_parts(
        context,
        sampler,
        prompts,
        size=RESPONSES_AT_ONCE,
        seed_of=lambda start: seed_for(settings.base_seed, "forecast", "rollout", start),
    )
    batch = collate(rollouts, verdict_scores(rollouts, settings.reward))
    save_responses(context.folder.path, batch)
    forget_parts(context)
    return {
        "answers": float(len(rollouts)),
        "accuracy": float(batch.correct.float().mean()),
        "length_tokens": float(batch.lengths.float().mean()),
    }


def forecast(context: StageContext) -> dict[str, float]:
    """Write `forecast/*` of this run to the journal, as metrics of iteration 0."""
    began, settings = time.perf_counter(), context.settings
    policy = context.load_first_policy()
    critic = critic_for(context)[0] if settings.has_value_model else None
    dpo_policy = context.load_preference_policy() if settings.token_reward.kind != "none" else None
    models = Models(policy, policy, critic, policy if settings.needs_reference else None, dpo_policy)
    sampler = context.sampler(policy)
    metrics = forecast_metrics(
        models,
        load_rollouts(context, sampler),
        sampler=sampler,
        shaping=first_shaping(context),
        settings=settings,
    )
    journal = context.folder.journal
    journal.truncate(0)  # what a killed one may have left
    journal.metrics(0, {**metrics, "time/forecast_s": time.perf_counter() - began})
    return {"responses": metrics["forecast/responses"]}


def forecast_prompts(context: StageContext) -> list[Prompt]:
    """The prompts of these responses, each as often as RL repeats one; as many whole groups as it takes."""
    settings = context.settings
    size = settings.rollout.samples_per_prompt
    groups = -(-settings.record.forecast_responses // size)
    prompts = context.task.training_prompts(groups, rng_for(settings.base_seed, "forecast", "prompts"))
    return [prompt for prompt in prompts for _ in range(size)]


def load_rollouts(context: StageContext, sampler: Sampler) -> list[Rollout]:
    """The responses as they were sampled, judged again."""
    batch, prompts = load_responses(context.earlier["forecast-answers"].path), forecast_prompts(context)
    tokens = [row[:length] for row, length in zip(batch.response_tokens.tolist(), batch.lengths.tolist(), strict=True)]
    logprobs = batch.old_logprobs.tolist()
    encoded = context.task.encode(prompts, context.tokenizer)
    judgements = sampler.judge(tokens, prompts)
    return [
        Rollout(
            prompt,
            ids,
            Generation(tuple(response), tuple(logprob[: len(response)]), "length" if cut else "stop"),
            text,
            *judgement,
        )
        for prompt, ids, response, logprob, cut, text, judgement in zip(
            prompts,
            encoded,
            tokens,
            logprobs,
            batch.truncated.tolist(),
            sampler.texts(tokens),
            judgements,
            strict=True,
        )
    ]
