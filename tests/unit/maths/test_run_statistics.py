"""Statistics of runs within bases, by pencil and by small simulations."""

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from vcppo.errors import DataError
from vcppo.maths.run_statistics import (
    ends_apart,
    nested_bootstrap,
    nested_interval,
    permutation_p,
    run_draws,
    run_weights,
)
from vcppo.maths.statistics import bootstrap_interval, exact_interval, two_level_interval


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


# ---- nested bootstrap ----


def test_one_base_is_the_plain_bootstrap_of_its_seeds() -> None:
    runs = [1.0, 4.0, 2.0, 8.0]
    assert nested_bootstrap({7: runs}, rng=rng()) == bootstrap_interval(runs, np.mean, rng=rng())
    table = np.random.default_rng(1).random((3, 5))
    assert nested_interval(table, [7, 7, 7], rng=rng()) == two_level_interval(table, rng=rng())


def test_bases_that_differ_and_seeds_that_do_not_are_as_many_draws_as_there_are_bases() -> None:
    """Two bases at 0 and 1: both drawn alike with chance 1/2, so 95 % reach from 0 to 1; a plain bootstrap does not."""
    values = {"a": [0.0] * 20, "b": [1.0] * 20}
    nested = nested_bootstrap(values, rng=rng())
    assert (nested.low, nested.high) == (0.0, 1.0)
    plain = bootstrap_interval([*values["a"], *values["b"]], np.mean, rng=rng())
    assert plain.high - plain.low < 0.4


def test_resamples_vary_as_bases_and_seeds_within_them_do_by_pencil() -> None:
    """Means of bases 1, 12, 5: variance 62 / 3. Within them 1, 4, 0: mean 5 / 3, half of it for two seeds."""
    weights = run_weights([0, 0, 1, 1, 2, 2], rng=rng(), resamples=40_000)
    means = weights @ np.array([0.0, 2.0, 10.0, 14.0, 5.0, 5.0])
    assert means.var() == pytest.approx((62 / 3 + 5 / 6) / 3, rel=0.03)
    assert means.mean() == pytest.approx(6.0, abs=0.05)


def test_every_resample_draws_as_many_runs_of_a_base_as_it_has() -> None:
    bases = ["a", "b", "b", "b"]
    drawn = np.array(list(run_draws(bases, rng=rng(), resamples=200)))  # [draws, resamples]
    assert drawn.shape == (6, 200)
    for column in drawn.T:
        for turns in (column[:3], column[3:]):  # two bases drawn
            runs = turns[turns >= 0]
            assert len(runs) == (1 if bases[runs[0]] == "a" else 3)
            assert {bases[run] for run in runs} == {bases[runs[0]]}
    weights = run_weights(bases, rng=rng(), resamples=200)
    assert weights.sum(axis=1) == pytest.approx(1.0)


def test_problems_are_resampled_apart_from_runs() -> None:
    """All runs alike, problems unlike: the interval is that of the problems."""
    problems = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])
    found = nested_interval(np.tile(problems, (4, 1)), [0, 0, 1, 1], rng=rng())
    alone = bootstrap_interval(problems, np.mean, rng=rng())
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.13)
    assert found.low < problems.mean() < found.high


def test_what_cannot_be_known_is_unknown_and_what_is_no_data_is_refused() -> None:
    for values in ({0: [1.0]}, {0: [1.0, 1.0], 1: [1.0]}, {0: [1.0, math.nan], 1: [2.0]}):
        assert math.isnan(nested_bootstrap(values, rng=rng()).low)
    assert math.isnan(nested_interval([[0.1], [0.2]], [0, 1], rng=rng()).low)
    assert math.isnan(nested_interval([[0.5, 0.5], [0.5, 0.5]], [0, 1], rng=rng()).low)
    assert not math.isnan(nested_interval([[0.1, 0.2], [0.3, 0.2]], [0, 1], rng=rng()).low)
    refused: list[dict[int, list[float]]] = [{}, {0: []}, {0: [1.0], 1: []}]
    for bad in refused:
        with pytest.raises(DataError, match="at least one"):
            nested_bootstrap(bad, rng=rng())
    with pytest.raises(DataError, match=r"shape \(2, 2\) beside 1 bases"):
        nested_interval([[0.1, 0.2], [0.3, 0.2]], [0], rng=rng())


def test_five_bases_of_three_seeds_cover_where_a_plain_bootstrap_of_fifteen_runs_does_not() -> None:
    """All of the variance between bases; bench/interval_coverage.py has the table."""
    draw, held, plainly = np.random.default_rng(3), 0, 0
    for _ in range(200):
        scores: NDArray[np.float64] = draw.normal(size=(5, 1)) + draw.normal(0, 0.05, size=(5, 3))
        nested = nested_bootstrap(dict(enumerate(scores.tolist())), rng=draw, resamples=400)
        plain = bootstrap_interval(scores.ravel(), np.mean, rng=draw, resamples=400)
        held += nested.low <= 0 <= nested.high
        plainly += plain.low <= 0 <= plain.high
    assert 0.78 <= held / 200 <= 0.92
    assert plainly / 200 < 0.72


# ---- bases and seeds crossed ----

CROSSED = [(base, seed) for base in "abc" for seed in (0, 1)]  # runs of three bases, two seeds each


def test_crossed_resamples_are_all_ways_to_draw_bases_and_seeds_each_as_often() -> None:
    """By brute force: 27 ways to draw three bases, 4 to draw two seeds, and the runs of each pair."""
    bases, seeds = (list(labels) for labels in zip(*CROSSED, strict=True))
    values = np.array([0.0, 3.0, 1.0, 9.0, 2.0, 30.0])
    at = dict(zip(CROSSED, values, strict=True))
    means = sorted(
        float(np.mean([at[base, seed] for base in drawn for seed in with_seeds]))
        for drawn in itertools.product("abc", repeat=3)
        for with_seeds in itertools.product((0, 1), repeat=2)
    )
    weights = run_weights(bases, seeds, rng=rng(), resamples=40_000)
    assert weights.sum(axis=1) == pytest.approx(1.0)
    drawn, counts = np.unique((weights @ values).round(9), return_counts=True)
    wanted, ways = np.unique(np.round(means, 9), return_counts=True)
    assert drawn.tolist() == wanted.tolist()
    assert counts / 40_000 == pytest.approx(ways / 108, abs=0.006)
    by_base = {base: [at[base, 0], at[base, 1]] for base in "abc"}
    found = nested_bootstrap(by_base, seeds_by_base={base: [0, 1] for base in "abc"}, rng=rng())
    assert (found.low, found.high) == tuple(np.quantile(means, [0.025, 0.975], method="inverted_cdf"))


def test_an_effect_of_the_seed_that_all_bases_share_widens_crossed_intervals_alone() -> None:
    """Seeds 0, 1, 2 end at 0, 1, 2 on each of five bases: three draws, not fifteen. Nested intervals take fifteen."""
    values, seeds = {base: [0.0, 1.0, 2.0] for base in range(5)}, {base: [0, 1, 2] for base in range(5)}
    nested = nested_bootstrap(values, rng=rng())
    crossed = nested_bootstrap(values, seeds_by_base=seeds, rng=rng())
    assert crossed.low == 0
    assert crossed.high == 2
    assert nested.high - nested.low < 1.0
    table = np.array([[x, x + 0.001] for base in values.values() for x in base])
    bases = [base for base in values for _ in range(3)]
    assert nested_interval(table, bases, [0, 1, 2] * 5, rng=rng()).high == pytest.approx(2, abs=0.01)
    assert nested_interval(table, bases, rng=rng()).high < 1.6


def test_with_one_seed_or_one_base_crossed_is_nested_to_the_digit() -> None:
    by_base = {0: [1.0], 1: [4.0], 2: [9.0]}
    one_seed = nested_bootstrap(by_base, seeds_by_base={base: [7] for base in by_base}, rng=rng())
    assert one_seed == nested_bootstrap(by_base, rng=rng())
    table = np.random.default_rng(1).random((3, 5))
    assert nested_interval(table, [0, 0, 0], [1, 2, 3], rng=rng()) == nested_interval(table, [0, 0, 0], rng=rng())


def test_runs_that_are_not_there_are_not_drawn_and_no_resample_is_empty() -> None:
    bases, seeds = ["a", "b", "c"], [0, 1, 2]  # one run of nine pairs a base: most draws meet few of them
    drawn = np.array(list(run_draws(bases, seeds, rng=rng(), resamples=500)))
    assert drawn.shape == (9, 500)
    assert (drawn >= 0).any(axis=0).all()
    assert run_weights(bases, seeds, rng=rng(), resamples=500).sum(axis=1) == pytest.approx(1.0)


@pytest.mark.parametrize(("bases", "seeds"), [(["a", "b"], [0]), (["a", "a"], [0, 0])])
def test_seeds_that_do_not_tell_the_runs_of_a_base_apart_are_refused(bases: list[str], seeds: list[int]) -> None:
    with pytest.raises(DataError, match="expected one run of each pair"):
        run_weights(bases, seeds, rng=rng(), resamples=10)


# ---- exact interval ----


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (5, 5, 0.025 ** (1 / 5), 1.0),  # at a lower chance all of 5 come out with less than 2.5 %
        (0, 5, 0.0, 1 - 0.025 ** (1 / 5)),
        (0, 0, 0.0, 1.0),
        (1, 2, 1 - math.sqrt(0.975), math.sqrt(0.975)),  # 1 - (1 - p)^2 = 0.025, 1 - p^2 = 0.025
    ],
)
def test_an_exact_interval_by_pencil(hits: int, n: int, low: float, high: float) -> None:
    found = exact_interval(hits, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_more_hits_than_trials_are_refused() -> None:
    with pytest.raises(DataError, match="6 of 5"):
        exact_interval(6, 5)


# ---- permutation test ----


def test_five_all_above_five_are_2_of_252() -> None:
    assert permutation_p([6, 7, 8, 9, 10], [1, 2, 3, 4, 5]) == pytest.approx(2 / 252)
    assert permutation_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)


def test_all_ways_are_counted_by_pencil() -> None:
    """Of {1, 3} against {2}: first sums 4, 3, 5; expected 4; what happened, 4, is no further than any."""
    assert permutation_p([1, 3], [2]) == 1.0
    assert permutation_p([3, 2], [1]) == pytest.approx(2 / 3)  # 5 is 1 from 4, as is 3
    assert permutation_p([1, 1], [1, 1]) == 1.0


def test_within_bases_differences_between_bases_are_taken_out() -> None:
    a = {0: [10.2, 10.1], 1: [20.2, 20.1], 2: [30.2, 30.1]}
    b = {0: [10.0, 9.9], 1: [20.0, 19.9], 2: [30.0, 29.9]}
    assert permutation_p(a, b) == pytest.approx(2 / 6**3)
    assert permutation_p([x for v in a.values() for x in v], [x for v in b.values() for x in v]) > 0.5


def test_one_run_of_each_a_base_is_the_sign_test_of_their_differences() -> None:
    """Differences 2, 3, 2 in three bases, all positive: of 8 signs two reach 7."""
    assert permutation_p({0: [3.0], 1: [5.0], 2: [4.0]}, {0: [1.0], 1: [2.0], 2: [2.0]}) == 0.25


def test_bases_of_one_arm_alone_are_left_out() -> None:
    assert permutation_p({0: [3.0], 1: [9.0]}, {0: [1.0], 2: [0.0]}) == 1.0
    assert math.isnan(permutation_p({0: [3.0]}, {1: [1.0]}))
    assert math.isnan(permutation_p([], [1.0]))
    assert math.isnan(permutation_p([math.nan], [1.0]))
    with pytest.raises(DataError, match="by base"):
        permutation_p({0: [1.0]}, [1.0])


def test_many_runs_are_drawn_and_agree_with_the_normal_limit() -> None:
    draw = np.random.default_rng(5)
    x, y = draw.normal(0.6, 1, 40), draw.normal(0, 1, 40)
    pooled = np.concatenate([x, y]).var(ddof=1)
    z = abs(x.mean() - y.mean()) / math.sqrt(pooled * 2 / 40)
    p = permutation_p(x.tolist(), y.tolist())
    assert p == pytest.approx(math.erfc(z / math.sqrt(2)), abs=0.004)
    assert p == permutation_p(x.tolist(), y.tolist())  # the same again
    assert 0 < permutation_p([1.0] * 40, [0.0] * 40) <= 1 / 200_000


# ---- arms with two ends ----


def test_an_arm_has_two_ends_where_two_runs_are_more_than_half_apart_or_one_is_lost_and_another_alive() -> None:
    assert ends_apart([0.9] * 24 + [0.0])
    assert not ends_apart([0.4, 0.9])
    assert ends_apart([40.0, 95.0], 100)
    assert ends_apart([0.0, 0.003, 0.27, 0.43])
    assert not ends_apart([0.0, 0.15])
    assert not ends_apart([0.03, 0.43])
    assert ends_apart([0.3, 38.0], 100)
    assert not ends_apart([math.nan, 0.9])
