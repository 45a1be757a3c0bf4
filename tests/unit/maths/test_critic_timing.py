"""Values of responses to one prompt where these part."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vcppo.maths.critic_timing import first_gaps, splits, timing
from vcppo.maths.prompt_bootstrap import Array, Index, prompt_bootstrap

LIVE = np.arange(6) < np.array([6, 6, 5, 6])[:, None]
TOKENS = np.array([[1, 2, 3, 9, 9, 9], [1, 2, 4, 9, 9, 9], [1, 7, 3, 9, 9, -5], [1, 2, 3, 9, 9, 9]])
PROMPT = np.array([0, 0, 0, 1])


def test_neighbours_in_order_part_where_their_tokens_do() -> None:
    assert splits(TOKENS, LIVE, PROMPT).tolist() == [[0, 1, 2], [1, 2, 1]]


def test_equal_responses_and_those_that_part_at_their_end_make_no_pair() -> None:
    assert splits(TOKENS[[0, 0]], LIVE[[0, 0]], PROMPT[:2]).shape == (0, 3)
    late = np.array([[1, 2, 3, 4], [1, 2, 9, 4]])
    assert splits(late, np.ones((2, 4), dtype=bool), PROMPT[:2]).shape == (0, 3), "no two tokens after the split"
    assert splits(TOKENS[[0, 3]], LIVE[[0, 3]], np.array([0, 1])).shape == (0, 3), "two prompts"


def test_a_prefix_of_another_response_parts_at_its_end() -> None:
    live = np.array([[True] * 6, [True] * 2 + [False] * 4])
    assert splits(TOKENS[[0, 0]], live, PROMPT[:2]).shape == (0, 3)


def ratios(values: Array) -> list[float]:
    bootstrap = prompt_bootstrap(PROMPT, resamples=5, rng=np.random.default_rng(0))
    return [float(x) for x in timing(values, LIVE, splits(TOKENS, LIVE, PROMPT), bootstrap).value[:3]]


def test_values_in_the_right_place_differ_after_the_split_only() -> None:
    """V sums the tokens before: pair (0, 1) differs by 1 from place 3 on, pair (1, 2) by 5 at 2 and 4 at 3."""
    values = np.concatenate([np.zeros((4, 1)), np.where(LIVE, TOKENS, 0).cumsum(axis=1)[:, :-1]], axis=1)
    assert ratios(values) == pytest.approx([0, 0, (1 + 25) / (1 + 16)])


def test_one_ahead_differs_at_the_split_one_late_not_after_it() -> None:
    ahead = np.where(LIVE, TOKENS, 0).cumsum(axis=1).astype(np.float64)
    before, at, _ = ratios(ahead)
    assert before == 0
    assert at > 0.5
    late = np.concatenate([np.zeros((4, 2)), ahead[:, :-2]], axis=1)
    assert ratios(late)[:3] == [0, 0, 0]


def test_what_rounding_could_make_by_pencil() -> None:
    """Values 128 and 256 two tokens after the split, a 128th of which is 1 and 2: mean square 2.5 over 128^2."""
    values = np.zeros((4, 6))
    values[0, 4], values[1, 4] = 128.0, 256.0
    bootstrap = prompt_bootstrap(PROMPT, resamples=5, rng=np.random.default_rng(0))
    result = timing(values, LIVE, np.array([[0, 1, 2]]), bootstrap)
    assert result.value == pytest.approx([0, 0, 0, 2.5 / 128**2])


def test_noise_differs_everywhere() -> None:
    assert min(ratios(np.random.default_rng(1).standard_normal((4, 6)))) > 0


def test_no_pair_and_no_difference_are_nothing() -> None:
    assert np.isnan(ratios(np.ones((4, 6)))).all()
    bootstrap = prompt_bootstrap(PROMPT, resamples=5, rng=np.random.default_rng(0))
    assert np.isnan(timing(np.ones((4, 6)), LIVE, np.zeros((0, 3), dtype=np.int64), bootstrap).value).all()


def test_values_that_are_not_known_are_left_out() -> None:
    values = np.concatenate([np.zeros((4, 1)), np.where(LIVE, TOKENS, 0).cumsum(axis=1)[:, :-1]], axis=1)
    values[2] = np.nan
    bootstrap = prompt_bootstrap(PROMPT, resamples=5, rng=np.random.default_rng(0))
    result = timing(values, LIVE & np.isfinite(values), splits(TOKENS, LIVE, PROMPT), bootstrap)
    assert result.value[:3] == pytest.approx([0, 0, 1])


def walk(late: int) -> tuple[Array, NDArray[np.bool_], Index]:
    """12 responses of 30 tokens that part at once, each of which counts, and values so many tokens late."""
    tokens = np.tile(np.arange(12)[:, None], (1, 30))
    exact = np.concatenate([np.ones((12, 1)), 1 + tokens.cumsum(axis=1)[:, :-1]], axis=1)
    values = np.concatenate([np.repeat(exact[:, :1], late, axis=1), exact[:, : 30 - late]], axis=1)
    live = np.ones((12, 30), dtype=bool)
    return values, live, splits(tokens, live, np.zeros(12, dtype=np.int64))


@pytest.mark.parametrize("late", [0, 1, 2, 5])
def test_values_that_are_late_begin_to_differ_late(late: int) -> None:
    values, live, pairs = walk(late)
    assert set(first_gaps(values, live, pairs).tolist()) == {late + 1}
    bootstrap = prompt_bootstrap(np.zeros(12, dtype=np.int64), resamples=5, rng=np.random.default_rng(0))
    two_after = timing(values, live, pairs, bootstrap).value
    assert np.isnan(two_after).all() == (late >= 2)
    told = timing(values, live, pairs, bootstrap, unit=max(2, late + 1)).value
    assert told[:2].tolist() == [pytest.approx(np.nan, nan_ok=True), 0]
    assert (told[2] == 0) == (late >= 1)


def test_rounding_and_unknown_values_are_no_first_difference() -> None:
    values, live, pairs = walk(0)
    values[:, 1] = 1 + 0.001 * np.arange(12)
    assert set(first_gaps(values, live, pairs).tolist()) == {2}
    known = live.copy()
    known[:, 2] = False
    assert set(first_gaps(np.where(known, values, np.nan), known, pairs).tolist()) == {3}
    assert len(first_gaps(np.ones((12, 30)), live, pairs)) == 0
