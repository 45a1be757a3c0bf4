"""Skill of a number at telling which runs fail, by pencil; and the verdict, which is that of `vcppo diagnose`."""

import itertools
import math

import numpy as np
import pytest

from vcppo.diagnosis.schema import Alignment, CriticPart, Estimate
from vcppo.diagnosis.uphill import uphill
from vcppo.errors import DataError
from vcppo.maths.forecast_skill import (
    VERDICTS,
    Logistic,
    auc,
    balanced_accuracy,
    best_threshold,
    brier,
    verdict_of,
)


def test_auc_counts_pairs_and_ties_half() -> None:
    assert auc([3, 2, 2, 0], [True, True, False, False]) == (1 + 1 + 0.5 + 1) / 4
    assert auc([0, 1, 2], [True, False, False]) == 0
    assert math.isnan(auc([1, 2], [True, True]))


def test_brier_is_the_mean_square() -> None:
    assert brier([0.9, 0.2], [True, False]) == pytest.approx((0.01 + 0.04) / 2)


def test_a_fitted_chance_is_the_share_where_a_score_says_nothing_and_rises_with_one_that_tells() -> None:
    nothing = Logistic.fit([1.0] * 4, [True, False, False, False])
    assert nothing.chances([1.0, 7.0]) == pytest.approx(0.25, abs=1e-4)
    rng = np.random.default_rng(0)
    scores = rng.normal(5.0, 3.0, 4000)
    failed = rng.random(4000) < 1 / (1 + np.exp(-(scores - 4.0)))
    fitted = Logistic.fit(scores, failed)
    assert fitted.chances([2.0, 4.0, 6.0]) == pytest.approx([0.119, 0.5, 0.881], abs=0.03)


def test_a_fit_stays_finite_where_a_score_tells_all() -> None:
    chances = Logistic.fit([-1.0, -0.9, 0.9, 1.0], [False, False, True, True]).chances([-1.0, 0.0, 1.0])
    assert 0 < chances[0] < 0.4 < chances[1] < 0.6 < chances[2] < 1


def test_a_threshold_parts_failures_from_others_in_the_widest_gap() -> None:
    assert best_threshold([0.0, 1.0, 5.0, 6.0], [False, False, True, True]) == 3.0
    assert best_threshold([0.0, 1.0, 2.0, 9.0], [False, True, False, True]) == 5.5  # 0.75 at 0.5 as well, a closer gap
    assert math.isnan(best_threshold([1.0, 1.0], [True, False]))
    assert math.isnan(best_threshold([1.0, 2.0], [False, False]))


def test_balanced_accuracy_gives_both_ends_of_a_run_the_same_weight() -> None:
    assert balanced_accuracy([1, 1, 0, 0, 0], [True, False, False, False, False]) == (1 + 0.75) / 2
    assert math.isnan(balanced_accuracy([1, 1], [True, True]))


@pytest.mark.parametrize("value", [[1.0, 2.0], [[1.0]], []])
def test_what_are_no_pairs_is_refused(value: list[float]) -> None:
    with pytest.raises(DataError, match="expected one for each of at least 1 run"):
        auc(value, [True])


def estimate(ends: tuple[float, float]) -> Estimate:
    if math.isnan(ends[0]):
        return Estimate(value=None, why="it cannot be told")
    return Estimate(value=sum(ends) / 2, low=ends[0], high=ends[1])


def test_the_verdict_is_that_of_diagnose_on_one_critic_at_one_lambda() -> None:
    unknown = (math.nan, math.nan)
    cosines = [unknown, (-0.9, -0.1), (-0.2, 0.3), (0.1, 0.9)]
    gains = [unknown, (0.1, 0.8), (0.5, 1.5)]
    seen = set()
    for cosine, gain in itertools.product(cosines, gains):
        alignment = Alignment(
            gae_lambda=0.95,
            method="preconditioned",
            with_reward=estimate(cosine),
            with_length=estimate(unknown),
            reward_ceiling=estimate((0.8, 0.9)),
            accuracy_change=estimate(unknown),
            length_change=estimate(unknown),
            batch_size=96,
            against_monte_carlo=estimate(gain),
        )
        part = CriticPart(
            name="c",
            source="c",
            layout=None,
            regressor=None,
            ranker=(),
            reacts=None,
            lambdas=(),
            alignment=(alignment,),
        )
        codes = [one.code for one in uphill(part)]
        said = verdict_of(cosine, gain[1])
        assert said == max((code for code in codes if code in VERDICTS), key=VERDICTS.index)
        seen.add(said)
    assert seen == {*VERDICTS}
