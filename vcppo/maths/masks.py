"""Masks of responses: one polarity, True on generated tokens, and one type."""

import torch
from torch import Tensor

from vcppo.errors import DataError


def check_mask(response_mask: Tensor) -> None:
    """Refuse a mask of numbers: as an index 0 and 1 name rows, and what is computed is of others.

    Raises:
        DataError: it is not of torch.bool.
    """
    if response_mask.dtype != torch.bool:
        raise DataError(
            f"response_mask of {response_mask.dtype}: expected torch.bool, True on a response's tokens, a prefix of "
            "each row; of 0 and 1 take mask.bool()"
        )
