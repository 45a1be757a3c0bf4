"""Responses sampled part by part; of a stage that is stopped between two parts, those it has are not sampled again."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vcppo.errors import CheckpointError
from vcppo.models.checkpoints import load_state, save_state
from vcppo.models.distributed import world
from vcppo.rl.sampler import Sampler
from vcppo.stages.context import StageContext
from vcppo.types import Generation, Prompt, Rollout, Verdict


def roll_out_in_parts(
    context: StageContext,
    sampler: Sampler,
    prompts: Sequence[Prompt],
    *,
    size: int,
    seed_of: Callable[[int], int],
) -> list[Rollout]:
    """Sample a verified response per prompt, `size` at a time; part k's seed is that of its first prompt's number.

    What is sampled stands in the stage's folder until `forget_parts`, saved when the stage's clock says so.
    """
    path, checkpoints = _file(context), context.checkpoint_clock()
    rollouts = _restored(path, prompts)
    for start in range(len(rollouts), len(prompts), size):
        rollouts += sampler.roll_out(prompts[start : start + size], seed=seed_of(start))
        if len(rollouts) < len(prompts) and checkpoints.is_due(False):
            save_state(path, {"rollouts": [_plain(rollout) for rollout in rollouts]})
    return rollouts


def forget_parts(context: StageContext) -> None:
    """Remove what was saved between parts, once all that is made of it is on disk."""
    if world().is_main:
        _file(context).unlink(missing_ok=True)


def _file(context: StageContext) -> Path:
    return context.folder.path / "sampled.pt"


def _restored(path: Path, prompts: Sequence[Prompt]) -> list[Rollout]:
    """Whole parts that an earlier process saved; none where the file is missing or cannot be read."""
    stored: list[dict[str, Any]] = []
    if world().is_main:
        try:
            stored = (load_state(path) or {"rollouts": []})["rollouts"]
        except CheckpointError:  # what is lost is sampled again
            path.unlink(missing_ok=True)
    stored = world().from_main(stored)
    return [_of_plain(content, prompt) for content, prompt in zip(stored, prompts, strict=False)]


def _plain(rollout: Rollout) -> dict[str, Any]:
    """A rollout without its prompt, in plain types."""
    generation = rollout.generation
    return {
        "prompt_tokens": list(rollout.prompt_tokens),
        "tokens": list(generation.tokens),
        "logprobs": list(generation.logprobs),
        "stop_reason": generation.stop_reason,
        "text": rollout.text,
        "verdict": rollout.verdict.value,
        "note": rollout.note,
        "credit": rollout.credit,
    }


def _of_plain(content: dict[str, Any], prompt: Prompt) -> Rollout:
    generation = Generation(tuple(content["tokens"]), tuple(content["logprobs"]), content["stop_reason"])
    return Rollout(
        prompt,
        tuple(content["prompt_tokens"]),
        generation,
        content["text"],
        Verdict(content["verdict"]),
        content["note"],
        content["credit"],
    )
