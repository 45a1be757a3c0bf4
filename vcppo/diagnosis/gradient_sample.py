"""Of which responses gradients are taken, where those of all would take too long: prompts are drawn at random.

A sample of prompts, each with all its responses, leaves every estimate unbiased and widens its interval; gradients of
some layers alone would be faster too, and be another policy's.
"""

import torch
from torch import Tensor

from vcppo.rl.alignment import shares_prompts
from vcppo.seeding import rng_for
from vcppo.settings.fixed import FEWEST_PROMPTS


def drawn(problem: Tensor, responses: int, seed: int) -> Tensor:
    """[K] places, in their order: prompts with all their responses, as many as fit `responses`, and 8 at least.

    Where prompts are few, intervals are over responses to these prompts, and responses are drawn: exactly so many.

    Args:
        problem: [B], the prompt of each response.
    """
    rng = rng_for(seed, "gradient sample")
    if shares_prompts(problem):
        return torch.randperm(len(problem), generator=rng)[:responses].sort().values
    names, index, sizes = torch.unique(problem, return_inverse=True, return_counts=True)
    order = torch.randperm(len(names), generator=rng)
    fits = sizes[order].cumsum(0) <= responses
    fits[:FEWEST_PROMPTS] = True
    selected = torch.zeros(len(names), dtype=torch.bool)
    selected[order[fits]] = True
    return selected[index].nonzero()[:, 0]
