"""AUC by pencil, and against a loop over pairs."""

import numpy as np
import pytest

from vcppo.maths.critic_ranking import auc_across, auc_within, wins_within
from vcppo.maths.prompt_bootstrap import PromptBootstrap, prompt_bootstrap

VALUE = np.array([3.0, 1, 2, 2, 5, 0, 2])
RIGHT = np.array([True, False, False, True, False, True, True])
PROMPT = np.array([0, 0, 0, 1, 1, 2, 2])


def by_loop(weights: list[int], *, within: bool) -> float:
    """Over copies of prompts; a copy makes no pair with another of the same prompt."""
    wins = pairs = 0.0
    for i in np.flatnonzero(RIGHT):
        for j in np.flatnonzero(~RIGHT):
            if (PROMPT[i] == PROMPT[j]) is not np.bool_(within):
                continue
            weight = weights[PROMPT[i]] if within else weights[PROMPT[i]] * weights[PROMPT[j]]
            wins += weight * (1.0 if VALUE[i] > VALUE[j] else 0.5 if VALUE[i] == VALUE[j] else 0.0)
            pairs += weight
    return wins / pairs


def test_wins_within_prompts_by_pencil() -> None:
    """Prompt 0: 3 beats 1 and 2. Prompt 1: 2 loses against 5. Prompt 2: nobody is wrong."""
    assert wins_within(VALUE, RIGHT, PROMPT, 3).tolist() == [[2, 2], [0, 1], [0, 0]]


def test_ties_count_half() -> None:
    assert wins_within(np.ones(4), np.array([True, False, False, True]), np.zeros(4, dtype=np.int64), 1).tolist() == [
        [2, 4]
    ]


def test_across_prompts_by_pencil() -> None:
    """3 loses against 5; 2 of prompt 1 beats 1 and ties with 2; 0 loses thrice; 2 of prompt 2 beats 1, ties, loses."""
    bootstrap = prompt_bootstrap(PROMPT, resamples=50, rng=np.random.default_rng(0))
    assert auc_across(VALUE, RIGHT, bootstrap, PROMPT).value == pytest.approx([(0 + 1.5 + 0 + 1.5) / 9])


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("weights", [[2, 1, 0], [1, 0, 2], [1, 2, 0], [2, 0, 1]])
def test_a_resample_is_the_loop_over_its_copies(weights: list[int], within: bool) -> None:
    counts = np.array([[1.0, 1, 1], weights])
    bootstrap = PromptBootstrap(PROMPT, np.arange(3), counts)
    result = (auc_within if within else auc_across)(VALUE, RIGHT, bootstrap, PROMPT)
    assert result.value == pytest.approx([by_loop([1, 1, 1], within=within)])
    expected = by_loop(weights, within=within)
    if np.isnan(result.low[0]):
        assert expected == pytest.approx(result.value[0])
    else:
        assert result.low[0] + result.high[0] - result.value[0] == pytest.approx(expected)


def test_no_pair_is_nothing() -> None:
    bootstrap = prompt_bootstrap([0, 1], resamples=50, rng=np.random.default_rng(0))
    value, right = np.array([1.0, 2.0]), np.array([True, False])
    assert np.isnan(auc_within(value, right, bootstrap, np.array([0, 1])).value).all()
    assert auc_across(value, right, bootstrap, np.array([0, 1])).value.tolist() == [0.0]


def test_an_order_is_all_that_counts() -> None:
    bootstrap = prompt_bootstrap(PROMPT, resamples=100, rng=np.random.default_rng(0))
    plain, bent = (auc_across(v, RIGHT, bootstrap, PROMPT) for v in (VALUE, np.exp(VALUE) - 7))
    np.testing.assert_array_equal([plain.value, plain.low, plain.high], [bent.value, bent.low, bent.high])
