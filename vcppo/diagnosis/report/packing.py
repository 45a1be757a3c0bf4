"""The viewer's data in few bytes: numbers on a decimal grid, token texts once each, deflated, in base64.

    little-endian uint32 H | header, H bytes of ASCII JSON | columns

A column holds one integer a token, all responses after one another: token numbers as they are, numbers of float type
as round(x * 10^decimals), differenced along the column, zigzag (0, -1, 1, -2, ... is 0, 1, 2, 3, ...). Each is written
as its four bytes' planes, lowest first, which deflate shrinks well. NaN and infinities have integers of their own.
"""

import base64
import json
import math
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vcppo.diagnosis.report.viewer import Numbers, ViewerData

LIMIT = 2**29  # integers are kept within +-LIMIT; those above mean what is not finite
NAN, PLUS_INFINITY, MINUS_INFINITY = LIMIT + 1, LIMIT + 2, LIMIT + 3
STEPS_PER_DEVIATION = 200  # a grid no coarser than this fraction of a column's usual deviation
MAX_DECIMALS = 6


def packed(viewer: ViewerData) -> str:
    """The viewer's data as base64 of a zlib stream."""
    return base64.b64encode(zlib.compress(_unpacked(viewer), level=9)).decode("ascii")


def grid_decimals(columns: Iterable[Numbers]) -> int:
    """Decimals that a column of numbers is kept with: so many that a deviation has at least 200 steps.

    The deviation is half the distance of the 16th and 84th percentile, which outliers do not move; where that is 0,
    half the distance of the 1st and 99th; where that is 0 as well, the mean size. Fewer where no number has more.
    """
    numbers = np.concatenate([np.asarray(column, dtype=np.float64).ravel() for column in columns] or [np.zeros(0)])
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return 0
    low, first, last, high = np.quantile(numbers, [0.01, 0.16, 0.84, 0.99])
    deviation = (last - first) / 2 or (high - low) / 2 or float(np.abs(numbers).mean())
    if not deviation:
        return 0
    largest = float(np.abs(numbers).max())
    room = math.floor(math.log10(LIMIT / largest))
    decimals = max(0, min(math.ceil(math.log10(STEPS_PER_DEVIATION / deviation)), room, MAX_DECIMALS))
    return next(fewer for fewer in range(decimals + 1) if fewer == decimals or _exact(numbers, fewer))


def _exact(numbers: NDArray[np.float64], decimals: int) -> bool:
    """True where all are float32 numbers of no more than so many decimals."""
    scaled = numbers * 10.0**decimals
    return bool(np.allclose(scaled, np.rint(scaled), rtol=1e-7, atol=1e-9))


def on_grid(numbers: NDArray[np.float64], decimals: int) -> NDArray[np.int64]:
    """Integers of numbers on a grid of 10^-decimals, with the codes of what is not finite."""
    rounded = np.rint(np.clip(np.nan_to_num(numbers, nan=0.0) * 10.0**decimals, -LIMIT, LIMIT)).astype(np.int64)
    rounded[np.isnan(numbers)] = NAN
    rounded[np.isposinf(numbers)] = PLUS_INFINITY
    rounded[np.isneginf(numbers)] = MINUS_INFINITY
    return rounded


def _unpacked(viewer: ViewerData) -> bytes:
    responses = viewer.responses
    vocabulary: dict[str, int] = {}
    prompts: dict[str, int] = {}
    tokens = [vocabulary.setdefault(text, len(vocabulary)) for one in responses for text in one.tokens]
    series: list[tuple[dict[str, Any], Sequence[Numbers | None]]] = [
        ({"kind": "values", "critic": i}, [one.values[i] for one in responses]) for i in range(len(viewer.critics))
    ]
    series.append(({"kind": "returns"}, [one.returns for one in responses]))
    for kind in ("logprobs", "entropy"):
        columns = [getattr(one, kind) for one in responses]
        if any(column is not None for column in columns):
            series.append(({"kind": kind}, columns))

    body, described = [_planes(np.asarray(tokens, dtype=np.uint32))], []
    lengths = [len(one.tokens) for one in responses]
    for about, numbers in series:
        decimals = grid_decimals([column for column in numbers if column is not None])
        rows = [
            np.full(length, np.nan) if column is None else np.asarray(column, dtype=np.float64)
            for length, column in zip(lengths, numbers, strict=True)
        ]
        integers = on_grid(np.concatenate(rows) if rows else np.zeros(0), decimals)
        steps = np.diff(integers, prepend=0)
        body.append(_planes((np.where(steps < 0, -2 * steps - 1, 2 * steps)).astype(np.uint32)))
        described.append(about | {"decimals": decimals})
    header = {
        "critics": viewer.critics,
        "lambdas": viewer.lambdas,
        "note": viewer.note,
        "vocabulary": list(vocabulary),
        "series": described,
        "responses": [
            {
                "problem": one.problem,
                "prompt": prompts.setdefault(one.prompt, len(prompts)),
                "length": len(one.tokens),
                "score": one.score if math.isfinite(one.score) else None,
                "truncated": one.truncated,
                "step": one.step,
                "line": one.line,
                "has": [kind for kind in ("logprobs", "entropy") if getattr(one, kind) is not None],
            }
            for one in responses
        ],
    }
    text = json.dumps(header | {"prompts": list(prompts)}, allow_nan=False).encode("ascii")
    return len(text).to_bytes(4, "little") + text + b"".join(body)


def _planes(integers: NDArray[np.uint32]) -> bytes:
    """The lowest byte of every integer, then the next byte of every integer, and so on."""
    return integers.astype("<u4").view(np.uint8).reshape(-1, 4).T.tobytes()
