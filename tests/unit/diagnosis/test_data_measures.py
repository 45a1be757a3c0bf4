"""The responses as numbers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_critics import reading_of

from vcppo.diagnosis.data_measures import UNDISCOUNTED, measure_data, right_from, robust_range
from vcppo.diagnosis.responses import Dump, LoggedResponse, Reading
from vcppo.errors import DataError


def reading(scores: list[float], lengths: list[int], problem: list[int]) -> Reading:
    on = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    returns = torch.tensor(scores)[:, None].expand(on.shape)
    return Reading("x", torch.zeros(on.shape), returns, on, torch.tensor(scores), torch.tensor(problem))


def test_counts_and_lengths_by_pencil() -> None:
    dump = Dump(
        "dump.jsonl",
        "verl",
        tuple(LoggedResponse(problem=p, score=0.0, truncated=t) for p, t in (("a", True), ("a", False), ("b", False))),
        notes=("read as verl's",),
    )
    result = measure_data(dump, reading([1.0, -1, -1, 1], [4, 2, 1, 3], [5, 5, 9, 9]), seed=0, resamples=100)
    assert (result.source, result.form, result.notes) == ("dump.jsonl", "verl", ("read as verl's", UNDISCOUNTED))
    assert (result.responses, result.problems, result.tokens) == (4, 2, 10)
    assert (result.length_mean, result.length_median, result.length_min, result.length_max) == (2.5, 2.5, 1, 4)
    assert (result.score_mean.value, result.score_low, result.score_high, result.correct.value) == (0, -1, 1, 0.5)
    assert result.truncated.value == pytest.approx(1 / 3)
    lengths, scores = np.array([4, 2, 1, 3]), np.array([1, -1, -1, 1])
    assert result.score_length_correlation.value == pytest.approx(np.corrcoef(lengths, scores)[0, 1])


def test_what_a_dump_does_not_tell_has_a_reason() -> None:
    result = measure_data(Dump("x", "plain", ()), reading([1.0, -1], [1, 1], [0, 1]), seed=0)
    assert result.truncated.value is None
    assert result.truncated.why == "the dump does not say which responses were cut"
    assert result.score_length_correlation.why == "needs scores that differ and lengths that differ"
    assert result.score_between_prompts is not None
    assert "at least two" in (result.score_between_prompts.why or "")


def test_all_right_has_an_exact_interval_over_prompts() -> None:
    """20 prompts, all right: below 0.832 that has a chance of 2.5 % at most (Clopper and Pearson)."""
    result = measure_data(Dump("x", "plain", ()), reading([1.0] * 40, [2] * 40, [k // 2 for k in range(40)]), seed=0)
    assert result.correct.value == 1
    assert result.correct.low == pytest.approx(0.025 ** (1 / 20), abs=1e-6)
    assert result.correct.high == 1


def test_scores_that_are_not_finite_are_left_out() -> None:
    result = measure_data(Dump("x", "plain", ()), reading([1.0, torch.nan, -1, -1], [1, 2, 3, 4], [0, 0, 1, 1]), seed=0)
    assert result.score_mean.value == pytest.approx(-1 / 3)
    assert result.notes[:-1] == ("1 responses have a score that is not a finite number, and are left out of scores",)
    with pytest.raises(DataError, match="no response has a finite score"):
        measure_data(Dump("x", "plain", ()), reading([torch.nan], [1], [0]), seed=0)


def test_right_is_the_highest_score_or_the_better_half_of_many() -> None:
    assert right_from(np.array([-2.0, -1, 1, 1])) == 1
    assert right_from(np.array([0.0, 0.0, 1.0] * 100)) == 1
    assert right_from(np.arange(101.0)) == 50
    assert right_from(np.array([np.nan])) == np.inf


def test_scores_between_prompts_of_the_planted_task() -> None:
    result = measure_data(Dump("x", "plain", ()), reading_of(100, 8), seed=0, resamples=200).score_between_prompts
    assert result is not None
    assert result.value == pytest.approx(0.05, abs=0.04)


def test_a_range_is_that_of_two_levels_or_without_outliers() -> None:
    assert robust_range(np.array([0.0] * 999 + [1.0])) == (0, 1), "rare successes"
    assert robust_range(np.array([0.0, 1.0] * 400 + [-100.0])) == (0, 1)
    assert robust_range(np.array([0.0] * 998 + [0.5, 1.0])) == (0, 1), "three levels, of which two are rarer than 1 %"
    assert robust_range(np.array([0.1 + 0.2, 0.3])) == (0.1 + 0.2 - 5.551115123125783e-17,) * 2
    assert robust_range(np.arange(101.0)) == (1, 99)


def test_rewards_that_sum_to_another_number_than_the_score_are_counted() -> None:
    """Scores all 0, rewards 1 and -1 on the last token: the range is of returns, and one side has one prompt."""
    scored = reading([0.0, 0.0, 0.0], [2, 2, 2], [0, 1, 2])
    rewarded = replace(scored, returns=torch.tensor([[1.0, 1.0], [-1.0, -1.0], [0.0005, 0.0005]]))
    result = measure_data(Dump("x", "plain", ()), rewarded, seed=0, resamples=20)
    assert (result.score_low, result.score_high) == (0, 0)
    assert (result.return_low, result.return_high) == pytest.approx((-0.98, 0.98), abs=0.01)
    assert result.rarer_prompts == 1
    assert result.notes[0].startswith("rewards of 2 of 3 responses sum to another number than their score")
    assert measure_data(Dump("x", "plain", ()), scored, seed=0, resamples=20).notes == (UNDISCOUNTED,)
