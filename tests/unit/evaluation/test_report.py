"""What a report says of responses made by hand."""

import dataclasses
import json
import math

import pytest
from fake_responses import sampled

from vcppo.evaluation.report import (
    HEADER,
    Measure,
    differences,
    lines,
    measures,
    results,
    steps_of_k,
    unreadable_reasons,
)


def by_name(found: list[Measure]) -> dict[str, Measure]:
    return {measure.name: measure for measure in found}


def test_the_numbers_are_what_a_pencil_gives() -> None:
    found = by_name(measures(sampled("rrww", "wwwW", "rUuw")))
    values = {name: measure.value for name, measure in found.items()}
    assert values["avg_at_4"] == values["pass_at_1"] == pytest.approx(3 / 12)
    assert values["pass_at_2"] == pytest.approx((1 - 1 / 6 + 0 + 1 / 2) / 3)
    assert values["pass_at_4"] == pytest.approx(2 / 3)
    assert values["length_tokens"] == pytest.approx((3 * 10 + 7 * 20 + 2 * 30) / 12)
    assert values["length_median_tokens"] == 20
    assert values["length_p90_tokens"] == pytest.approx(29.0)  # between the tenth and the eleventh of twelve
    assert values["length_right_tokens"] == 10
    assert values["length_wrong_tokens"] == pytest.approx((7 * 20 + 2 * 30) / 9)
    assert values["truncated_rate"] == pytest.approx(2 / 12)
    assert values["unreadable_rate"] == pytest.approx(2 / 12)
    for name, measure in found.items():
        for interval in (measure.over_problems, measure.over_samples):
            unknown = name == "length_right_tokens"  # all are of one length
            assert math.isnan(interval.low) == math.isnan(interval.high) == unknown, name
            assert unknown or interval.low - 1e-12 <= measure.value <= interval.high + 1e-12, name


def test_the_interval_over_problems_knows_that_they_differ_and_the_other_does_not() -> None:
    """Every problem is always right or never: how samples of one vary was not seen, how problems do was."""
    found = by_name(measures(sampled(*["rrrr", "wwww"] * 10)))["avg_at_4"]
    assert math.isnan(found.over_samples.low)
    assert found.over_problems.low == pytest.approx(0.5 - 1.96 * math.sqrt(0.25 / 20), abs=0.051)
    assert found.over_problems.high == pytest.approx(0.5 + 1.96 * math.sqrt(0.25 / 20), abs=0.051)


def test_one_problem_or_one_sample_leaves_an_interval_unknown() -> None:
    alone = by_name(measures(sampled("rw")))["avg_at_2"]
    assert math.isnan(alone.over_problems.low)
    assert (alone.over_samples.low, alone.over_samples.high) == pytest.approx((0.0, 1.0), abs=1e-12)
    once = by_name(measures(sampled("r", "w", "w")))
    assert once["avg_at_1"].over_problems.high == pytest.approx(1.0, abs=1e-12)
    assert math.isnan(once["length_tokens"].over_samples.high)
    assert once["avg_at_1"].as_json()["samples"] == [None, None]
    assert "unknown" in once["avg_at_1"].line()


def test_k_goes_up_by_twos_to_the_number_of_samples() -> None:
    assert [steps_of_k(n) for n in (1, 2, 3, 8, 33)] == [[1], [1, 2], [1, 2, 3], [1, 2, 4, 8], [1, 2, 4, 8, 16, 32, 33]]


def test_nothing_right_has_no_length_of_right_responses() -> None:
    found = measures(sampled("ww", "wu"))
    assert math.isnan(by_name(found)["length_right_tokens"].value)
    told = json.loads(json.dumps(results(sampled("ww", "wu"), found), allow_nan=False))  # null, and not NaN
    assert told["metrics"]["length_right_tokens"] == {
        "value": None, "problems_and_samples": [None, None], "samples": [None, None],
    }  # fmt: skip
    row = by_name(found)["length_right_tokens"].line()
    assert row.split() == ["of", "right", "responses", "none", "unknown", "unknown"]


def test_unreadable_responses_are_counted_by_their_reason() -> None:
    problems = sampled("uu", "ur", notes="no box") + sampled("uw")
    assert unreadable_reasons(problems) == {"no box": 3, "no reason given": 1}
    shown = lines(problems, measures(problems))
    assert shown[-2].split() == ["of", "these", "0.500", "no", "box"]
    assert shown[-3].split()[:2] == ["unreadable", "0.667"]


def test_columns_stand_under_each_other() -> None:
    problems = sampled("rrww", "wwwW", "rUuw")
    rows = lines(problems, measures(problems))
    assert rows[0] == HEADER
    at = HEADER.index("problems and samples"), HEADER.index("these problems")
    for row in rows[1:-1]:
        assert row[at[0]] in "[u", row
        assert row[at[1]] in "[u", row
        assert row[at[0] - 4] != " ", row
    assert not any("pass@1 " in row for row in rows)


def test_a_report_has_the_counts_of_every_problem() -> None:
    problems = sampled("rrww", "wwwW", "rUuw")
    told = results(problems, measures(problems))["problems"]
    assert [(p["problem"], p["samples"], p["correct"], p["unreadable"], p["truncated"]) for p in told] == [
        ("p0", 4, 2, 0, 0), ("p1", 4, 0, 0, 1), ("p2", 4, 1, 2, 1),
    ]  # fmt: skip
    assert [p["length_tokens"] for p in told] == [15.0, 20.0, 22.5]


def test_a_checkpoint_differs_from_itself_by_nothing_that_can_be_told() -> None:
    problems = sampled("rrrr", "wwww", "rrrr", "wwww")
    for measure in differences(problems, problems):
        assert measure.value == 0
        assert math.isnan(measure.over_problems.low)


def test_nothing_solved_is_told_with_how_much_could_have_been() -> None:
    found = by_name(measures(sampled(*["wwww"] * 30)))["avg_at_4"]
    assert dataclasses.astuple(found.over_problems) == (0.0, pytest.approx(1 - 0.025 ** (1 / 30)))
    assert dataclasses.astuple(found.over_samples) == (0.0, pytest.approx(1 - 0.025 ** (1 / 120)))


def test_a_difference_is_paired() -> None:
    """Each problem one of four better: sure, however much problems differ; unpaired, it would drown in them."""
    worse = sampled(*["wwww", "rrrw"] * 12)
    better = sampled(*["rwww", "rrrr"] * 12, lengths={"r": 15, "w": 25, "u": 1})
    found = by_name(differences(better, worse))
    avg, length = found["avg_at_4"], found["length_tokens"]
    assert avg.value == pytest.approx(0.25)
    assert 0 < avg.over_problems.low < 0.25 < avg.over_problems.high < 0.5
    unpaired = by_name(measures(better))["avg_at_4"].over_problems
    assert avg.over_problems.high - avg.over_problems.low < 0.6 * (unpaired.high - unpaired.low)
    assert length.value == pytest.approx(5 - 0.25 * 10)
    assert found.keys() == {"avg_at_4", "pass_at_2", "pass_at_4", "length_tokens"}
    assert by_name(differences(worse, better))["avg_at_4"].value == -avg.value
