"""Small batches for losses."""

import torch
from torch import Tensor

close = torch.testing.assert_close


def mask_of(*lengths: int) -> Tensor:
    return torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def drawn(*lengths: int, tensors: int, seed: int = 0) -> tuple[Tensor, ...]:
    """A mask, then float64 noise of its shape, as many as asked."""
    response_mask = mask_of(*lengths)
    rng = torch.Generator().manual_seed(seed)
    return response_mask, *torch.randn(tensors, *response_mask.shape, generator=rng, dtype=torch.float64)
