"""Are values read at the right token? Two responses share their values until they part, and no longer.

V(s_t) knows the prompt, all else that stood before the response, and its tokens before t. If two responses that begin
in one such state have the same tokens before token d and different ones there, then V_d is the same of both and V_(d+1)
is not. Read one token ahead, V_d differs already; read one token late, V_(d+1) does not differ yet; values of other
responses, or noise, differ before d. Read k tokens late, all pairs begin to differ at d+k+1, where values that are in
place do so wherever a token happens to count. This needs no return.
"""

import numpy as np
from numpy.typing import NDArray

from vcppo.maths.prompt_bootstrap import Array, Index, Measured, PromptBootstrap

AROUND = (-1, 0, 1, 2)  # places about the one where two responses part
FURTHEST = 16  # tokens after the split up to which the first difference is looked for
TIMING = ("before_split", "at_split", "after_split", "rounding")
ROUNDED = 2.0**-7  # of a value: what arithmetic in bfloat16 may make of it


def splits(tokens: Index, live: NDArray[np.bool_], state: Index) -> Index:
    """Pairs of responses from one first state that follow each other when sorted, and where they part.

    Sorted by tokens, neighbours share the most. Pairs that are equal to the end of either, or part fewer than three
    tokens before it, are left out.

    Args:
        tokens: [B, T] int. live: [B, T] bool, True on a prefix of each row. state: [B] int, of each response's start.
    Returns:
        [pairs, 3]: two rows and the place.
    """
    known = np.where(live, tokens, -1)
    order = np.lexsort((*known.T[::-1], state))
    one, other = order[:-1], order[1:]
    alike = state[one] == state[other]
    one, other = one[alike], other[alike]
    if not len(one):
        return np.zeros((0, 3), dtype=np.int64)
    place = (known[one] != known[other]).argmax(axis=1)
    shorter = np.minimum(live[one].sum(axis=1), live[other].sum(axis=1))
    parted = (known[one, place] != known[other, place]) & (place + AROUND[-1] < shorter)
    result: Index = np.stack([one, other, place], axis=1)[parted].astype(np.int64)
    return result


def first_gaps(values: Array, finite: NDArray[np.bool_], pairs: Index) -> Index:
    """Tokens from where two responses part to where their values do, -1 to FURTHEST; of those that do, by more than
    rounding may.

    Args:
        values: [B, T]. finite: [B, T] bool, values that are known. pairs: [pairs, 3] of `splits`.
    Returns:
        [pairs that differ somewhere there].
    """
    one, other, place = pairs.T
    offset = np.arange(-1, FURTHEST + 1)
    at = np.clip(place[:, None] + offset, 0, values.shape[1] - 1)
    a, b = values[one[:, None], at], values[other[:, None], at]
    known = finite[one[:, None], at] & finite[other[:, None], at] & (at == place[:, None] + offset)
    with np.errstate(invalid="ignore"):
        apart = known & (np.abs(a - b) > ROUNDED * np.maximum(np.abs(a), np.abs(b)))
    result: Index = apart.argmax(axis=1)[apart.any(axis=1)] - 1
    return result


def timing(
    values: Array, finite: NDArray[np.bool_], pairs: Index, bootstrap: PromptBootstrap, *, unit: int = AROUND[-1]
) -> Measured:
    """Mean squared difference of two responses' values before, at and after the token where they part.

    In units of that `unit` tokens after it. Of a critic that is read in the right place: 0, 0 and about 1, give or take
    what rounding makes: the fourth, the mean square of ROUNDED times the value in the same units.

    Args:
        values: [B, T]. finite: [B, T] bool, values that are known. pairs: [pairs, 3] of `splits`.
    Returns:
        [4] in the order of TIMING; before is NaN where all part at their first token, all are without a difference.
    """
    columns: list[Array] = []
    one, other, place = pairs.T
    for offset in (*AROUND[:-1], unit):
        at = np.clip(place + offset, 0, values.shape[1] - 1)
        known = finite[one, at] & finite[other, at] & (at == place + offset)
        gap = np.where(known, values[one, at] - values[other, at], 0.0)
        columns += [known.astype(np.float64), gap**2]
    columns.append(np.where(known, values[one, at] ** 2 + values[other, at] ** 2, 0.0) / 2)
    sums = bootstrap.sums(bootstrap.unit[bootstrap.prompt[one]], columns)[:, 0]

    def ratios(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = np.where(total[..., 0:8:2] > 0, total[..., 0:8:2], np.nan)
            square = total[..., 1:8:2] / pairs
            last = np.where(square[..., 3:] > 0, square[..., 3:], np.nan)
            rounding = ROUNDED**2 * total[..., 8:] / pairs[..., 3:]
            result: Array = np.concatenate([square[..., :3], rounding], axis=-1) / last
        return result

    return bootstrap.measured(ratios, sums)
