"""Intervals over prompts: what is drawn together, what has no interval, and how often they cover."""

import math

import numpy as np
import pytest

from vcppo.errors import DataError
from vcppo.maths import prompt_bootstrap as module
from vcppo.maths.prompt_bootstrap import Array, Measured, PromptBootstrap, outer_tail, prompt_bootstrap


def mean(total: Array) -> Array:
    result: Array = total[..., 1:] / total[..., :1]
    return result


def mean_of(x: Array, prompt: list[int], *, resamples: int = 400, seed: int = 0) -> Measured:
    bootstrap = prompt_bootstrap(prompt, resamples=resamples, rng=np.random.default_rng(seed))
    return bootstrap.measured(mean, bootstrap.sums(bootstrap.unit[bootstrap.prompt], [np.ones_like(x), x])[:, 0])


def test_sums_by_unit_and_bin() -> None:
    bootstrap = prompt_bootstrap([7, 3, 7], resamples=3, rng=np.random.default_rng(0))
    assert bootstrap.prompt.tolist() == [1, 0, 1], "numbered by id"
    result = bootstrap.sums(bootstrap.prompt, [np.array([1.0, 2, 3]), np.array([10.0, 20, 30])], 2, np.array([0, 1, 1]))
    assert result.tolist() == [[[0, 0], [2, 20]], [[1, 10], [3, 30]]]


def test_every_resample_draws_as_many_prompts_as_there_are_with_all_that_is_theirs() -> None:
    bootstrap = prompt_bootstrap([0, 0, 0, 1, 2], resamples=50, rng=np.random.default_rng(0))
    assert bootstrap.counts.shape == (50, 3)
    assert (bootstrap.counts.sum(axis=1) == 3).all()
    drawn = bootstrap.drawn(np.array([[3.0], [1.0], [1.0]]))[:, 0]
    assert drawn.tolist() == (bootstrap.counts @ [3, 1, 1]).tolist()


def test_one_prompt_has_no_interval() -> None:
    result = mean_of(np.array([0.0, 1.0, 2.0]), [5, 5, 5])
    assert result.value.tolist() == [1.0]
    assert np.isnan([result.low, result.high]).all()


def test_no_interval_where_all_resamples_agree() -> None:
    result = mean_of(np.full(6, 0.1), [0, 0, 1, 1, 2, 2])
    assert result.value == pytest.approx([0.1])
    assert np.isnan([result.low, result.high]).all()


def test_no_interval_where_a_statistic_is_often_undefined() -> None:
    bootstrap = prompt_bootstrap(range(10), resamples=200, rng=np.random.default_rng(0))
    resampled = np.linspace(0, 1, 200)[:, None] + np.zeros((1, 2))
    resampled[:10, 0] = math.nan  # 5 % are left out
    resampled[:30, 1] = math.nan  # 15 % are too many
    result = bootstrap.interval(np.array([0.5, 0.5]), resampled)
    assert np.isfinite(result.low).tolist() == [True, False]


def test_few_units_take_wider_percentiles() -> None:
    """Ten units: Student's quantile 2.262 times sqrt(10 / 9) is 2.385, beyond which the normal has 0.85 %."""
    assert outer_tail(10, 0.95) == pytest.approx(0.00855, abs=1e-4)
    assert outer_tail(10**6, 0.95) == pytest.approx(0.025, abs=1e-5)


def test_beyond_so_many_prompts_groups_of_them_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, prompts = rng.standard_normal(3_000), np.repeat(np.arange(1_000), 3)
    one_by_one = mean_of(x, prompts.tolist())
    monkeypatch.setattr(module, "MOST_UNITS", 128)
    grouped = mean_of(x, prompts.tolist())
    assert grouped.value == pytest.approx(one_by_one.value)
    assert (grouped.high - grouped.low)[0] == pytest.approx((one_by_one.high - one_by_one.low)[0], rel=0.25)
    bootstrap = prompt_bootstrap(prompts, resamples=5, rng=rng)
    assert (bootstrap.units, bootstrap.prompts) == (128, 1_000)
    per_prompt = np.ones((1_000, 2))
    assert bootstrap.per_unit(per_prompt).sum(axis=0).tolist() == [1_000, 1_000]


@pytest.mark.parametrize("prompts", [10, 40])
def test_intervals_cover_as_often_as_they_say(prompts: int) -> None:
    """Responses to a prompt that are alike: 95 % of 300 intervals hold the mean, 90 to 98.5 % being what chance allows.

    Over responses as if they were independent, half-widths would be a third of these.
    """
    rng, held, sims = np.random.default_rng(1), 0, 300
    for _ in range(sims):
        x = np.repeat(rng.standard_normal(prompts), 12) + 0.3 * rng.standard_normal(12 * prompts)
        result = mean_of(x, np.repeat(np.arange(prompts), 12).tolist(), resamples=300, seed=int(rng.integers(2**31)))
        held += bool(result.low[0] <= 0 <= result.high[0])
    assert 0.90 <= held / sims <= 0.985


def test_no_response_is_an_error() -> None:
    with pytest.raises(DataError, match="no response"):
        prompt_bootstrap([], resamples=10, rng=np.random.default_rng(0))


def resampled_value(bootstrap: PromptBootstrap, result: Measured) -> float:
    """Value of the second of two resamples, where the first is the data: both ends are between the two."""
    assert len(bootstrap.counts) == 2
    return float(result.low[0] + result.high[0] - result.value[0])


def test_the_only_other_resample_can_be_read_from_both_ends() -> None:
    bootstrap = PromptBootstrap(np.array([0, 1]), np.array([0, 1]), np.array([[1.0, 1], [2, 0]]))
    result = bootstrap.measured(mean, np.array([[1.0, 5.0], [1.0, 9.0]]))
    assert result.value.tolist() == [7.0]
    assert resampled_value(bootstrap, result) == pytest.approx(5.0)


def test_agreeing_resamples_are_told_from_a_number_that_is_often_undefined() -> None:
    """Of ten prompts one has a pair: it is drawn in 65 % of resamples, and its number is the same in all of them."""
    bootstrap = prompt_bootstrap(np.arange(10), resamples=200, rng=np.random.default_rng(0))
    one = np.stack([np.eye(10)[0], 3 * np.eye(10)[0]], axis=1)
    every = np.stack([np.ones(10), np.full(10, 3.0)], axis=1)

    def ratio(total: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            result: Array = total[..., 1:] / total[..., :1]
        return result

    for sums, agrees in ((one, False), (every, True)):
        result = bootstrap.measured(ratio, sums)
        assert result.value.tolist() == [3.0]
        assert np.isnan([result.low, result.high]).all()
        assert result.agree.tolist() == [agrees]
