"""Length penalties, running scales and dense token rewards, by pencil."""

import json
import math
from dataclasses import asdict
from typing import get_args

import pytest
import torch

from vcppo.maths.shaping import (
    DebiasedMoments,
    LogRatioKind,
    RunningMoments,
    log_ratio_rewards,
    normalised,
    overlong_penalty,
)

close = torch.testing.assert_close


def test_the_penalty_falls_in_a_line_over_the_buffer() -> None:
    """DAPO's own numbers: a limit of 20480 tokens, the last 4096 of them the buffer."""
    lengths = torch.tensor([1, 16384, 17408, 18432, 20480, 20481])
    found = overlong_penalty(lengths, limit=20480, buffer=4096, weight=1.0)
    close(found, torch.tensor([0.0, 0.0, -0.25, -0.5, -1.0, -1.0]))


def test_the_penalty_is_as_large_as_its_weight() -> None:
    close(overlong_penalty(torch.tensor([9, 10]), limit=10, buffer=2, weight=0.5), torch.tensor([-0.25, -0.5]))


STREAM = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0]


@pytest.mark.parametrize("chunks", [[8], [1] * 8, [3, 5], [0, 2, 0, 5, 1]])
def test_running_moments_are_those_of_the_whole_stream(chunks: list[int]) -> None:
    moments = RunningMoments()
    for chunk in torch.tensor(STREAM).split(chunks):
        moments = moments.updated(chunk)
    mean = sum(STREAM) / 8
    biased = math.sqrt(sum((x - mean) ** 2 for x in STREAM) / 8)
    assert moments.count == 8
    assert (moments.mean, moments.std) == pytest.approx((mean, biased), rel=1e-12)


def test_moments_far_from_zero_lose_nothing() -> None:
    """1e8 - 1 and 1e8 + 1 in turn: a sum of squares in float64 would have rounded the 1 away."""
    moments = RunningMoments()
    for _ in range(100):
        moments = moments.updated(torch.tensor([1e8 - 1, 1e8 + 1], dtype=torch.float64))
    assert (moments.mean, moments.std) == pytest.approx((1e8, 1.0), rel=1e-12)


@pytest.mark.parametrize("score", [0.1, -0.7, 1000.1])
def test_equal_scores_have_exactly_no_spread(score: float) -> None:
    moments = RunningMoments()
    for size in (7, 3, 1):
        moments = moments.updated(torch.full((size,), score))
    assert moments.std == 0


def test_moments_before_the_first_score() -> None:
    assert (RunningMoments().mean, RunningMoments().std) == (0, 0)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_standardised_binary_rewards_are_the_bernoullis(p: float) -> None:
    """(r - p) / sqrt(p (1 - p))."""
    scores = (torch.arange(10) < 10 * p).double()
    found = normalised(scores, RunningMoments().updated(scores), kind="standardise", clip=None)
    close(found, (scores - p) / math.sqrt(p * (1 - p)))


def test_the_clip_binds_only_where_a_reward_is_rarer_than_it_allows() -> None:
    """A reward of rate p lies sqrt((1 - p) / p) above the mean: 3 at .1, 2 at .2."""
    scores = (torch.arange(10) < 1).double()
    found = normalised(scores, RunningMoments().updated(scores), kind="standardise", clip=2.0)
    close(found[:2], torch.tensor([2.0, -1 / 3], dtype=torch.float64))
    found = normalised(-scores, RunningMoments().updated(-scores), kind="standardise", clip=2.0)
    close(found[:2], torch.tensor([-2.0, 1 / 3], dtype=torch.float64))


def test_standardising_undoes_any_change_of_scale_and_level() -> None:
    scores = torch.tensor(STREAM, dtype=torch.float64)
    first, second = (
        normalised(s, RunningMoments().updated(s), kind="standardise", clip=None) for s in (scores, 7 * scores - 40)
    )
    close(first, second)


def test_scaling_keeps_the_mean_in() -> None:
    scores = torch.tensor([1.0, 3.0])
    moments = RunningMoments(count=4, mean=2.0, m2=16.0)
    close(normalised(scores, moments, kind="scale", clip=None), torch.tensor([0.5, 1.5]))
    close(normalised(scores, moments, kind="standardise", clip=None), torch.tensor([-0.5, 0.5]))
    close(normalised(scores, moments, kind="scale", clip=1.0), torch.tensor([0.5, 1.0]))


def test_no_normalisation_leaves_scores_or_clips_them() -> None:
    scores, moments = torch.tensor([-30.0, 0.5, 30.0]), RunningMoments(count=2, mean=7.0, m2=9.0)
    close(normalised(scores, moments, kind="none", clip=None), scores, rtol=0, atol=0)
    close(normalised(scores, moments, kind="none", clip=20.0), torch.tensor([-20.0, 0.5, 20.0]))


def test_nothing_is_divided_by_a_spread_of_zero() -> None:
    scores = torch.full((3,), 4.0)
    moments = RunningMoments().updated(scores)
    close(normalised(scores, moments, kind="scale", clip=None), scores)
    close(normalised(scores, moments, kind="standardise", clip=None), torch.zeros(3))


def test_the_first_batch_alone_sets_the_value_moments() -> None:
    """Debiased: the decay does not pull towards 0. Returns 1, 3, 8 have mean 4 and variance 26/3; 99 is masked."""
    returns, on = torch.tensor([[1.0, 3.0], [8.0, 99.0]]), torch.tensor([[True, True], [True, False]])
    moments = DebiasedMoments(decay=0.99995).updated(returns, on)
    assert (moments.mean, moments.std) == pytest.approx((4.0, math.sqrt(26 / 3)), rel=1e-9)


def test_older_batches_count_less_by_the_decay() -> None:
    """Batches of mean 2 then 8, decay 1/2: weights 1/3 and 2/3. Squares 4 and 64 give 44 - 36 = 8."""
    on = torch.ones(1, 2, dtype=torch.bool)
    moments = DebiasedMoments(decay=0.5).updated(torch.full((1, 2), 2.0), on).updated(torch.full((1, 2), 8.0), on)
    assert (moments.mean, moments.std) == pytest.approx((6.0, math.sqrt(8)), rel=1e-12)
    assert moments.weight == 0.75


def test_variance_has_a_floor() -> None:
    moments = DebiasedMoments(decay=0.9).updated(torch.full((2, 2), 3.0), torch.ones(2, 2, dtype=torch.bool))
    assert moments.std == pytest.approx(0.1)
    close(moments.normalise(torch.tensor([3.05])), torch.tensor([0.5]), rtol=1e-4, atol=0)  # 3.05 is rounded by float32


def test_targets_are_cut_at_five_and_predictions_are_not() -> None:
    moments = DebiasedMoments(decay=0.5, weight=0.5, average=1.0, average_square=4.0)  # mean 2, variance 8 - 4
    close(moments.normalise(torch.tensor([-9.0, 0.0, 4.0, 13.0])), torch.tensor([-5.0, -1.0, 1.0, 5.0]))
    close(moments.denormalise(torch.tensor([-6.0, 0.0, 1.5])), torch.tensor([-10.0, 2.0, 5.0]))


def test_denormalising_undoes_normalising() -> None:
    returns = torch.tensor([STREAM], dtype=torch.float64)
    moments = DebiasedMoments(decay=0.99).updated(returns, torch.ones_like(returns, dtype=torch.bool))
    close(moments.denormalise(moments.normalise(returns)), returns)


def test_returns_of_nobody_change_no_moments() -> None:
    returns, nobody = torch.tensor([[10.0, 20.0]]), torch.zeros(1, 2, dtype=torch.bool)
    for moments in (
        DebiasedMoments(decay=0.5),
        DebiasedMoments(decay=0.5, weight=0.5, average=1.0, average_square=4.0),
    ):
        assert moments.updated(returns, nobody) == moments


def test_before_the_first_update_the_critic_is_left_in_units_of_reward() -> None:
    untouched, x = DebiasedMoments(decay=0.99), torch.tensor([-3.0, 0.5])
    close(untouched.normalise(x), x, rtol=0, atol=0)
    close(untouched.denormalise(x), x, rtol=0, atol=0)


def test_moments_survive_a_checkpoint() -> None:
    running = RunningMoments().updated(torch.tensor(STREAM))
    value = DebiasedMoments(decay=0.9).updated(torch.tensor([STREAM]), torch.ones(1, 8, dtype=torch.bool))
    assert RunningMoments(**json.loads(json.dumps(asdict(running)))) == running
    assert DebiasedMoments(**json.loads(json.dumps(asdict(value)))) == value


DPO = torch.tensor([[-1.0, -2.0, -1.0, -4.0], [-3.0, -1.0, torch.nan, torch.nan]])
REF = torch.tensor([[-2.0, -1.0, -4.0, -4.5], [-1.0, -1.5, torch.nan, torch.nan]])  # ratios 1, -1, 3, .5 and -2, .5
ON = torch.tensor([[True, True, True, True], [True, True, False, False]])
SENTENCES = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 7]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rto", [[2.0, -2.0, 6.0, 1.0], [-4.0, 1.0, 0.0, 0.0]]),
        ("semi-rto", [[2.0, 0.0, 4.0, 1.0], [0.0, -3.0, 0.0, 0.0]]),
        ("ddpo", [[0.0, 0.0, 0.0, 7.0], [0.0, -3.0, 0.0, 0.0]]),
        ("rs-ppo", [[2.0, -2.0, 6.0, -6.0], [-4.0, 4.0, 0.0, 0.0]]),
    ],
)
def test_token_rewards_by_pencil(kind: LogRatioKind, expected: list[list[float]]) -> None:
    close(log_ratio_rewards(DPO, REF, SENTENCES, ON, kind=kind, weight=2.0, clip=None), torch.tensor(expected))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rto", [[2.0, -2.0, 2.5, 1.0], [-2.5, 1.0, 0.0, 0.0]]),
        ("semi-rto", [[2.0, 0.0, 0.5, 1.0], [0.0, -1.5, 0.0, 0.0]]),
        ("ddpo", [[0.0, 0.0, 0.0, 3.5], [0.0, -1.5, 0.0, 0.0]]),
        ("rs-ppo", [[2.0, -2.0, 2.5, -2.5], [-2.5, 2.5, 0.0, 0.0]]),
    ],
)
def test_the_clip_bounds_a_token_after_its_weight_and_before_any_sum(
    kind: LogRatioKind, expected: list[list[float]]
) -> None:
    close(log_ratio_rewards(DPO, REF, SENTENCES, ON, kind=kind, weight=2.0, clip=2.5), torch.tensor(expected))


@pytest.mark.parametrize("kind", get_args(LogRatioKind))
def test_equal_models_or_no_weight_reward_nothing(kind: LogRatioKind) -> None:
    for dpo, weight in ((REF, 2.0), (DPO, 0.0)):
        found = log_ratio_rewards(dpo, REF, SENTENCES, ON, kind=kind, weight=weight, clip=None)
        close(found, torch.zeros_like(REF), rtol=0, atol=0)


def test_only_semi_rto_reads_the_sentences() -> None:
    for kind in get_args(LogRatioKind):
        found = [
            log_ratio_rewards(DPO, REF, segments, ON, kind=kind, weight=1.0, clip=None)
            for segments in (SENTENCES, torch.arange(4).expand(2, 4))
        ]
        assert torch.equal(*found) == (kind != "semi-rto")
