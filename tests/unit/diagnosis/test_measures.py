"""From a reading to the numbers of the report: what they are of planted critics, and where there are none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_critics import PLANTED, constant, not_a_number, position_only, probability, reading_of, too_low

from vcppo.diagnosis.curves import FEWEST
from vcppo.diagnosis.estimates import ALIKE, ONE_PROMPT
from vcppo.diagnosis.measures import lambda_shares, measure_critic, ranker, regressor, tokens_of
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import CriticPart, Curve, Estimate, Regressor
from vcppo.errors import DataError
from vcppo.maths.diagnostics import by_position, explained_variance, real_reward_share, value_bias

PERFECT = reading_of(60, 6, seed=1)


def measured(reading: Reading, lambdas: tuple[float, ...] = (0.95, 1.0), resamples: int = 200) -> CriticPart:
    return measure_critic(reading, source="here", layout=None, lambdas=lambdas, seed=0, resamples=resamples)


def numbers(part: CriticPart) -> Regressor:
    assert part.regressor is not None
    return part.regressor


def within(estimate: Estimate, truth: float) -> bool:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.low <= truth <= estimate.high


def test_the_perfect_critic_has_slope_one_and_no_bias() -> None:
    result = numbers(measured(PERFECT))
    assert within(result.bias, 0)
    assert within(result.slope, 1)
    assert result.bias.value == pytest.approx(value_bias(PERFECT.values, PERFECT.returns, PERFECT.response_mask))
    assert result.explained_variance.value == pytest.approx(
        explained_variance(PERFECT.values, PERFECT.returns, PERFECT.response_mask)
    )
    shares = (result.share_offset, result.share_slope, result.share_rest)
    assert sum(share.value or 0.0 for share in shares) == pytest.approx(1)


def test_two_too_low_moves_the_bias_and_the_intercept_alone() -> None:
    right, low = numbers(measured(PERFECT)), numbers(measured(too_low(PERFECT)))
    assert low.bias.value == pytest.approx((right.bias.value or 0.0) - 2, abs=1e-5)
    assert low.slope.value == pytest.approx(right.slope.value, abs=1e-4)
    assert low.share_offset.value is not None
    assert low.share_offset.value > 0.7


def test_probabilities_double_the_slope() -> None:
    right, result = numbers(measured(PERFECT)), numbers(measured(probability(PERFECT)))
    assert result.slope.value == pytest.approx(2 * (right.slope.value or 0.0), abs=1e-4)
    assert (result.value_low, result.value_high) == pytest.approx((0.1, 0.9))


def test_a_constant_has_reasons_instead_of_numbers() -> None:
    part = measured(constant(PERFECT))
    result = numbers(part)
    assert result.slope == Estimate(value=None, why="all values are equal")
    assert result.explained_variance == Estimate(value=0.0, why=ALIKE)
    assert part.reacts is not None
    assert part.reacts.position.why == "all values are equal"
    assert part.timing is not None
    assert part.timing.roughness.value is None
    assert all(at.within_prompts.value == 0.5 for at in part.ranker)


def test_position_alone() -> None:
    part = measured(position_only(PERFECT))
    assert part.reacts is not None
    assert part.reacts.position.value == pytest.approx(1)
    assert part.signal is not None
    assert part.signal.slope.why == "values do not vary at any position"


def test_one_prompt_has_no_interval_and_says_so() -> None:
    rows = PERFECT.problem == 3
    one = Reading(
        critic="one",
        values=PERFECT.values[rows],
        returns=PERFECT.returns[rows],
        response_mask=PERFECT.response_mask[rows],
        scores=PERFECT.scores[rows],
        problem=PERFECT.problem[rows],
    )
    part = measured(one)
    result = numbers(part)
    assert result.bias.low is None
    assert result.bias.why == ONE_PROMPT
    assert result.from_start.bias[0].why == ONE_PROMPT
    assert part.lambdas[0].real_reward.why == ONE_PROMPT


def test_one_response_to_each_prompt_cannot_tell_the_prompt() -> None:
    part = measured(reading_of(80, 1, seed=2))
    assert part.reacts is not None
    assert part.reacts.position.value is not None
    assert part.reacts.prompt.value is None
    assert "at least two" in (part.reacts.prompt.why or "")
    assert part.ranker[1].within_prompts.value is None
    assert part.ranker[1].across_prompts.value is not None


def test_values_that_are_not_finite_are_left_out_and_counted() -> None:
    broken = not_a_number(PERFECT)
    part = measured(broken)
    missing = int((broken.response_mask & ~broken.values.isfinite()).sum())
    assert part.not_finite == missing > 20
    known = broken.response_mask & broken.values.isfinite()
    assert numbers(part).bias.value == pytest.approx(value_bias(broken.values, broken.returns, known))


def test_a_critic_without_a_finite_value_has_a_reason_alone() -> None:
    part = measured(replace(PERFECT, values=torch.full_like(PERFECT.values, torch.inf)))
    assert part.regressor is None
    assert part.why == "no token's value is finite"
    with pytest.raises(DataError, match="no token has a finite value"):
        tokens_of(replace(PERFECT, values=PERFECT.values * torch.nan), seed=0)


def test_a_reading_without_a_token() -> None:
    nothing = torch.zeros(2, 0)
    none = Reading("none", nothing, nothing, nothing.bool(), torch.zeros(2), torch.arange(2))
    assert measured(none).why == "no response has a token"


def test_the_curve_from_the_start_is_the_table_of_training() -> None:
    result = regressor(tokens_of(PERFECT, seed=0, resamples=50)).from_start
    longest = int(PERFECT.response_mask.sum(dim=1).max())
    width = next(w for w in (1, 2, 5, 10, 20, 50) if w * 24 >= longest)
    table = by_position(PERFECT.values, PERFECT.returns, PERFECT.response_mask, width=width)
    described = len(result.x)
    assert 2 < described < len(table["n"]), "the longest responses are too few to be told"
    assert list(result.n) == table["n"][:described]
    assert [bias.value for bias in result.bias] == pytest.approx(table["value_bias"][:described], abs=1e-9)
    assert [e.value for e in result.explained_variance] == pytest.approx(
        table["explained_variance"][:described], abs=1e-9
    )


def lengths_of(curve: Curve) -> set[int]:
    columns = (curve.x, curve.n, curve.responses, curve.value_mean, curve.return_mean, curve.bias)
    return {len(column) for column in (*columns, curve.explained_variance)}


def test_curves_have_one_length_and_enough_responses_in_every_bin() -> None:
    result = numbers(measured(PERFECT))
    for curve in (result.from_start, result.from_end, result.by_fraction, result.by_length):
        assert len(lengths_of(curve)) == 1
        assert min(curve.responses) >= FEWEST
        assert list(curve.x) == sorted(curve.x)
    assert result.from_end.x[:4] == (0, 1, 2, 3)
    assert len(result.by_fraction.x) == 10
    assert sum(result.by_length.n) == int(PERFECT.response_mask.sum())
    assert sum(result.calibration.n) == int(PERFECT.response_mask.sum())
    assert list(result.calibration.predicted_mean) == sorted(result.calibration.predicted_mean)


def test_few_responses_are_told_all_the_same() -> None:
    few = reading_of(3, 1, seed=3)
    assert numbers(measured(few)).by_fraction.responses[0] <= 3


def test_auc_rises_towards_the_end() -> None:
    result = ranker(PERFECT, tokens_of(PERFECT, seed=0, resamples=100).bootstrap)
    assert [at.fraction for at in result] == [0.1, 0.25, 0.5, 0.75]
    across = [at.across_prompts.value or 0.0 for at in result]
    assert across == sorted(across)
    assert across[-1] > 0.85


def test_all_right_has_no_auc() -> None:
    right = replace(PERFECT, scores=torch.ones_like(PERFECT.scores))
    result = ranker(right, tokens_of(right, seed=0, resamples=20).bootstrap)
    assert result[0].within_prompts.why == "needs responses that are right and responses that are not"


def test_shares_at_lambda() -> None:
    at_95, at_1 = measured(PERFECT).lambdas
    assert at_95.real_reward.value == pytest.approx(
        real_reward_share(PERFECT.response_mask, gamma=1.0, gae_lambda=0.95)
    )
    assert at_1.real_reward.value == 1
    assert within(at_1.opinion, 0), "at lambda 1 the perfect critic is a baseline"
    assert (at_95.opinion.low or 0.0) > 0


def test_shares_leave_out_responses_with_a_value_that_is_not_finite() -> None:
    broken = not_a_number(PERFECT)
    whole = (broken.values.isfinite() | ~broken.response_mask).all(dim=1)
    (result,) = lambda_shares(broken, [0.9], seed=0, resamples=50)
    expected = real_reward_share(broken.response_mask[whole], gamma=1.0, gae_lambda=0.9)
    assert result.real_reward.value == pytest.approx(expected)
    none = replace(PERFECT, values=PERFECT.values * torch.nan)
    assert lambda_shares(none, [0.9], seed=0)[0].opinion.why == "needs a response all of whose values are finite"


def test_values_are_read_in_place() -> None:
    timing = measured(PERFECT).timing
    assert timing is not None
    assert timing.pairs > 100
    assert (timing.before_split.value, timing.at_split.value, timing.first_token.value) == (0, 0, 0)
    assert (timing.after_split.value or 0.0) > 0.5
    unknown = measured(replace(PERFECT, tokens=None)).timing
    assert unknown is not None
    assert unknown.at_split.why == "the token ids are not known"


def test_intervals_are_the_same_each_time_and_other_with_another_seed() -> None:
    again = measured(PERFECT)
    assert measured(PERFECT) == again
    other = measure_critic(PERFECT, source="here", layout=None, lambdas=(0.95, 1.0), seed=1, resamples=200)
    assert numbers(other).bias.value == numbers(again).bias.value
    assert numbers(other).bias.low != numbers(again).bias.low


@pytest.mark.parametrize("name", PLANTED)
def test_every_planted_critic_is_told_as_json(name: str) -> None:
    part = measured(PLANTED[name](PERFECT), resamples=50)
    assert CriticPart.model_validate_json(part.model_dump_json()) == part
    assert np.isfinite(numbers(part).rmse.value or 0.0)
