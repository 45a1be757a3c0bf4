"""Tables of a critic by token position and by predicted value, the same wherever one is measured."""

from typing import Any

from torch import Tensor

from vcppo.maths.diagnostics import by_position, calibration

POSITION_BINS, CALIBRATION_BINS = 32, 10


def critic_tables(
    values: Tensor, returns: Tensor, response_mask: Tensor, *, limit: int
) -> dict[str, dict[str, list[Any]]]:
    """Columns of the tables `critic_by_position` (bias, explained variance) and `critic_calibration`.

    Args:
        values, returns: [B, T] of the critic, and Monte-Carlo returns.
        limit: tokens of the longest response allowed; bins follow from it, so that every step and run has the same.
    """
    width = max(-(-limit // POSITION_BINS), 1)
    from_start = by_position(values, returns, response_mask, width=width)
    from_end = by_position(values, returns, response_mask, width=width, from_end=True)
    return {
        "critic_by_position": {name: from_start[name] + from_end[name] for name in from_start},
        "critic_calibration": calibration(values, returns, response_mask, bins=CALIBRATION_BINS),
    }
