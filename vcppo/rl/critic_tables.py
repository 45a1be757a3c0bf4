"""Tables of a critic by token position, by fraction of a response and by predicted value, wherever one is measured."""

from typing import Any

from torch import Tensor

from vcppo.maths.diagnostics import by_fraction, by_position, calibration

POSITION_BINS, CALIBRATION_BINS = 32, 10
FRACTIONS = (0.0, 0.25, 0.5, 0.75)  # of a response


def critic_tables(
    values: Tensor, returns: Tensor, response_mask: Tensor, *, limit: int
) -> dict[str, dict[str, list[Any]]]:
    """Columns of the tables `critic_by_position` (bias, explained variance), `critic_by_fraction` (bias) and
    `critic_calibration`.

    Args:
        values, returns: [B, T] of the critic, and Monte-Carlo returns.
        limit: tokens of the longest response allowed; bins follow from it, so that every step and run has the same.
    """
    width = max(-(-limit // POSITION_BINS), 1)
    from_start = by_position(values, returns, response_mask, width=width)
    from_end = by_position(values, returns, response_mask, width=width, from_end=True)
    return {
        "critic_by_position": {name: from_start[name] + from_end[name] for name in from_start},
        "critic_by_fraction": by_fraction(values, returns, response_mask, fractions=FRACTIONS),
        "critic_calibration": calibration(values, returns, response_mask, bins=CALIBRATION_BINS),
    }
