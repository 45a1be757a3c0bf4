"""What a critic of the base policy can explain, by pencil and on tasks whose values are known."""

import numpy as np
import pytest

from bench.base_policy import ceiling


def sums(first: np.ndarray, other: np.ndarray) -> np.ndarray:
    moments = np.stack([np.ones_like(first), first, other, first * other, first**2], axis=-1)
    return np.asarray(moments.sum(axis=0))


@pytest.mark.parametrize(
    ("first", "other", "wanted"),
    [
        ([1, 1, -1, -1], [1, 1, -1, -1], 1.0),  # what comes is settled by the state
        ([1, 1, -1, -1], [1, -1, 1, -1], 0.0),  # nothing of it is
        ([1, 1, -1, -1], [1, 1, 1, -1], 0.5),
        ([3, 3, 1, 1], [3, 3, 3, 1], 0.5),  # the same, moved and scaled
    ],
)
def test_the_ceiling_by_pencil(first: list[int], other: list[int], wanted: float) -> None:
    assert ceiling(sums(np.array(first, float), np.array(other, float))) == pytest.approx(wanted)


def test_the_ceiling_is_that_of_the_values_returns_were_drawn_from() -> None:
    draw = np.random.default_rng(0)
    value = draw.choice([-0.8, 0.0, 0.9], size=200_000)
    first, other = (np.where(draw.random(len(value)) < (1 + value) / 2, 1.0, -1.0) for _ in range(2))
    known = value.var() / (1 - value.mean() ** 2)
    assert ceiling(sums(first, other)) == pytest.approx(known, abs=0.01)  # 4 standard errors
