"""A script for several processes: dot products of a tiny policy's gradients, plain and preconditioned, as JSON.

torchrun --nproc-per-node 2 tests/alignment_processes.py MEMORY,MEMORY,... [key=value of compute ...]
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from tiny import new_policy, random_batch, tiny
from transformers import PreTrainedModel

from vcppo.models.distributed import together
from vcppo.models.sharding import prepare
from vcppo.rl.alignment import alignment_metrics
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.system.processes import run_as_rank


def main(memories: list[int], *assignments: str) -> None:
    settings = tiny(*assignments)
    with together() as world:
        policy = prepare(new_policy(*assignments), settings.compute, settings.lora, seed=0)
        described = [measured(policy, memory) for memory in memories]
        if world.is_main:
            print(json.dumps({"measured": described, "sharded": world.size > 1}))


def measured(policy: PreTrainedModel, memory: int) -> dict[str, Any]:
    """Products, plain and preconditioned, and the metrics of a run, with gradients held in so many bytes."""
    batch = random_batch([9, 3, 5, 7, 1, 6])
    advantages = torch.randn((3, *batch.response_mask.shape), generator=torch.Generator().manual_seed(1))
    gradients = PolicyGradients(policy, batch, temperature=1.1, max_tokens=20, held=12, memory=memory)
    groups = [torch.tensor([0, 1, 4]), torch.tensor([2, 3, 5])]
    gradients.precondition(groups)
    made = [gradients.of(rows, advantages) for rows in groups]
    plain, scaled = (torch.cat([x for pair in made if (x := pair[i]) is not None]) for i in (0, 1))
    metrics = alignment_metrics(
        policy,
        batch,
        advantages[0],
        advantages[1],
        temperature=1.1,
        max_tokens=20,
        chunks=3,
        memory=memory,
        rng=np.random.default_rng(0),
    )
    return {
        "products": [gradients.products(plain).tolist(), gradients.products(scaled).tolist()],
        "metrics": metrics,
        "cleared": all(parameter.grad is None for parameter in policy.parameters()),
        "sketch": gradients.sketch,
    }


if __name__ == "__main__":
    run_as_rank(lambda: main([int(text) for text in sys.argv[1].split(",")], *sys.argv[2:]))
