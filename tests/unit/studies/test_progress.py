"""A running study as a user sees it."""

import io
import time
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.store.journal import Journal, JournalTail
from vcppo.studies.cell_run import run_and_record
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.dispatcher import pick
from vcppo.studies.progress import (
    CellEnded,
    CellProgress,
    CellStarted,
    Event,
    Notice,
    ProgressView,
    StudyStarted,
    WorkerDied,
    describe,
    ending,
    following,
)
from vcppo.studies.reporting import SweepReporter
from vcppo.studies.watch import CellWatch, Glance

STARTED = StudyStarted("components", "each part", total=4, done=0, failed=0, pruned=0, workers=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(*events: Event, seconds: float = 0.0, terminal: bool = False) -> str:
    """Return the text that a view shows of these events, `seconds` apart."""
    text, clock = io.StringIO(), Clock()
    console = Console(file=text, force_terminal=terminal, width=200, soft_wrap=True)
    with ProgressView(console, clock) as view:
        for event in events:
            view(event)
            clock.now += seconds
    return text.getvalue()


def test_without_a_terminal_each_ended_cell_has_a_line() -> None:
    result = {"final_accuracy": 0.8125, "final_length_tokens": 153.2}
    lines = shown(
        STARTED,
        CellStarted("ppo-s0", 0, 1),
        CellEnded("ppo-s0", "done", 41.0, None, result),
        CellEnded("ppo-s1", "failed", 8.0, "loss is NaN"),
        CellEnded("ppo-s2", "pruned"),
    ).splitlines()
    assert lines[1:] == [
        "[1/4] ppo-s0 done in 41 s: accuracy 0.812, length 153 tokens",
        "[2/4] ppo-s1 FAILED in 8 s: loss is NaN",
        "[3/4] ppo-s2 pruned",
    ]


def test_a_summary_comes_every_half_minute_with_a_line_of_each_worker() -> None:
    begun = CellProgress("ppo-s0", 0, Glance("rl", 0, 60))
    at = CellProgress("ppo-s0", 0, Glance("rl", 30, 60, 0.5, 80.4))
    lines = shown(STARTED, CellStarted("ppo-s0", 0, 1), begun, at, at, seconds=10.0).splitlines()
    assert lines[1] == (
        "0 of 4 cells, 30 s gone, about 3 min 30 s left | 0: ppo-s0 rl 30/60 accuracy 0.50 length 80"
    )  # half a cell took 30 s, three and a half are left
    assert len(lines) == 2


def test_an_early_warning_is_shown_while_a_cell_runs_and_when_it_ends() -> None:
    assert describe(Glance("rl", 30, 60, 0.5, 80.4, warned_at=7)).endswith("length 80 early warning at 7")
    result = {"final_accuracy": 0.5, "final_length_tokens": 30.0, "early_warning_at": 0.0}
    assert ending(CellEnded("a", "done", None, None, result)).endswith("30 tokens, early warning at iteration 0")


def test_a_watch_sees_the_first_early_warning(cell: CellFolder, tmp_path: Path) -> None:
    cell.add_stage("rl", "0", ran=True)
    watch, seen = CellWatch(cell, tmp_path), []
    for step, broken in enumerate((0.0, 1.0, 0.0, 1.0)):
        values = {"rollout/accuracy": 0.5, "rollout/length_tokens": 9.0, "early_warning/alignment": 0.0}
        journal(tmp_path, "rl").metrics(step, {**values, "early_warning/length_falls": broken})
        seen.append(watch.look().warned_at)
    assert seen == [None, 1, 1, 1]


def test_what_was_done_before_does_not_make_the_rest_look_quick() -> None:
    started = StudyStarted("s", "t", total=10, done=8, failed=0, pruned=0, workers=1)
    lines = shown(started, CellEnded("a", "done", 40.0), CellStarted("b", 0, 1), Notice("n"), seconds=20.0).splitlines()
    assert lines[-2] == "9 of 10 cells, 40 s gone, about 40 s left | 0: b starting"


def test_a_dead_worker_and_a_notice_are_told() -> None:
    text = shown(STARTED, WorkerDied(1, "ppo-s0", "signal 9 (SIGKILL)", again=True), Notice("hear, hear"))
    assert "worker 1 died (signal 9 (SIGKILL)); ppo-s0 runs again\nhear, hear\n" in text


def test_a_terminal_shows_workers_and_the_whole() -> None:
    at = CellProgress("ppo-s0", 0, Glance("value-pretraining", 20, 300, None, None))
    text = shown(STARTED, CellStarted("ppo-s0", 0, 1), at, terminal=True)
    assert "0/4 cells" in text
    assert "value-pretraining 20/300" in text


@pytest.fixture
def cell(tmp_path: Path) -> CellFolder:
    record = CellRecord(study="s", cell="a-s0", arm="a", seed=0)
    return CellFolder.create(tmp_path / "a-s0", record, RunSettings(steps=60))


def test_a_cell_whose_clock_was_set_back_took_no_time(cell: CellFolder, tmp_path: Path) -> None:
    events: list[Event] = []
    with following(cell, tmp_path, events.append, every=60):
        cell.update(state="done", started=7200.0, finished=3600.0)
    SweepReporter(cast("StudyLedger", None), events.append).cell_ended(cell.read())
    assert [event.seconds for event in events if isinstance(event, CellEnded)] == [0.0, 0.0]


def journal(out: Path, stage: str) -> Journal:
    return Journal(out / "cache" / stage / "0" / "journal.jsonl")


def test_a_watch_forgets_what_a_stage_that_was_cut_back_will_do_again(cell: CellFolder, tmp_path: Path) -> None:
    cell.add_stage("rl", "a", ran=True)
    journal = Journal(tmp_path / "cache" / "rl" / "a" / "journal.jsonl")
    for step in range(8):
        journal.metrics(step, {"rollout/accuracy": 0.1})
    watch = CellWatch(cell, tmp_path)
    watch.look()
    assert watch.recent_accuracy(7) == pytest.approx(0.1)
    journal.truncate(4)
    journal.metrics(4, {"rollout/accuracy": 0.6})
    watch.look()
    assert watch.recent_accuracy(4) == pytest.approx(0.2)
    assert watch.recent_accuracy(5) is None


def test_a_watch_sees_stage_step_accuracy_and_length(cell: CellFolder, tmp_path: Path) -> None:
    watch = CellWatch(cell, tmp_path)
    assert watch.look() == Glance()
    cell.add_stage("cold-start", "0", ran=True)
    journal(tmp_path, "cold-start").metrics(250, {"cold_start/loss": 1.0})
    assert watch.look() == Glance("cold-start", 250, RunSettings().cold_start.steps)
    cell.add_stage("rl", "0", ran=True)
    for step in range(8):
        journal(tmp_path, "rl").metrics(step, {"rollout/accuracy": step / 10, "rollout/length_tokens": 70.0 + step})
    assert watch.look() == Glance("rl", 7, 60, 0.7, 77.0)
    assert watch.recent_accuracy(7) == pytest.approx(0.5)  # mean of 0.3, 0.4, 0.5, 0.6, 0.7
    assert watch.recent_accuracy(1) == pytest.approx(0.05)
    assert watch.recent_accuracy(8) is None


def test_a_tail_survives_torn_lines_and_a_journal_that_is_cut_back(tmp_path: Path) -> None:
    journal, tail = Journal(tmp_path / "journal.jsonl"), JournalTail(tmp_path / "journal.jsonl")
    assert tail.read() == []
    for step in range(4):
        journal.metrics(step, {"a": 1.0})
    assert [record["step"] for record in tail.read()] == [0, 1, 2, 3]
    with open(journal.path, "a") as file:
        file.write('{"kind": "metr')
    assert tail.read() == []
    journal.truncate(2)
    journal.metrics(2, {"a": 1.0})
    assert [record["step"] for record in tail.read()] == [0, 1, 2]
    journal.truncate(0)
    journal.table("long", 0, {"cells": ["x" * 40] * 20})  # grown past where the tail stood
    assert [record["kind"] for record in (tail.read() + tail.read())] == ["table"]


def test_a_run_in_this_process_can_be_followed(cell: CellFolder, tmp_path: Path) -> None:
    events: list[Event] = []

    def runner(folder: Path, out: Path) -> dict[str, float]:
        cell.add_stage("rl", "0", ran=True)
        journal(out, "rl").metrics(5, {"rollout/accuracy": 0.25, "rollout/length_tokens": 9.0})
        seen = len(events)
        while len(events) < seen + 2:
            time.sleep(0.01)
        return {"final_accuracy": 0.25}

    with following(cell, tmp_path, events.append, every=0.01):
        run_and_record(cell, tmp_path, runner)
    assert CellProgress("a-s0", 0, Glance("rl", 5, 60, 0.25, 9.0)) in events
    assert isinstance(events[-1], CellEnded)
    assert events[-1].state == "done"


def test_a_worker_takes_the_first_cell_that_needs_nothing_others_are_computing() -> None:
    waiting = [{"cold-start/a", "rl/1"}, {"cold-start/b", "rl/2"}, {"cold-start/b", "rl/3"}]
    assert pick(waiting, busy=set()) == 0
    assert pick(waiting, busy={"cold-start/a"}) == 1
    assert pick(waiting, busy={"cold-start/a", "cold-start/b"}) == 0
