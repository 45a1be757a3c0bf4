"""Prompts of the responses that critics are pretrained on, and those of the held-out responses that measure them.

A held-out response to a prompt that the critic has learnt other responses to measures less than it seems to: how likely
a response to this prompt is right may be remembered. So the two have no prompt in common (`disjoint`).
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vcppo.errors import ConfigError
from vcppo.seeding import rng_for, seed_for
from vcppo.stages.context import StageContext
from vcppo.types import Prompt

TO_EACH_HELD_OUT = 6  # draws for training beside one held out, where no pool says how many: a seventh is held out
DRAWS = 1000  # times the wanted number, after which no prompt outside the held-out ones is expected any more

Draw = Callable[[int], list[Prompt]]


@dataclass(frozen=True)
class FixedPrompts:
    """One prompt for each response."""

    pool: list[Prompt]
    held_out: list[Prompt]


def fixed_prompts(context: StageContext) -> FixedPrompts:
    """The prompts that the settings want responses of the fixed policy to, the same whenever they are asked for.

    Raises:
        ConfigError: they are to be disjoint, and the task draws one problem only.
    """
    settings = context.settings
    pool, held_out = settings.fixed_responses
    draw = _draw_from(context, "answers", "prompts")
    if settings.pretrain.steps == 0 or settings.pretrain.held_out_prompts == "shared":
        prompts = draw(pool + held_out)
        return FixedPrompts(prompts[:pool], prompts[pool:])
    return split(draw, pool, held_out, seed=settings.run_seed)


def split(draw: Draw, pool: int, held_out: int, *, seed: int) -> FixedPrompts:
    """Draw prompts, and hold out so many different ones that their share of the problems is that of the responses.

    Prompts are held out one after another, in an order that the seed and their texts alone decide, until `held_out` of
    the first draws went to them; then drawing goes on until both parts have enough.

    Args:
        draw: draws so many prompts, with replacement.
        pool: 0 where every update will draw anew.
    Raises:
        ConfigError: all draws are of one problem.
    """
    first = draw(held_out + (pool or TO_EACH_HELD_OUT * held_out))
    count = Counter(prompt.text for prompt in first)
    if len(count) == 1:
        raise ConfigError(
            "pretrain.held_out_prompts = disjoint: the task has one training problem, or next to none; expected 2 or "
            "more, or pretrain.held_out_prompts = shared"
        )
    in_order = sorted(count, key=lambda text: seed_for(seed, "answers", "held out", text))
    up_to = itertools.accumulate(count[text] for text in in_order)
    kept = {text for text, so_far in zip(in_order, up_to, strict=True) if so_far - count[text] < held_out}
    kept.discard(in_order[-1])  # one at least is to learn from
    inside, outside = [p for p in first if p.text in kept], [p for p in first if p.text not in kept]
    while len(inside) < held_out or len(outside) < pool:
        more = draw(held_out + pool)
        inside += [p for p in more if p.text in kept]
        outside += [p for p in more if p.text not in kept]
    return FixedPrompts(outside[:pool], inside[:held_out])


def training_prompts(context: StageContext, count: int, held_out: set[str], *purpose: str | int) -> list[Prompt]:
    """Draw prompts to learn from, none of whose texts is held out; without any that is, the first `count` that come."""
    draw = _draw_from(context, *purpose)
    return list(itertools.islice(_outside(draw, count, held_out), count))


def _outside(draw: Draw, at_once: int, held_out: set[str]) -> Iterator[Prompt]:
    for _ in range(DRAWS):
        yield from (prompt for prompt in draw(at_once) if prompt.text not in held_out)
    raise ConfigError(
        "pretrain.held_out_prompts = disjoint: the task has no training problem beside the held-out ones; expected "
        "more problems, or pretrain.held_out_prompts = shared"
    )


def _draw_from(context: StageContext, *purpose: str | int) -> Draw:
    rng = rng_for(context.settings.run_seed, *purpose)
    return lambda count: context.task.training_prompts(count, rng)
