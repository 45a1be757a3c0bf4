"""Base policy of an embedded task with several decisions: how often it is right, and why not.

    python bench/base_of_chains.py --set task.name=labels [--set ...] [--out runs] [--responses 1024]

Runs the cold start unless it is in the cache, and samples from it. Printed: the share of right responses with its 95 %
interval (Wilson); the share of each kind of place (line number, digit, label, ...) at which a response left the way for
good, of all responses that came there; and the mean errors a response makes at each kind of place that tolerates some.
"""

import argparse
from collections import Counter
from pathlib import Path

from scipy.stats import binomtest

from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.models.distributed import together
from vcppo.models.loading import load_policy, load_tokenizer
from vcppo.rl.sampler import Sampler
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.engine import TorchEngineSettings
from vcppo.settings.loading import load_settings
from vcppo.stages.pipeline import run_stages
from vcppo.tasks import make_task
from vcppo.types import Verdict


def kind(word: str) -> str:
    """The kind of a word.

    >>> [kind(word) for word in ("#3", "7", "~2", "a", "=")]
    ['number', 'digit', 'filler', 'label', '=']
    """
    if word.isdigit():
        return "digit"
    return {"#": "number", "~": "filler", "a": "label", "b": "label"}.get(word[0], word)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--responses", type=int, default=1024)
    chosen = parser.parse_args()
    settings = load_settings(assignments=chosen.assignments)
    with together():
        folder = run_stages(settings, chosen.out, until="cold-start")["cold-start"].folder
    task, checkpoint = make_task(settings.task), folder.path / "policy"
    policy, tokenizer = load_policy(checkpoint), load_tokenizer(checkpoint)
    sampler = Sampler(task, tokenizer, make_engine(TorchEngineSettings(), policy), Sampling(1.0, 1.0, task.max_tokens))
    prompts = task.training_prompts(chosen.responses, rng_for(0, "base policy", "prompts"))
    rollouts = sampler.roll_out(prompts, seed=seed_for(0, "base policy", "responses"))
    right = sum(rollout.verdict is Verdict.CORRECT for rollout in rollouts)
    interval = binomtest(right, len(rollouts)).proportion_ci(method="wilson")
    weights = sum(weight.numel() for weight in policy.parameters())
    print(f"{folder.path.name}: {weights:,} weights, cold start {folder.result}")
    print(f"right {right / len(rollouts):.3f} [{interval.low:.3f}, {interval.high:.3f}] of {len(rollouts)}")
    print("mean length", sum(len(r.generation.tokens) for r in rollouts) / len(rollouts), "tokens")
    came, left, errors = Counter[str](), Counter[str](), Counter[str]()
    for rollout in rollouts:
        pieces = tokenizer.convert_ids_to_tokens(list(rollout.generation.tokens))
        path = task.decision_path(rollout.prompt, pieces)  # type: ignore[attr-defined]
        kinds = [kind(word) for word in path.tokens]
        came.update(kinds[: path.written])
        for place, others in path.errors.items():
            if place < path.written:
                errors[kinds[place]] += others[pieces[place]]
        if path.written < len(pieces):
            came[kinds[path.written]] += 1
            taken = pieces[path.written] in path.exits.get(path.written, {})
            left[f"{kinds[path.written]}{' (exit)' if taken else ''}"] += 1
    for name, count in sorted(left.items()):
        places = came[name.removesuffix(" (exit)")]
        print(f"left at {name:16} {count:6} of {places:7} places: {count / places:.6f}")
    for name, count in errors.items():
        print(f"errors at {name:14} {count / len(rollouts):.2f} a response")


if __name__ == "__main__":
    main()
