"""Planted critics get the right verdict, a healthy one gets none that is wrong, and little data is told as that."""

from dataclasses import replace

import pytest
import torch
from judging import codes, judged, verdicts
from planted_critics import PLANTED, late, opposite, reading_of, too_low

from vcppo.diagnosis.data_measures import measure_data
from vcppo.diagnosis.measures import measure_critic
from vcppo.diagnosis.responses import Dump, Reading
from vcppo.diagnosis.schema import Alignment, Estimate
from vcppo.diagnosis.verdicts import ILL, judge
from vcppo.diagnosis.wording import headline

EXPECTED = {
    "constant": {"constant"},
    "too low": {"offset"},
    "one ahead": {"off-by-one"},
    "one late": {"off-by-one"},
    "end only": {"end-only"},
    "end only, 0 before": {"end-only"},
    "reward model": {"end-only"},
    "position only": {"position-only"},
    "shuffled": {"shuffled"},
    "noise": {"noise"},
    "probability": {"probability"},
    "other rewards": {"other-rewards"},
    "opposite": {"other-rewards"},
    "not a number": {"not-finite"},
}
BESIDE = {"offset"}  # of a critic that knows nothing of these scores, the mean may be off as well


def test_every_planted_critic_has_an_expected_verdict() -> None:
    assert EXPECTED.keys() == PLANTED.keys()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_critic_gets_its_verdict(name: str, seed: int) -> None:
    result = codes(PLANTED[name](reading_of(100, 8, seed=seed)))
    assert result[0] in EXPECTED[name]
    assert set(result) <= EXPECTED[name] | (BESIDE if name in ("other rewards", "shuffled") else set())


@pytest.mark.parametrize("name", [name for name in PLANTED if name != "one late"])
def test_without_token_ids_too(name: str) -> None:
    result = codes(PLANTED[name](replace(reading_of(100, 8), tokens=None)) if name != "other rewards" else untold())
    assert result[0] in EXPECTED[name]


def untold() -> Reading:
    return replace(PLANTED["other rewards"](reading_of(100, 8)), tokens=None)


def test_one_late_without_token_ids_says_what_cannot_be_seen() -> None:
    (result,) = verdicts(replace(late(reading_of(100, 8)), tokens=None))
    assert result.code == "healthy"
    assert "one token late cannot be seen" in result.sentence


@pytest.mark.parametrize("name", ["shuffled", "other rewards"])
def test_one_response_to_each_prompt_cannot_tell_whose_values_they_are(name: str) -> None:
    assert codes(PLANTED[name](reading_of(800, 1)))[0] == "no-signal"


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (0.0, 10.0)])
def test_a_healthy_critic_in_any_units(low: float, high: float) -> None:
    assert codes(reading_of(150, 8, seed=3, low=low, high=high)) == ["healthy"]


def test_a_healthy_critic_raises_false_alarms_as_rarely_as_is_said() -> None:
    """At most 5 % of reports by construction: of 50, more than 6 would come with a chance of 1 %.

    The intervals themselves hold the truth, a bias of 0 and slopes of 1, in 95 % of them: in 43 or more with 97 %.
    """
    reports = [judged(reading_of(100, 8, seed=100 + seed)) for seed in range(50)]
    codes_of = [{verdict.code for verdict in result} for _, result in reports]
    assert sum(not seen <= {"healthy", "cannot-tell"} for seen in codes_of) <= 6
    assert sum("healthy" in seen for seen in codes_of) >= 35, "and most are called healthy"
    held = {"bias": 0, "slope": 0, "slope beyond the position": 0}
    for critic, _ in reports:
        assert critic.regressor is not None
        assert critic.signal is not None
        held["bias"] += holds(critic.regressor.bias, 0)
        held["slope"] += holds(critic.regressor.slope, 1)
        held["slope beyond the position"] += holds(critic.signal.slope, 1)
    assert min(held.values()) >= 43, held


def holds(estimate: Estimate, truth: float) -> bool:
    return estimate.low is not None and estimate.high is not None and estimate.low <= truth <= estimate.high


@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_rounding_to_bfloat16_is_no_fault(offset: float) -> None:
    """Far from 0 its steps are as large as what a token changes: where values are read cannot be seen then."""
    healthy = reading_of(150, 8, seed=3, low=offset - 1, high=offset + 1)
    noise = 1 + 0.004 * torch.randn(healthy.values.shape, generator=torch.Generator().manual_seed(0))
    rounded = (healthy.values * noise).to(torch.bfloat16).float()
    assert codes(replace(healthy, values=rounded)) == ["healthy"]


def test_little_data_is_told_with_how_much_more_it_takes() -> None:
    few = reading_of(20, 4, seed=4)
    (result,) = verdicts(few)
    assert (result.code, result.severity) == ("cannot-tell", "unknown")
    assert result.more_responses is not None
    assert 100 < result.more_responses < 5_000
    assert str(result.more_responses) in result.advice
    enough = reading_of(20 + result.more_responses // 4, 4, seed=4)
    assert codes(enough) == ["healthy"]


def test_a_large_fault_shows_on_little_data() -> None:
    assert codes(too_low(reading_of(20, 4, seed=4)))[0] == "offset"


def test_one_prompt_and_few_prompts() -> None:
    (one,) = verdicts(reading_of(1, 40, seed=6))
    assert (one.code, one.more_responses) == ("one-prompt", 280)
    (few,) = verdicts(too_low(reading_of(4, 40, seed=6)))
    assert (few.code, few.more_responses) == ("cannot-tell", 160)


@pytest.mark.parametrize(
    ("score", "code"), [(1.0, "all-right"), (-1.0, "all-wrong"), (0.0, "all-wrong"), (0.1, "all-alike")]
)
def test_scores_that_are_all_equal(score: float, code: str) -> None:
    reading = reading_of(50, 4)
    same = torch.full_like(reading.scores, score)
    returns = torch.where(reading.response_mask, score, torch.nan)
    result = codes(replace(reading, scores=same, returns=returns))
    assert code in result
    assert "healthy" not in result
    perfect = replace(reading, scores=same, returns=returns, values=returns)
    assert set(codes(perfect)) == {code, "constant"}


def test_nothing_finite_is_one_verdict() -> None:
    reading = reading_of(20, 4)
    (result,) = verdicts(replace(reading, values=reading.values * torch.nan))
    assert (result.code, result.severity) == ("not-finite", "alarm")


def test_an_empty_reading_cannot_tell() -> None:
    nothing = torch.zeros(9, 0)
    reading = Reading("none", nothing, nothing, nothing.bool(), torch.zeros(9), torch.arange(9))
    (result,) = verdicts(reading)
    assert (result.code, result.sentence) == ("cannot-tell", "no response has a token.")


def test_the_sentence_has_the_number_with_its_interval_and_the_critic() -> None:
    (result,) = verdicts(too_low(reading_of(100, 8)))
    assert result.critic == "too low"
    assert result.title == "Values are 1.95 too low everywhere"
    assert "1.95 [1.8" in result.sentence
    assert {knob.trainer for knob in result.knobs} == {"vcppo", "verl", "NeMo-RL", "OpenRLHF", "TRL", "slime"}


def test_an_error_at_some_positions_is_not_said_to_be_everywhere() -> None:
    reading = reading_of(100, 8)
    early = torch.arange(reading.values.shape[1]) < 8
    result = verdicts(replace(reading, values=reading.values - 2.0 * early))[0]
    assert result.code == "offset"
    assert "too low on average" in result.sentence
    assert "about token" in result.sentence


def test_too_wide_is_a_matter_of_scale() -> None:
    reading = reading_of(100, 8)
    middle = reading.values[reading.response_mask].mean()
    (wide,) = verdicts(replace(reading, values=middle + 1.6 * (reading.values - middle)))
    assert (wide.code, wide.title) == ("scale", "Values spread 1.61 times too wide")
    (narrow,) = verdicts(replace(reading, values=middle + 0.4 * (reading.values - middle)))
    assert narrow.code == "scale"
    assert "narrow" in narrow.title


def test_a_critic_of_the_prompt_alone() -> None:
    reading = reading_of(100, 8, starts=(1, 9))
    start = torch.where(reading.response_mask, reading.values[:, :1], torch.nan)
    assert "prompt-only" in codes(replace(reading, values=start))


def test_values_shifted_by_a_varying_number_of_tokens_are_misaligned() -> None:
    reading = reading_of(150, 8)
    values = reading.values.clone()
    values[::2] = torch.roll(values[::2], -2, dims=1)
    values = torch.where(reading.response_mask & values.isnan(), reading.scores[:, None], values)
    assert "misaligned" in codes(replace(reading, values=values))


def test_offset_and_position_only_are_one_line() -> None:
    result = verdicts(too_low(PLANTED["position only"](reading_of(100, 8))))
    assert headline(result) == "Values are 1.96 too low everywhere and know the position only"
    assert headline(verdicts(reading_of(150, 8, seed=3))) == "No fault found"


def test_a_wide_critic_that_sees_is_not_right_at_the_end_only() -> None:
    reading = reading_of(100, 8)
    mean = reading.values[reading.response_mask].mean()
    (result,) = verdicts(replace(reading, values=mean + 4 * (reading.values - mean)))
    assert result.code == "scale"


def test_the_gravest_comes_first() -> None:
    result = verdicts(opposite(reading_of(100, 8)))
    severities = [verdict.severity for verdict in result]
    assert severities[0] in ILL


def test_a_fault_of_values_is_no_alarm_where_the_gradient_is_sound() -> None:
    """Ten updates of pretraining: values are far off, and PPO trains."""
    reading = too_low(reading_of(100, 8, seed=0))
    data = measure_data(Dump("here", "verl", ()), reading, seed=0, resamples=200)
    critic = measure_critic(reading, source="here", layout=None, lambdas=(), seed=0, resamples=200)

    def result(cosine: float, method: str) -> dict[str, str]:
        near = Estimate(value=cosine, low=cosine - 0.01, high=cosine + 0.01)
        whole = dict.fromkeys(
            ("with_reward", "with_length", "reward_ceiling", "accuracy_change", "length_change"), near
        )
        along = Alignment.model_validate({"gae_lambda": 0.95, "method": method, **whole})
        return {one.code: one.severity for one in judge(data, critic.model_copy(update={"alignment": (along,)}))}

    assert result(0.9, "preconditioned") == {"offset": "warning", "uphill": "good"}
    assert result(0.9, "surrogate")["offset"] == "alarm"
    assert result(-0.9, "preconditioned")["offset"] == "alarm"
