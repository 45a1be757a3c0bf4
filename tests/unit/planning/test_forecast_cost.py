"""What a forecast is estimated to take, by pencil."""

import pytest
from tiny import tiny

from vcppo.planning.time_estimate import stage_tokens

CRITIC = ("critic.init=policy", "pretrain.steps=0", "record.forecast_responses=60")
GRPO = ("advantage.estimator=grpo", "rollout.samples_per_prompt=2", "record.forecast_responses=60")


def test_its_responses_are_written_once() -> None:
    assert stage_tokens("forecast-answers", tiny(*CRITIC), 10) == (600, 0, 0)


def test_two_forward_and_four_backward_passes_and_a_reading_of_the_critic() -> None:
    generated, read, trained = stage_tokens("forecast", tiny(*CRITIC), 10)
    assert (generated, read) == (0, 600)
    assert 6 * trained == pytest.approx((2 * 2 + 4 * 4) * 600)  # a forward pass is 2 of the 6 that training takes
    assert stage_tokens("forecast", tiny(*GRPO), 10)[1] == 0
