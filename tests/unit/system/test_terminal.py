"""Progress on a terminal and elsewhere."""

import pytest

from vcppo.system.terminal import SUMMARY_S, SummaryTimer, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 0 s"), (3599, "59 min 59 s"), (7300, "2 h 1 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_summary_is_due_so_long_after_the_last_and_not_before() -> None:
    now = [100.0]
    timer = SummaryTimer(lambda: now[0])
    due = []
    for now[0] in (100.0, 99.9 + SUMMARY_S, 100.0 + SUMMARY_S, 101.0 + SUMMARY_S, 100.0 + 2 * SUMMARY_S):
        due.append(timer.is_due())
    assert due == [False, False, True, False, True]
