"""The surrogate without a policy, on responses drawn from the chain of the collapse law."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vcppo.maths.advantages import gae
from vcppo.maths.alignment import Alignments
from vcppo.maths.alignment_surrogate import later_length_gradients, products_of
from vcppo.maths.collapse_law import Chain, turning_offset

CHAIN = Chain(30, 0.09)
REWARD, LENGTH = 0, 1
CHUNK = np.arange(1500) % 50


def drawn(lengths: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.asarray(np.arange(lengths.max())[None] < lengths[:, None])


def measured(kinds: list[NDArray[np.float64]], mask: NDArray[np.bool_]) -> Alignments:
    gradients = later_length_gradients(np.stack(kinds), mask, CHUNK)
    return Alignments(products_of(gradients), np.bincount(CHUNK), rng=np.random.default_rng(0), resamples=300)


@pytest.mark.parametrize(("gae_lambda", "offset", "sign"), [(0.95, -1.4, -1), (0.95, 0.0, 1), (1.0, -1.4, 1)])
def test_it_sees_what_the_law_says_of_a_constant_error(gae_lambda: float, offset: float, sign: int) -> None:
    """The law turns at -0.70 for lambda 0.95; twice that collapses, nothing does at lambda 1."""
    assert turning_offset(CHAIN, 0.95) == pytest.approx(-0.70, abs=0.005)
    stops = np.minimum(np.random.default_rng(0).geometric(CHAIN.hazard, 1500), CHAIN.lines)
    mask = drawn(np.array([CHAIN.tokens(stop) for stop in stops.tolist()]))
    values, rewards = np.zeros(mask.shape), np.zeros(mask.shape)
    for row, stop in enumerate(stops.tolist()):
        exact = CHAIN._exact_values(stop)
        values[row, : len(exact)] = exact + offset
        rewards[row, len(exact) - 1] = 1.0 if stop == CHAIN.lines else -1.0
    live = torch.from_numpy(mask)
    made = [
        gae(torch.from_numpy(rewards), torch.from_numpy(v), live, gamma=1.0, gae_lambda=decay).numpy()
        for v, decay in ((0 * values, 1.0), (values, gae_lambda))
    ]
    to_come = np.where(mask, mask.sum(axis=1)[:, None] - np.arange(mask.shape[1]), 0.0)
    result = measured([made[0], to_come, made[1]], mask)
    for target in (REWARD, LENGTH):
        gain = result.gain(2, target, batch=96)
        assert gain.is_positive if sign > 0 else gain.is_negative


def test_by_pencil_two_chunks_whose_advantages_differ_by_later_length() -> None:
    """Four responses of 1 or 2 tokens. At token 0 each is less the mean of the other chunk there, 4 and 2; half of them
    end there, so half of what a chunk has left goes from either cell. Nothing is chosen at token 1."""
    mask = np.array([[True, False], [True, True], [True, False], [True, True]])
    advantages = np.array([[[1.0, 9.0], [3.0, 5.0], [2.0, 9.0], [6.0, 7.0]]])
    gradients = later_length_gradients(advantages, mask, np.array([0, 0, 1, 1]))
    used = gradients[0][:, np.abs(gradients[0]).sum(axis=0) > 0]
    assert used.tolist() == [[-3.0 + 2.0, -1.0 + 2.0], [0.0 - 2.0, 4.0 - 2.0]]


def test_responses_of_one_length_tell_nothing() -> None:
    rng = np.random.default_rng(1)
    mask = drawn(np.full(1500, 20))
    score = rng.choice([-1.0, 1.0], 1500)[:, None] * np.ones((1, 20))
    noise = rng.standard_normal((1500, 20)) + 0.1 * score
    result = measured([score, mask.cumsum(axis=1)[:, ::-1].astype(float), noise], mask)
    assert not result.product(REWARD, REWARD).is_positive
    assert not result.gain(2, REWARD, batch=96).is_positive
    assert result.product(REWARD, REWARD).value == pytest.approx(0.0, abs=1e-12)
    assert result.product(LENGTH, LENGTH).value == pytest.approx(0.0, abs=1e-12)


def test_kinds_of_advantages_are_held_one_after_the_other() -> None:
    mask, held = np.ones((4, 3), dtype=bool), list[weakref.ref[NDArray[np.float64]]]()

    def kinds() -> Iterator[NDArray[np.float64]]:
        for number in range(5):
            kind = np.full((4, 3), float(number))
            held.append(weakref.ref(kind))
            yield kind
            del kind
            assert sum(one() is not None for one in held) <= 1

    assert len(later_length_gradients(kinds(), mask, np.array([0, 0, 1, 1]))) == 5
