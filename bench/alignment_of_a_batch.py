"""Measure how well one iteration's responses tell where the policy gradient points: z of batches before training.

    python -m bench.alignment_of_a_batch [--base-seed 0] [--batches 10] [--out runs]

Takes the default task's cold start and reward model from the cache in --out, or makes them, and samples batches of an
iteration's size. For each: z of the gain in score (as `alignment/score_z` has it) of the reward model as critic and of
constant critics, at lambda_actor 0.95 and 1, and seconds of processor time. What happened in training with such critics
stands in results/components and docs/collapse.md: those at -1.5 and below, and the reward model, collapse at 0.95.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from vcppo.maths.advantages import gae, monte_carlo_returns
from vcppo.rl.alignment import alignment_metrics
from vcppo.rl.critic_update import read_values
from vcppo.rl.rewards import place_scores, verdict_scores
from vcppo.rl.sampler import collate
from vcppo.seeding import rng_for, seed_for
from vcppo.settings.fixed import ALIGNMENT_CHUNKS, ALIGNMENT_MEMORY
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.stages.context import StageContext
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses

CRITICS = (("reward model", 0.95), ("reward model", 1.0), (-3.0, 0.95), (-1.5, 0.95), (-0.87, 0.95), (0.0, 0.95))


def main() -> None:
    """Print a line a batch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-seed", type=int, default=0)
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    settings = override(RunSettings(), {"base_seed": chosen.base_seed, "pretrain.steps": 0})
    earlier = {name: use.folder for name, use in run_stages(settings, chosen.out, until="reward-model").items()}
    context = StageContext(settings, StageFolder(chosen.out, addresses(settings)["rl"]), earlier)
    policy, critic = context.load_first_policy(), context.load_critic(earlier["reward-model"].path / "critic")
    sampler = context.sampler(policy)
    print("batch  " + "  ".join(f"{name} at {gae_lambda:g}" for name, gae_lambda in CRITICS) + "  seconds each")
    for number in range(chosen.batches):
        prompts = context.task.training_prompts(settings.rollout.prompts, rng_for(0, "bench", "prompts", number))
        rollouts = sampler.roll_out(prompts, seed=seed_for(0, "bench", "rollout", number))
        batch = collate(rollouts, verdict_scores(rollouts, settings.reward))
        mask, rewards = batch.response_mask, place_scores(batch)
        values = read_values(critic, batch, settings.micro_batch_tokens)
        found, began = [], time.process_time()
        for name, gae_lambda in CRITICS:
            of = values if isinstance(name, str) else torch.where(mask, name, 0.0)
            metrics = alignment_metrics(
                policy,
                batch,
                gae(rewards, of, mask, gamma=1.0, gae_lambda=gae_lambda),
                monte_carlo_returns(rewards, mask, gamma=1.0),
                temperature=1.0,
                max_tokens=settings.micro_batch_tokens,
                chunks=ALIGNMENT_CHUNKS,
                memory=ALIGNMENT_MEMORY,
                rng=np.random.default_rng(0),
            )
            found.append(metrics["alignment/score_z"])
        seconds = (time.process_time() - began) / len(CRITICS)
        print(f"{number:5}  " + "  ".join(f"{z:+.1f}" for z in found) + f"  {seconds:.2f}", flush=True)


if __name__ == "__main__":
    main()
