"""Stage 3a, responses of the fixed policy: generated once, shared by every critic that is trained on them.

A critic is pretrained on them; one that is not may start at their mean score, and then a few are enough.
"""

from vcppo.rl.rewards import verdict_scores
from vcppo.rl.sampler import collate
from vcppo.seeding import seed_for
from vcppo.settings.fixed import RESPONSES_AT_ONCE
from vcppo.stages.context import StageContext
from vcppo.stages.shared.fixed_prompts import fixed_prompts
from vcppo.stages.shared.sampling_parts import forget_parts, roll_out_in_parts
from vcppo.stages.shared.saved_responses import save_responses
from vcppo.types import Prompt


def sample_responses(context: StageContext) -> dict[str, float]:
    """Sample `pool` and `held_out` responses, one per prompt, to `answers.safetensors`; held-out ones last.

    Raises:
        ConfigError: held-out prompts are to be others than the pool's, and the task has not enough.
    """
    settings = context.settings
    prompts = response_prompts(context)
    sampler = context.sampler(context.load_first_policy())
    rollouts = roll_out_in_parts(
        context,
        sampler,
        prompts,
        size=RESPONSES_AT_ONCE,
        seed_of=lambda start: seed_for(settings.run_seed, "answers", start),
    )
    batch = collate(rollouts, verdict_scores(rollouts, settings.reward))
    save_responses(context.folder.path, batch)
    forget_parts(context)
    lengths = batch.lengths.float()
    return {
        "answers": float(len(rollouts)),
        "accuracy": sum(r.verdict == "correct" for r in rollouts) / len(rollouts),
        "length_tokens": float(lengths.mean()),
    }


def response_prompts(context: StageContext) -> list[Prompt]:
    """The prompts that they are to, in their order, whenever it is asked."""
    chosen = fixed_prompts(context)
    return [*chosen.pool, *chosen.held_out]
