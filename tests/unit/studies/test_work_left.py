"""The time that a study has left, by hand."""

import math

import pytest

from vcppo.studies.watch import Glance
from vcppo.studies.work_left import PlannedStage, WorkLeft

COLD_START = PlannedStage("cold-start", "shared", 6.0)
CELLS = {cell: [COLD_START, PlannedStage("rl", cell, 2.0)] for cell in ("a", "b")}  # ten minutes in all


def test_a_shared_stage_counts_once_and_is_not_expected_again() -> None:
    work = WorkLeft(CELLS, 2)
    for step in (0, 30):
        work.see("a", Glance("cold-start", step, 60))
    assert work.seconds(60.0) == pytest.approx(60.0 * 7 / 3)
    work.see("a", Glance("rl", 0, 10))
    assert work.seconds(120.0) == pytest.approx(120.0 * 4 / 6)
    work.end("a")
    assert work.seconds(160.0) == pytest.approx(160.0 * 2 / 8)  # by the number of cells as long again as it took
    work.end("b")
    assert work.seconds(200.0) == 0.0


def test_two_cells_that_wait_for_one_stage_do_it_once() -> None:
    work = WorkLeft(CELLS, 2)
    for cell, step in (("a", 0), ("a", 30), ("b", 0), ("b", 29)):
        work.see(cell, Glance("cold-start", step, 60))
    assert work.seconds(60.0) == pytest.approx(60.0 * 7 / 3)


def test_what_a_stage_had_done_before_is_no_speed_of_today() -> None:
    work = WorkLeft({"a": [PlannedStage("rl", "a", 10.0)]}, 1)
    work.see("a", Glance("rl", 50, 100))
    assert work.seconds(1.0) is None
    work.see("a", Glance("rl", 60, 100))
    assert work.seconds(60.0) == pytest.approx(240.0)


def test_a_plan_of_no_work_promises_nothing() -> None:
    work = WorkLeft({"a": [PlannedStage("rl", "a", 0.0)]}, 1)
    for step in (0, 60):
        work.see("a", Glance("rl", step, 100))
    assert (work.seconds(60.0), work.share) == (None, 0.0)


@pytest.mark.parametrize("planned", [{}, {cell: [PlannedStage("rl", cell, math.nan)] for cell in "abcd"}])
def test_without_a_plan_cells_are_counted(planned: dict[str, list[PlannedStage]]) -> None:
    work = WorkLeft(planned, 4)
    work.see("a", Glance("value-pretraining", 30, 60))
    assert work.seconds(60.0) is None
    work.end("a")
    work.see("b", Glance("rl", 0, 10))
    work.see("b", Glance("rl", 5, 10))
    assert work.seconds(60.0) == pytest.approx(60.0 * 2.5 / 1.5)
    assert work.share == 1.5 / 4
