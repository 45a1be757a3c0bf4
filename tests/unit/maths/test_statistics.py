"""Scores and intervals, against counting, closed forms and SciPy; degenerate samples without a warning."""

import itertools
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy import stats

from vcppo.errors import DataError
from vcppo.maths.statistics import (
    Interval,
    avg_at_k,
    bootstrap_interval,
    count_intervals,
    pass_at_k,
    probability_of_improvement,
    probability_of_improvement_interval,
    sample_intervals,
    two_level_interval,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def both(interval: Interval) -> tuple[float, float]:
    return interval.low, interval.high


def test_importing_statistics_does_not_load_torch() -> None:
    code = "import sys, vcppo.maths.statistics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_avg_at_k_is_the_share_of_right_samples() -> None:
    assert avg_at_k([0, 1, 4], [4, 2, 4]).tolist() == [0, 0.5, 1]


@pytest.mark.parametrize(("samples", "k"), [(1, 1), (4, 1), (4, 3), (6, 4), (7, 7)])
def test_pass_at_k_is_what_counting_every_subset_gives(samples: int, k: int) -> None:
    for correct in range(samples + 1):
        responses = [True] * correct + [False] * (samples - correct)
        subsets = list(itertools.combinations(responses, k))
        expected = sum(any(subset) for subset in subsets) / len(subsets)
        assert pass_at_k([correct], samples, k).tolist() == pytest.approx([expected], rel=1e-12)


def test_pass_at_one_is_avg() -> None:
    correct, samples = [0, 3, 5, 8], [8, 4, 5, 100]
    np.testing.assert_allclose(pass_at_k(correct, samples, 1), avg_at_k(correct, samples), rtol=1e-13)


def test_pass_at_k_does_not_overflow() -> None:
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
def test_impossible_counts_are_told(correct: list[int], samples: int | list[int], k: int, told: str) -> None:
    with pytest.raises(DataError, match=told):
        pass_at_k(correct, samples, k)


def test_interval_of_a_mean_is_the_normal_one_when_values_are_many() -> None:
    values = rng().normal(3.0, 2.0, size=400)
    found = bootstrap_interval(values, np.mean, rng=rng(1), confidence=0.9)
    half = stats.norm.ppf(0.95) * values.std() / 20
    assert both(found) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05 * half)


def test_intervals_widen_with_confidence_and_hold_the_statistic() -> None:
    values = rng().normal(size=30)
    narrow, wide = (bootstrap_interval(values, np.median, rng=rng(1), confidence=c) for c in (0.5, 0.99))
    assert wide.low < narrow.low < np.median(values) < narrow.high < wide.high


def test_interval_of_a_share_stays_between_nothing_and_all() -> None:
    """One of ten: percentiles reach from 0 upwards, where an interval mirrored about 0.1 would fall below it."""
    found = bootstrap_interval([0.0] * 9 + [1.0], np.mean, rng=rng())
    assert both(found) == pytest.approx((0.0, 0.3), abs=1e-12)


def test_a_statistic_that_knows_no_axis_serves_too() -> None:
    values = rng().normal(size=20)
    found = bootstrap_interval(values, lambda x: float(np.mean(x)), rng=rng(1), resamples=500)
    assert found == bootstrap_interval(values, np.mean, rng=rng(1), resamples=500)


def test_the_same_generator_gives_the_same_interval_and_another_another() -> None:
    values = rng().normal(size=20)
    found = [bootstrap_interval(values, np.mean, rng=rng(seed), resamples=500) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.0, 0.25])
def test_equal_values_have_an_unknown_interval_and_not_one_of_no_width(value: float) -> None:
    """Five runs at 0 do not show that a sixth would be: a bootstrap of them cannot say anything."""
    assert all(map(math.isnan, both(bootstrap_interval([value] * 5, np.mean, rng=rng()))))
    assert all(map(math.isnan, both(two_level_interval(np.full((5, 200), value), rng=rng()))))
    lengths = sample_interval([np.full((4, 8), value)], lambda x: x.mean(-1), fixed_problems=False, rng=rng())
    assert all(map(math.isnan, both(lengths)))


@pytest.mark.parametrize("values", [[0.3], [0.1, math.nan, 0.2]])
def test_one_value_or_a_missing_one_has_an_unknown_interval(values: list[float]) -> None:
    assert all(map(math.isnan, both(bootstrap_interval(values, np.mean, rng=rng()))))


@pytest.mark.parametrize("table", [[[0.1, 0.2, 0.3]], [[0.1], [0.2], [0.3]], [[0.1, 0.2], [0.3, math.nan]]])
def test_one_seed_one_problem_or_a_missing_cell_has_an_unknown_interval(table: list[list[float]]) -> None:
    assert all(map(math.isnan, both(two_level_interval(table, rng=rng()))))


def test_values_of_the_wrong_shape_are_told() -> None:
    with pytest.raises(DataError, match=r"shape \(0,\)"):
        bootstrap_interval([], np.mean, rng=rng())
    with pytest.raises(DataError, match=r"shape \(1, 2\)"):
        probability_of_improvement_interval([1.0], [[1.0, 2.0]])
    with pytest.raises(DataError, match=r"shape \(3,\)"):
        two_level_interval([1.0, 2.0, 3.0], rng=rng())


def test_two_levels_find_the_spread_of_seeds_that_problems_share() -> None:
    """Every problem scores its seed's number: the interval is that of the seeds alone, however many the problems."""
    seeds = rng().normal(size=8)
    table = np.repeat(seeds[:, None], 300, axis=1)
    found, alone = two_level_interval(table, rng=rng(1)), bootstrap_interval(seeds, np.mean, rng=rng(2))
    assert both(found) == pytest.approx(both(alone), abs=0.05)


def test_two_levels_find_the_spread_of_problems_that_seeds_share() -> None:
    """Problems are the same for every seed: more seeds make the interval of a set of problems no narrower."""
    problems = rng().uniform(size=50)
    few, many = (two_level_interval(np.repeat(problems[None], n, axis=0), rng=rng(1)) for n in (2, 40))
    alone = bootstrap_interval(problems, np.mean, rng=rng(2))
    for found in (few, many):
        assert both(found) == pytest.approx(both(alone), abs=0.01)


def test_two_levels_add_their_variances() -> None:
    seeds, problems = rng(3).normal(0, 1, size=200), rng(4).normal(0, 1, size=100)
    found = two_level_interval(seeds[:, None] + problems[None, :], rng=rng(1))
    half = stats.norm.ppf(0.975) * math.sqrt(seeds.var() / 200 + problems.var() / 100)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.05)  # 10 000 resamples: 1 to 2 % of noise


def shares(n: int) -> np.ndarray:
    return np.arange(n + 1) / n


def count_interval(correct: ArrayLike, scores: np.ndarray, **options: Any) -> Interval:
    (found,) = count_intervals(correct, [scores], **options)
    return found


def sample_interval(tables: Sequence[ArrayLike], statistic: Callable[..., np.ndarray], **options: Any) -> Interval:
    (found,) = sample_intervals(tables, lambda *drawn: statistic(*drawn)[None], **options)
    return found


@pytest.mark.parametrize("fixed", [False, True])
def test_drawing_counts_is_drawing_samples(fixed: bool) -> None:
    """Against a plain loop that draws problems, then responses of theirs, one by one."""
    correct, n, k, draw = [0, 1, 3, 4, 8, 8], 8, 3, rng(5)
    scores = pass_at_k(np.arange(n + 1), n, k)
    found = count_interval(correct, scores, fixed_problems=fixed, rng=rng(1), confidence=0.8)
    responses = [[1] * c + [0] * (n - c) for c in correct]
    looped = []
    for _ in range(4000):
        picked = responses if fixed else [responses[i] for i in draw.integers(6, size=6)]
        looped.append(np.mean([scores[sum(draw.choice(row, n))] for row in picked]))
    moved = np.mean(scores[correct]) - np.mean(looped)
    assert both(found) == pytest.approx(tuple(np.quantile(looped, [0.1, 0.9]) + moved), abs=0.025)
    of_samples = sample_interval(
        [responses],
        lambda x: scores[x.reshape(len(x), 6, n).sum(axis=2).astype(int)].mean(axis=1),
        fixed_problems=fixed,
        rng=rng(2),
        confidence=0.8,
        resamples=6000,
    )
    assert both(of_samples) == pytest.approx(tuple(np.quantile(looped, [0.1, 0.9])), abs=0.025)


def test_intervals_of_counts_are_the_normal_ones_when_there_are_many() -> None:
    p, n = rng(3).uniform(size=300), 16
    correct = rng(4).binomial(n, p)
    within = np.mean(correct / n * (1 - correct / n)) / n
    for fixed, variance in [(True, within), (False, within + np.var(correct / n))]:
        found = count_interval(correct, shares(n), fixed_problems=fixed, rng=rng(1))
        half = 1.96 * math.sqrt(variance / 300)
        assert both(found) == pytest.approx((correct.mean() / n - half, correct.mean() / n + half), abs=0.06 * half)


def test_a_score_that_the_bootstrap_misplaces_lies_in_its_interval() -> None:
    """One of 32 right, everywhere: pass@32 is estimated as 1, and resamples, a third of them without it, say 0.64."""
    scores = pass_at_k(np.arange(33), 32, 32)
    found = count_interval([1] * 30, scores, fixed_problems=True, rng=rng())
    assert found.low < 0.9
    assert found.high == 1.0


def test_intervals_cover_what_they_claim() -> None:
    """30 problems of 32 samples, 200 times: 92 to 94 % in the long run, and 200 times are off by 1.8 %."""
    draw, n, k = rng(11), 32, 4
    everyone = draw.beta(0.4, 0.8, size=10**6)
    of_all = everyone.mean(), (1 - (1 - everyone) ** k).mean()
    scores = [shares(n), pass_at_k(np.arange(n + 1), n, k)]
    hits: dict[tuple[str, bool], list[bool]] = {}
    for trial in range(200):
        p = draw.beta(0.4, 0.8, size=30)
        correct = draw.binomial(n, p)
        for fixed, truths in [(False, of_all), (True, (p.mean(), (1 - (1 - p) ** k).mean()))]:
            found = count_intervals(correct, scores, fixed_problems=fixed, rng=rng(trial), resamples=200)
            for name, interval, truth in zip(("avg", "pass"), found, truths, strict=True):
                hits.setdefault((name, fixed), []).append(interval.low <= truth <= interval.high)
    for which, covered in hits.items():
        assert 0.88 <= np.mean(covered) <= 0.98, which


def test_a_difference_of_counts_is_of_the_same_problems() -> None:
    """The same score everywhere but for one more right: problems that differ widely make it no less sure."""
    before = np.array([0, 4, 8, 12] * 20)
    found = count_interval(before + 4, shares(16), fixed_problems=False, rng=rng(1), baseline=before)
    within = [np.mean(c / 16 * (1 - c / 16)) / 16 for c in (before, before + 4)]
    half = 1.96 * math.sqrt(sum(within) / 80)
    assert both(found) == pytest.approx((0.25 - half, 0.25 + half), abs=0.06 * half)
    reverse = count_interval(before, shares(16), fixed_problems=False, rng=rng(1), baseline=before + 4)
    assert reverse.high < 0


def test_a_statistic_of_some_samples_only_leaves_out_draws_without_any() -> None:
    lengths, right = [[1.0, 2.0], [3.0, 4.0]], [[1.0, 0.0], [1.0, 0.0]]
    quotient = lambda x, w: np.where(w.sum(-1) > 0, (x * w).sum(-1) / np.maximum(w.sum(-1), 1), np.nan)  # noqa: E731
    found = sample_interval([lengths, right], quotient, fixed_problems=False, rng=rng())
    assert both(found) == (1.0, 3.0)
    none = sample_interval([lengths, np.zeros((2, 2))], quotient, fixed_problems=False, rng=rng())
    assert all(map(math.isnan, both(none)))


def test_one_problem_cannot_tell_of_problems_nor_one_sample_of_samples() -> None:
    known = {"rng": rng(), "resamples": 50}
    assert all(map(math.isnan, both(count_interval([3], shares(8), fixed_problems=False, **known))))
    assert all(map(math.isnan, both(count_interval([0, 1], shares(1), fixed_problems=True, **known))))
    assert not math.isnan(count_interval([3], shares(8), fixed_problems=True, **known).low)
    assert not math.isnan(count_interval([0, 1], shares(1), fixed_problems=False, **known).low)
    mean = lambda x: x.mean(-1)  # noqa: E731
    assert all(map(math.isnan, both(sample_interval([[[1.0, 2.0]]], mean, fixed_problems=False, **known))))
    assert all(map(math.isnan, both(sample_interval([[[1.0], [2.0]]], mean, fixed_problems=True, **known))))


def test_counts_and_tables_that_do_not_fit_are_told() -> None:
    with pytest.raises(DataError, match="problem 1: 9 correct of 8"):
        count_interval([1, 9], shares(8), fixed_problems=True, rng=rng())
    with pytest.raises(DataError, match="2 problems beside a baseline of 3"):
        count_interval([1, 2], shares(8), fixed_problems=True, rng=rng(), baseline=[1, 2, 3])
    with pytest.raises(DataError, match=r"shapes \[\(1, 2\), \(2, 1\)\]"):
        sample_interval([[[1, 2]], [[1], [2]]], np.mean, fixed_problems=True, rng=rng())


def test_probability_of_improvement_counts_pairs_and_halves_ties() -> None:
    x, y = rng().integers(0, 6, size=13), rng(1).integers(0, 6, size=9)
    pairs = [(a > b) + 0.5 * (a == b) for a in x for b in y]
    assert probability_of_improvement(x, y) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert probability_of_improvement(x, y) == pytest.approx(stats.mannwhitneyu(x, y).statistic / (13 * 9), rel=1e-12)


def test_probability_of_improvement_and_its_reverse_add_up_to_one() -> None:
    x, y = rng().normal(size=7), rng(1).normal(1.0, size=5)
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1)
    assert probability_of_improvement(x, x) == 0.5
    assert probability_of_improvement(x + 100, y) == 1


@pytest.mark.parametrize(
    ("x", "y", "low", "high"),
    [
        ([2.0] * 5, [1.0] * 5, 0.025 ** (1 / 5), 1.0),
        ([3.0, 4.0], [1.0, 2.0], 0.025 ** (1 / 2), 1.0),
        ([1.0, 2.0, 0.5], [7.0, 8.0, 9.0], 0.0, 1 - 0.025 ** (1 / 3)),
        ([9.0] * 10, [1.0] * 5, 0.025 ** (1 / 5), 1.0),
        ([5.0], [1.0], 0.025, 1.0),
    ],
)
def test_methods_that_do_not_overlap_are_not_told_apart_for_sure(
    x: list[float], y: list[float], low: float, high: float
) -> None:
    """n of n pairs above: at P = low so many would all be above with chance 2.5 %."""
    assert both(probability_of_improvement_interval(x, y)) == pytest.approx((low, high), rel=1e-12)


def test_an_interval_of_pairs_is_that_of_a_share_of_so_many_trials() -> None:
    found = probability_of_improvement_interval([5.0, 6.0, 7.0, -1.0, -2.0], [0.0] * 5)
    exact = stats.binomtest(3, 5).proportion_ci(method="exact")
    assert both(found) == pytest.approx((exact.low, exact.high), rel=1e-9)


@pytest.mark.parametrize("values", [[0.1, math.nan, 0.2], [math.nan]])
def test_a_missing_score_leaves_the_probability_unknown(values: list[float]) -> None:
    assert all(map(math.isnan, both(probability_of_improvement_interval(values, [1.0, 2.0]))))
    assert all(map(math.isnan, both(probability_of_improvement_interval([1.0, 2.0], values))))


@pytest.mark.parametrize("truth", [0.6, 0.9, 0.97])
@pytest.mark.parametrize("kind", ["normal", "constant", "skewed"])
def test_the_interval_of_5_against_5_runs_covers_the_truth(truth: float, kind: str) -> None:
    """If one method always ends alike, the runs above it are 5 trials, and no shorter interval would do."""
    draw, hits, trials = rng(7), 0, 400
    for _ in range(trials):
        if kind == "normal":
            x, y = draw.normal(stats.norm.ppf(truth) * math.sqrt(2), size=5), draw.normal(size=5)
        elif kind == "constant":
            x, y = np.where(draw.random(5) < truth, 1.0, -1.0), np.zeros(5)
        else:  # P(X > Y) of two exponentials is the share of X's mean
            x, y = draw.exponential(truth, size=5), draw.exponential(1 - truth, size=5)
        interval = probability_of_improvement_interval(x, y)
        hits += interval.low <= truth <= interval.high
    assert hits / trials >= 0.95 - 0.011  # a standard error of 400 trials


@pytest.mark.parametrize(
    ("correct", "n", "k", "fixed", "low", "high"),
    [
        ([0] * 30, 32, 1, False, 0.0, 1 - 0.025 ** (1 / 30)),
        ([0] * 30, 32, 1, True, 0.0, 1 - 0.025 ** (1 / 960)),
        ([0] * 30, 32, 8, True, 0.0, 1 - 0.025 ** (8 / 960)),
        ([0] * 5, 4, 4, False, 0.0, 1 - 0.025 ** (1 / 5)),
        ([32] * 30, 32, 1, True, 0.025 ** (1 / 960), 1.0),
        ([4] * 5, 4, 2, False, 0.025 ** (1 / 5), 1.0),
    ],
)
def test_all_samples_wrong_or_all_right_leave_one_end_free(
    correct: list[int], n: int, k: int, fixed: bool, low: float, high: float
) -> None:
    """Against [0, 0]: none of 30 problems solved, 32 samples each, does not show that none can be."""
    found = count_interval(correct, pass_at_k(np.arange(n + 1), n, k), fixed_problems=fixed, rng=rng())
    assert both(found) == pytest.approx((low, high), rel=1e-12)


def test_a_difference_of_nothing_from_nothing_has_an_unknown_interval() -> None:
    found = count_interval([0] * 9, shares(8), fixed_problems=True, rng=rng(), baseline=[0] * 9)
    assert all(map(math.isnan, both(found)))
    alike = count_interval([0, 8, 8], shares(8), fixed_problems=True, rng=rng())
    assert all(map(math.isnan, both(alike))), "samples of a problem never differed: how they vary was not seen"
