"""Scores and intervals, against counting, closed forms and SciPy; degenerate samples without a warning."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from vcppo.errors import DataError
from vcppo.maths.statistics import (
    Interval,
    avg_at_k,
    bootstrap_interval,
    interquartile_mean,
    pass_at_k,
    probability_of_improvement,
    probability_of_improvement_interval,
    two_level_interval,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def both(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def test_importing_statistics_does_not_load_torch():
    code = "import sys, vcppo.maths.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_avg_at_k_is_the_share_of_right_samples():
    assert avg_at_k([0, 1, 4], [4, 2, 4]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(("samples", "k"), [(1, 1), (4, 1), (4, 3), (6, 4), (7, 7)])
def test_pass_at_k_is_what_counting_every_subset_gives(samples: int, k: int):
    for correct in range(samples + 1):
        answers = [True] * correct + [False] * (samples - correct)
        subsets = list(itertools.combinations(answers, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k([correct], samples, k).tolist() == pytest.approx([expected], rel=1e-12)


def test_pass_at_one_is_avg():
    correct, samples = [0, 3, 5, 8], [8, 4, 5, 100]
    np.testing.assert_allclose(pass_at_k(correct, samples, 1), avg_at_k(correct, samples), rtol=1e-13)


def test_pass_at_k_does_not_overflow():
    """C(10000, 5000) has 3009 digits; a single right one of 10000 is in half of all halves."""
    assert pass_at_k([1, 0, 10_000], 10_000, 5_000).tolist() == pytest.approx([0.5, 0, 1], rel=1e-10)


@pytest.mark.parametrize(
    ("correct", "samples", "k", "told"),
    [
        ([1, 2], 8, 9, "k = 9"),
        ([1, 2], 8, 0, "k = 0"),
        ([1, 5], [8, 4], 2, "problem 1: 5 correct of 4"),
        ([-1], 8, 2, "problem 0: -1 correct"),
        ([0], 0, 1, "of 0 samples"),
        ([], 8, 1, "no problem"),
    ],
)
def test_impossible_counts_are_told(correct: list[int], samples: int | list[int], k: int, told: str):
    with pytest.raises(DataError, match=told):
        pass_at_k(correct, samples, k)


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0, 1, 2, 3, 4, 5, 6, 1000]) == 3.5
    assert interquartile_mean([1, 2, 900]) == 301, "a quarter of three is no value at all"
    assert interquartile_mean([[9, 1], [2, 3]]) == 2.5, "of all values, whatever the shape"


def test_interval_of_a_mean_is_the_normal_one_when_values_are_many():
    values = rng().normal(3.0, 2.0, size=400)
    found = bootstrap_interval(values, np.mean, rng=rng(1), confidence=0.9)
    half = stats.norm.ppf(0.95) * values.std() / 20
    assert both(found) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_intervals_widen_with_confidence_and_hold_the_statistic():
    values = rng().normal(size=30)
    narrow, wide = (bootstrap_interval(values, interquartile_mean, rng=rng(1), confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < interquartile_mean(values) < narrow.high < wide.high


def test_interval_of_a_share_stays_between_nothing_and_all():
    """One of ten: percentiles reach from 0 upwards, where an interval mirrored about 0.1 would fall below it."""
    found = bootstrap_interval([0.0] * 9 + [1.0], np.mean, rng=rng())
    assert both(found) == pytest.approx((0.0, 0.3), abs=1e-12)


def test_a_statistic_that_knows_no_axis_serves_too():
    values = rng().normal(size=20)
    found = bootstrap_interval(values, lambda x: float(np.mean(x)), rng=rng(1), resamples=500)
    assert found == bootstrap_interval(values, np.mean, rng=rng(1), resamples=500)


def test_the_same_generator_gives_the_same_interval_and_another_another():
    values = rng().normal(size=20)
    found = [bootstrap_interval(values, np.mean, rng=rng(seed), resamples=500) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_equal_values_have_an_interval_of_no_width():
    found = bootstrap_interval([0.1] * 5, interquartile_mean, rng=rng())
    assert both(found) == pytest.approx((0.1, 0.1), rel=1e-15)
    assert found.low == found.high
    assert two_level_interval(np.full((3, 4), 0.25), rng=rng()) == Interval(0.25, 0.25)


@pytest.mark.parametrize("values", [[0.3], [0.1, math.nan, 0.2]])
def test_one_value_or_a_missing_one_has_an_unknown_interval(values: list[float]):
    assert all(map(math.isnan, both(bootstrap_interval(values, np.mean, rng=rng()))))
    assert all(map(math.isnan, both(probability_of_improvement_interval(values, [1.0, 2.0], rng=rng()))))
    assert all(map(math.isnan, both(probability_of_improvement_interval([1.0, 2.0], values, rng=rng()))))


@pytest.mark.parametrize("table", [[[0.1, 0.2, 0.3]], [[0.1], [0.2], [0.3]], [[0.1, 0.2], [0.3, math.nan]]])
def test_one_seed_one_problem_or_a_missing_cell_has_an_unknown_interval(table: list[list[float]]):
    assert all(map(math.isnan, both(two_level_interval(table, rng=rng()))))


def test_values_of_the_wrong_shape_are_told():
    with pytest.raises(DataError, match=r"shape \(0,\)"):
        bootstrap_interval([], np.mean, rng=rng())
    with pytest.raises(DataError, match=r"shape \(1, 2\)"):
        probability_of_improvement_interval([1.0], [[1.0, 2.0]], rng=rng())
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        two_level_interval([1.0, 2.0, 3.0], rng=rng())


def test_two_levels_find_the_spread_of_seeds_that_problems_share():
    """Every problem scores its seed's number: the interval is that of the seeds alone, however many the problems."""
    seeds = rng().normal(size=8)
    table = np.repeat(seeds[:, None], 300, axis=1)
    found, alone = two_level_interval(table, rng=rng(1)), bootstrap_interval(seeds, np.mean, rng=rng(2))
    assert both(found) == pytest.approx(both(alone), abs=0.05)


def test_two_levels_find_the_spread_of_problems_that_seeds_share():
    """Problems are the same for every seed: more seeds make the interval of a set of problems no narrower."""
    problems = rng().uniform(size=50)
    few, many = (two_level_interval(np.repeat(problems[None], n, axis=0), rng=rng(1)) for n in (2, 40))
    alone = bootstrap_interval(problems, np.mean, rng=rng(2))
    for found in (few, many):
        assert both(found) == pytest.approx(both(alone), abs=0.01)


def test_two_levels_add_their_variances():
    seeds, problems = rng(3).normal(0, 1, size=200), rng(4).normal(0, 1, size=100)
    found = two_level_interval(seeds[:, None] + problems[None, :], rng=rng(1))
    half = stats.norm.ppf(0.975) * math.sqrt(seeds.var() / 200 + problems.var() / 100)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)  # 10 000 resamples: 1 to 2 % of noise


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    x, y = rng().integers(0, 6, size=13), rng(1).integers(0, 6, size=9)
    pairs = [(a > b) + 0.5 * (a == b) for a in x for b in y]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert probability_of_improvement(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / (13 * 9), rel=1e-12)


def test_probability_of_improvement_and_its_reverse_add_up_to_one():
    x, y = rng().normal(size=7), rng(1).normal(1.0, size=5)
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)
    assert probability_of_improvement(x, x) == 0.5
    assert probability_of_improvement(x + 100, y) == 1


def test_interval_of_the_probability_of_improvement_resamples_each_method_apart():
    """Against a plain loop over resamples."""
    x, y = rng().normal(0.5, size=10), rng(1).normal(size=6)
    found = probability_of_improvement_interval(x, y, rng=rng(2), confidence=0.9)
    draw = rng(3)
    looped = [probability_of_improvement(draw.choice(x, 10), draw.choice(y, 6)) for _ in range(4000)]
    assert both(found) == pytest.approx(tuple(np.quantile(looped, [0.05, 0.95])), abs=0.03)
    assert found.low < probability_of_improvement(x, y) < found.high


def test_methods_that_do_not_overlap_are_told_apart_for_sure():
    assert probability_of_improvement_interval([3.0, 4.0], [1.0, 2.0], rng=rng()) == Interval(1.0, 1.0)
    assert probability_of_improvement_interval([1.0, 1.0], [1.0, 1.0], rng=rng()) == Interval(0.5, 0.5)
