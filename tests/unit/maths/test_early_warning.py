"""Warnings of a run, by pencil: bands around its beginning, and what more right responses excuse."""

import math
from dataclasses import replace
from typing import Any

import pytest

from vcppo.maths.early_warning import (
    ALIGNED,
    LASTING,
    RULES,
    Observed,
    alignment_evidence,
    beginning,
    first_warning,
    warnings_of,
)

BEGIN = Observed(responses=100, length=100.0, length_spread=10.0, truncated=0.0, right=0.5)


def after(*changes: dict[str, Any]) -> list[Observed]:
    """A run of three alike iterations, then others."""
    return [BEGIN] * 3 + [replace(BEGIN, **change) for change in changes]


def test_a_steady_run_never_warns() -> None:
    assert first_warning([BEGIN] * 50) is None
    assert warnings_of([]) == warnings_of([BEGIN]) == ()


def test_the_beginning_is_the_mean_of_the_first_three_without_the_latest() -> None:
    run = [replace(BEGIN, length=x) for x in (10.0, 20.0, 60.0, 1000.0)]
    assert (beginning(run).length, beginning(run).responses) == (30.0, 300)
    assert (beginning(run[:2]).length, beginning(run[:2]).responses) == (10.0, 100)


@pytest.mark.parametrize(("length", "warns"), [(71.0, False), (69.0, True)])
def test_a_fall_out_of_the_band_warns_at_once(length: float, warns: bool) -> None:
    assert warnings_of(after({"length": length})) == (("length_falls",) if warns else ())


def test_the_band_is_as_wide_as_noise_wants() -> None:
    """A spread of 100 over 100 responses: errors of 100 / sqrt(300) and 10, together 11.5, four of them 46."""
    run = [replace(one, length_spread=100.0) for one in after({"length": 55.0})]
    assert warnings_of(run) == ()
    assert warnings_of([*run[:3], replace(run[3], length=53.0)]) == ("length_falls",)


def test_growth_and_truncation_must_last() -> None:
    for change, rule in (({"length": 140.0}, "length_grows"), ({"truncated": 0.3}, "truncation")):
        assert [warnings_of(after(*[change] * times)) for times in (LASTING - 1, LASTING)] == [(), (rule,)]
        assert warnings_of(after(change, change, {}, change)) == ()


def test_whoever_is_right_more_often_may_be_brief_or_long() -> None:
    """0.5 of 300 and x of 100: the error is near 0.0577, two of them 0.115."""
    for change in ({"length": 40.0}, {"length": 200.0}, {"truncated": 0.5}):
        assert warnings_of(after(*[{**change, "right": 0.63}] * LASTING)) == ()
        assert len(warnings_of(after(*[{**change, "right": 0.6}] * LASTING))) == 1


def test_evidence_sums_the_latest_measurements_over_the_root_of_their_number() -> None:
    run = after({"score_z": -9.0}, {}, {"score_z": 1.0}, {"score_z": 1.0}, {"score_z": -3.0}, {"score_z": -3.0})
    assert alignment_evidence(run) == pytest.approx(-4.0 / 2.0)  # the oldest of five is out
    assert alignment_evidence(run[:4]) == -9.0
    assert math.isnan(alignment_evidence(run[:3]))


def test_a_gradient_that_points_away_beyond_noise_warns() -> None:
    first = [replace(BEGIN, score_z=-ALIGNED - 0.1)]
    assert first_warning(first) == 0
    assert warnings_of([replace(BEGIN, score_z=-ALIGNED + 0.1)]) == ()
    weak = [replace(BEGIN, score_z=-2.0)] * 2
    assert [warnings_of(weak[:count]) for count in (1, 2)] == [(), ("alignment",)]


def test_every_rule_is_broken_by_something() -> None:
    broken = {rule for change in ({"length": 9.0}, {"length": 900.0}, {"truncated": 1.0}, {"score_z": -9.0})
              for rule in warnings_of(after(*[change] * LASTING))}  # fmt: skip
    assert broken == RULES.keys()
