"""Responses of a policy that is at hand: sampled, verified, and written as a dump like any other."""

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.models import loading
from vcppo.models.distributed import world
from vcppo.models.limits import limit_of
from vcppo.models.sharding import prepare
from vcppo.rl.rewards import verdict_scores
from vcppo.rl.sampler import Sampler
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.digests import digest
from vcppo.settings.model import LoraSettings
from vcppo.settings.run import RunSettings
from vcppo.system.files import write_bytes
from vcppo.system.fingerprints import find_checkpoint
from vcppo.tasks import make_task
from vcppo.types import Rollout

PROMPTS_AT_ONCE = 12
VERSION = 1  # raise it when the same settings would sample other responses


def sample_responses(
    policy: str,
    settings: RunSettings,
    *,
    prompts: int,
    samples: int,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Sample `samples` responses to each of `prompts` training prompts of the task into JSONL files.

    A file for each share of the prompts, in a folder below `folder` that is addressed by all that they depend on; those
    that are there already are not sampled again, so that a stopped command goes on. Every process calls it alike.

    Args:
        policy: a folder in transformers' format, or a name on the hub.
        on_progress: is called with prompts done and prompts asked.
    Returns:
        The files, for `read_dump`.
    Raises:
        CheckpointError: no such policy.
        ConfigError: its tokenizer cannot write the task, or it has no room for a response.
    """
    task, trust = make_task(settings.task), settings.model.trust_remote_code
    tokenizer = loading.load_tokenizer(policy, trust_remote_code=trust)
    task.check_tokenizer(tokenizer, policy)
    asked = task.training_prompts(prompts, rng_for(settings.seed, "diagnose", "prompts"))
    room = loading.room_of(policy, settings.engine, trust_remote_code=trust)
    longest = max(map(len, task.encode(asked, tokenizer)))
    limit = limit_of(settings.rollout.max_tokens, task.max_tokens, room=room, longest_prompt=longest, of="diagnosis")
    sampling = Sampling(settings.rollout.temperature, 1.0, limit.tokens)
    used = settings.model_dump(mode="json", include={"seed", "task", "reward", "engine", "compute"})
    asked_of = [find_checkpoint(policy).fingerprint, used, astuple(sampling), samples]
    folder = folder / digest([VERSION, *asked_of, [astuple(prompt) for prompt in asked]])
    sampler: Sampler | None = None
    files: list[Path] = []
    for start in range(0, prompts, PROMPTS_AT_ONCE):
        files.append(folder / f"responses-{start}.jsonl")
        if not world().from_main(files[-1].exists()):
            if sampler is None:
                loaded = loading.load_policy(policy, trust_remote_code=trust)
                engine = make_engine(settings.engine, prepare(loaded, settings.compute, LoraSettings(), seed=0))
                sampler = Sampler(task, tokenizer, engine, sampling)
            repeated = [prompt for prompt in asked[start : start + PROMPTS_AT_ONCE] for _ in range(samples)]
            rollouts = sampler.roll_out(repeated, seed=seed_for(settings.seed, "diagnose", start))
            scores = verdict_scores(rollouts, settings.reward).tolist()
            if world().is_main:
                write_bytes(files[-1], _lines(rollouts, scores).encode())
        on_progress(min(start + PROMPTS_AT_ONCE, prompts), prompts)
    world().wait()  # until the last file is there for all
    return files


def _lines(rollouts: Sequence[Rollout], scores: Sequence[float]) -> str:
    rows = (_row(rollout, score) for rollout, score in zip(rollouts, scores, strict=True))
    return "".join(json.dumps(row) + "\n" for row in rows)


def _row(rollout: Rollout, score: float) -> dict[str, Any]:
    """The columns that the generic form of dumps knows."""
    return {
        "prompt": rollout.prompt.text,
        "prompt_tokens": rollout.prompt_tokens,
        "response": rollout.text,
        "tokens": rollout.generation.tokens,
        "score": score,
        "logprobs": rollout.generation.logprobs,
        "truncated": rollout.generation.stop_reason == "length",
    }
