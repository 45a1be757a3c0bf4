"""Parts of an advantage: the rewards that came, and the critic's values."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vcppo.maths.advantages import gae
from vcppo.maths.prompt_bootstrap import Array, Measured, PromptBootstrap

OPINION = ("real_reward", "opinion")


def opinion(
    values: Tensor, rewards: Tensor, response_mask: Tensor, bootstrap: PromptBootstrap, *, gae_lambda: float
) -> Measured:
    """Mean weight of the real reward in an advantage, and the share of the advantages' variance that values make.

    GAE is linear in rewards and values, A(r, V) = A(r, 0) + A(0, V), so that over tokens

        Var A = Cov(A(r, 0), A) + Cov(A(0, V), A),    opinion = Cov(A(0, V), A) / Var A

    At lambda 1 A(0, V) is -V, a baseline, and the opinion of a calibrated critic is 0, that of one whose values spread
    too wide above 0, too narrow below 0; at lambda 0 a single token of a response hears the reward itself. The mean
    weight is that of lambda^(tokens to come), see `real_reward_share`. gamma is 1 throughout.

    Args:
        values, rewards: [B, T], finite where the mask is True. response_mask: [B, T] bool, True on a row's prefix.
    Returns:
        [2] in the order of OPINION; the opinion is NaN where all advantages are equal.
    """
    v, r = (torch.where(response_mask, x, 0.0).to(torch.float64) for x in (values, rewards))
    heard = gae(r, torch.zeros_like(v), response_mask, gamma=1.0, gae_lambda=gae_lambda)
    said = gae(torch.zeros_like(r), v, response_mask, gamma=1.0, gae_lambda=gae_lambda)
    live: NDArray[np.bool_] = response_mask.numpy()
    to_come = live.sum(axis=1, keepdims=True) - 1 - np.arange(live.shape[1])
    weight = np.where(live, np.float64(gae_lambda) ** np.maximum(to_come, 0), 0.0)
    a, b = said.numpy(), (heard + said).numpy()
    a, b = (np.where(live, x - x[live].mean(), 0.0) for x in (a, b))
    columns = [x.sum(axis=1, dtype=np.float64) for x in (live, weight, a, b, a * b, b * b)]
    sums = bootstrap.sums(bootstrap.unit[bootstrap.prompt], columns)[:, 0]

    def shares(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            w, x, y, xy, yy = (total[..., k] / total[..., 0] for k in range(1, 6))
            variance = np.where(yy - y * y > 1e-12 * yy, yy - y * y, np.nan)
            return np.stack([w, (xy - x * y) / variance], axis=-1)

    return bootstrap.measured(shares, sums)
