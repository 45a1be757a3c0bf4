"""Intervals for many looks, thresholds with reasons, knobs with names."""

import pytest

from vcppo.diagnosis.estimates import ALIKE, UNDEFINED
from vcppo.diagnosis.knobs import KNOBS, LOOKED_AT, knobs_for
from vcppo.diagnosis.schema import Estimate
from vcppo.diagnosis.thresholds import THRESHOLDS, beyond, ends, stretch, widened
from vcppo.diagnosis.wording import percent, short, shown
from vcppo.settings.run import RunSettings


def test_every_threshold_has_a_reason() -> None:
    assert all(len(threshold.reason) > 20 for threshold in THRESHOLDS.values())


def test_nine_looks_at_five_per_cent_in_all() -> None:
    """0.05 / 9 two-sided is 2.773 standard errors instead of 1.960."""
    assert stretch(9) == pytest.approx(2.7729 / 1.95996, abs=1e-3)
    assert widened(Estimate(value=1.0, low=0.0, high=3.0), looks=1) == pytest.approx((0.0, 3.0))
    assert widened(Estimate(value=1.0, low=0.0, high=3.0), looks=9) == pytest.approx(
        (1 - 1.4148, 1 + 2 * 1.4148), abs=1e-3
    )


def test_without_an_interval_nothing_lies_beyond() -> None:
    alone = Estimate(value=5.0, why="one prompt")
    assert widened(alone) is None
    assert beyond(alone, -1, 1) == 0
    assert ends(alone) is None
    assert ends(Estimate(value=5.0, why=UNDEFINED)) is None
    assert ends(Estimate(value=5.0, why=ALIKE)) == (5.0, 5.0), "all resamples agree"
    assert ends(Estimate(value=None, why="nothing")) is None


def test_beyond_needs_the_whole_interval() -> None:
    assert beyond(Estimate(value=3.0, low=2.5, high=3.5), -1, 1) == 1
    assert beyond(Estimate(value=-3.0, low=-3.5, high=-2.5), -1, 1) == -1
    assert beyond(Estimate(value=3.0, low=1.3, high=4.7), -1, 1) == 0, "wider for many looks"


def test_every_trainer_is_named_under_every_topic() -> None:
    for topic, knobs in KNOBS.items():
        assert [knob.trainer for knob in knobs] == list(LOOKED_AT), topic
        assert all(knob.setting or knob.note for knob in knobs)
    assert len(knobs_for("lambda-actor", "lambda-critic")) == 2 * len(LOOKED_AT)


def test_our_own_knobs_are_settings_that_there_are() -> None:
    settings = RunSettings().model_dump(mode="json")
    for knobs in KNOBS.values():
        (own,) = (knob.setting for knob in knobs if knob.trainer == "vcppo")
        section, leaf = (own or "").split(" = ")[0].split(".")
        assert leaf in settings[section]


def test_shares_stay_between_0_and_100_in_words() -> None:
    assert percent(Estimate(value=-0.01, low=-0.05, high=0.03)) == "0 % [0, 3]"
    assert percent(Estimate(value=0.5, why="one prompt")) == "50 %"


def test_numbers_in_words() -> None:
    assert shown(Estimate(value=-0.911, low=-0.934, high=-0.884)) == "-0.911 [-0.934, -0.884]"
    assert shown(Estimate(value=0.001, low=-0.2, high=0.2)) == "0.00 [-0.20, 0.20]"
    assert shown(Estimate(value=None, why="one prompt")) == "unknown (one prompt)"
    assert short(-2.30) == "-2.3"
