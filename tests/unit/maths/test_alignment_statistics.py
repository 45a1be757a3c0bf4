"""Cosines, gains and their noise from dot products of chunks: by pencil, and against gradients that are known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vcppo.errors import DataError
from vcppo.maths.alignment import Alignments

Floats = NDArray[np.float64]


def alignments(gradients: Floats, counts: list[int], resamples: int = 200) -> Alignments:
    """Of gradients [V, C, P]."""
    products = np.einsum("acp,bdp->abcd", gradients, gradients)
    return Alignments(products, np.array(counts), rng=np.random.default_rng(0), resamples=resamples)


def test_by_pencil_two_directions_in_two_chunks_of_two_and_three_responses() -> None:
    """a: (4, 0) and (3, 3); b: (2, 2) and (0, 3). Pairs of responses in different chunks: 2 * 2 * 3."""
    result = alignments(np.array([[[4.0, 0.0], [3.0, 3.0]], [[2.0, 2.0], [0.0, 3.0]]]), [2, 3])
    square_a, square_b, product = 2 * 12 / 12, 2 * 6 / 12, (0 + 12) / 12  # <a1, b2> = 0, <a2, b1> = 12
    assert result.product(0, 0).value == pytest.approx(square_a)
    assert result.product(1, 1).value == pytest.approx(square_b)
    assert result.product(0, 1).value == result.product(1, 0).value == pytest.approx(product)
    assert result.cosine(0, 1).value == pytest.approx(product / (square_a * square_b) ** 0.5)
    assert result.change(0, 1).value == pytest.approx(product / square_a**0.5)
    spread = (16 + 18) / 5 - square_a * (4 + 9) / 5
    assert result.signal_to_noise(0, batch=6).value == pytest.approx((square_a * 6 / spread) ** 0.5)
    assert result.gain(0, 1, batch=6).value == pytest.approx(product / (square_a + spread / 6) ** 0.5)
    assert result.halves(0).value == pytest.approx(square_a / (square_a + spread / 2.5))
    relative = result.gain(0, 1, batch=6).value / result.gain(1, 1, batch=6).value
    assert result.relative_gain(0, 1, 1, batch=6).value == pytest.approx(relative)


def drawn(means: Floats, noise: Floats, chunks: int, size: int, rng: np.random.Generator) -> Floats:
    """[V, C, P] sums over `size` responses of gradients with these means [V, P], that share this noise [P]."""
    single = means[:, None, None] + noise * rng.standard_normal((chunks, size, means.shape[1]))
    return np.asarray(single.sum(axis=2), dtype=np.float64)


def test_noise_that_directions_share_is_no_agreement() -> None:
    """Orthogonal means under common noise 20 times as long: plain cosines of sums would be near 1."""
    rng, means = np.random.default_rng(1), np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    gradients = drawn(means, np.full(4, 10.0), chunks=64, size=100, rng=rng)
    result = alignments(gradients, [100] * 64)
    for a, b, want in ((0, 0, 1.0), (1, 1, 1.0), (0, 1, 0.0)):
        assert abs(result.product(a, b).value - want) < 4 * result.product(a, b).error
    spread = 400.0
    wanted = (64 / spread) ** 0.5
    assert result.signal_to_noise(0, batch=64).value == pytest.approx(wanted, rel=0.5)
    half = result.halves(0)
    assert half.interval.low < 1 / (1 + spread / 3200) < half.interval.high


def test_the_best_candidate_is_the_one_whose_batch_goes_up_most_and_not_the_least_biased() -> None:
    """Target e1. Unbiased and noisy, a little biased with a fifth of the noise, against it, as good as the second."""
    rng = np.random.default_rng(2)
    e1, e2 = np.eye(8)[0], np.eye(8)[1]
    cases = [(e1, 5.0), (e1 + 0.3 * e2, 1.0), (-e1, 1.0), (1.01 * (e1 + 0.3 * e2), 1.01)]
    single = np.stack([mean + noise * rng.standard_normal((64, 30, 8)) for mean, noise in cases])
    target = e1 + 0.5 * rng.standard_normal((64, 30, 8))
    result = alignments(np.concatenate([target[None], single]).sum(axis=2), [30] * 64)
    best, alike = result.best([1, 2, 3, 4], 0, batch=10)
    assert best in (2, 4)
    assert set(alike) == {2, 4}
    assert result.gain(3, 0, batch=10).is_negative
    assert result.cosine(1, 0).value > result.cosine(2, 0).value  # no bias
    assert result.best([1, 2], 0, batch=10_000)[0] == 1  # a large batch has no noise to speak of


def test_noise_alone_is_seldom_told_to_be_a_signal() -> None:
    rng, described = np.random.default_rng(3), 0
    for _ in range(200):
        result = alignments(rng.standard_normal((2, 16, 30)), [1] * 16)
        described += (
            result.product(0, 0).is_positive + result.product(0, 1).is_positive + result.product(0, 1).is_negative
        )
    assert described <= 18  # 3 % of 600; 2.5 % each is claimed


def test_what_has_no_length_has_no_cosine() -> None:
    result = alignments(np.array([[[1.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]]), [1, 1])
    assert np.isnan(result.cosine(0, 1).value)
    assert np.isnan(result.change(0, 1).value)
    assert result.signal_to_noise(0, batch=5).value == 0.0
    assert result.responses_needed(0) is None


def test_needed_responses_grow_with_the_error_over_the_signal() -> None:
    rng = np.random.default_rng(4)
    gradients = drawn(np.full((1, 50), 0.02), np.full(50, 1.0), chunks=32, size=10, rng=rng)
    result = alignments(gradients, [10] * 32)
    product = result.product(0, 0)
    needed = result.responses_needed(0)
    assert (needed is None) == (product.value <= 0)
    if needed is not None:
        assert needed == pytest.approx(320 * max(2 * product.error / product.value, 1), abs=1)


def test_one_chunk_and_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match="1 group of responses; expected 2 or more"):
        alignments(np.ones((1, 1, 3)), [4])
    with pytest.raises(DataError, match=r"products of shape \(1, 1, 2, 2\) beside 3 groups"):
        Alignments(np.ones((1, 1, 2, 2)), np.ones(3, dtype=np.int64), rng=np.random.default_rng(0), resamples=5)
