"""The exact critic, an arm of studies: exact values, and dials that make them worse in one way each.

It says what a critic can buy at all before anyone asks what a learnt one does, and which error of a critic does what.
"""

import torch
from torch import Tensor

from vcppo.maths.exact_values import limited_sight
from vcppo.rl.exact_values import ExactValues
from vcppo.settings.critic import ExactCriticSettings


def exact_critic_values(
    exact: ExactValues, response_mask: Tensor, rows: Tensor, dials: ExactCriticSettings, rng: torch.Generator
) -> Tensor:
    """[B, T] float32 values; 0 where masked, and in rows not in `rows`.

    What is not seen comes first, then sight, blur and offset.

    Args:
        response_mask: [B, T] bool. rows: [K] whose values are read; a blind critic's means are theirs.
        rng: of the blur.
    """
    here = torch.zeros(len(response_mask), 1, dtype=torch.bool)
    here[rows] = True
    mask = response_mask & here
    values = limited_sight(exact.values(dials.unseen), mask, sight=dials.sight)
    if dials.blur > 0:
        values = values + dials.blur * torch.randn(values.shape, generator=rng)
    return torch.where(mask, values + dials.offset, 0.0)
