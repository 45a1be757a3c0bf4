"""Optuna's storage that is away, loses responses or never gives one: the study goes on, and what it is owed waits."""

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from vcppo.errors import StudyError
from vcppo.studies import mirror as module
from vcppo.studies.mirror import TrialMirror
from vcppo.studies.outbox import owed_trials
from vcppo.studies.study import parse_study
from vcppo.studies.trials import Scoreboard, TrialEnd, distributions, open_storage

SEARCH: dict[str, Any] = {
    "name": "search",
    "title": "t",
    "search": {"trials": 3, "space": {"gae.lambda_actor": {"low": 0.5, "high": 1.0}}},
}
DONE = TrialEnd({"gae.lambda_actor": 0.7}, TrialState.COMPLETE, 0.5)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)
    monkeypatch.setattr(module, "LONGEST_RETRY_S", 0.02)


def board() -> Scoreboard:
    study = parse_study(SEARCH, "test")
    return Scoreboard(optuna.storages.InMemoryStorage(), "name", study, distributions(study))


class Away:
    """Fails some times before, or after, it does what it should."""

    def __init__(self, times: int, work: Callable[[Scoreboard], Any], *, reply_lost: bool = False) -> None:
        self.left, self.work, self.reply_lost = times, work, reply_lost
        self.called = 0

    def __call__(self, board: Scoreboard) -> Any:
        self.called += 1
        self.left -= 1
        if self.left >= 0:
            if self.reply_lost:
                self.work(board)
            raise StorageInternalError("server closed the connection unexpectedly")
        return self.work(board)


def trials(mirror: TrialMirror) -> list[tuple[str, TrialState]]:
    asked = mirror.ask(lambda board: board.optuna.get_trials())
    return [(trial.user_attrs["name"], trial.state) for trial in mirror.wait(asked)]


def test_what_it_could_not_be_told_is_told_in_order_when_it_is_back(tmp_path: Path) -> None:
    mirror = TrialMirror(board, tmp_path)
    away = Away(3, lambda board: board.finish("a", DONE))
    mirror.tell(["a"], away)
    mirror.tell(["b"], lambda board: board.begin("b", DONE.params))
    assert trials(mirror) == [("a", TrialState.COMPLETE), ("b", TrialState.RUNNING)]
    assert away.called == 4
    news = mirror.news()
    assert [line.split(" (")[0].split(";")[0] for line in news] == [
        "Optuna's storage is away",
        "Optuna's storage is back",
    ]
    assert mirror.close(10) == 0
    assert owed_trials(tmp_path) == []


def test_a_response_that_was_lost_doubles_nothing(tmp_path: Path) -> None:
    mirror = TrialMirror(board, tmp_path)
    mirror.tell(["a"], Away(2, lambda board: board.begin("a", DONE.params), reply_lost=True))
    mirror.tell(["a"], Away(2, lambda board: board.finish("a", DONE), reply_lost=True))
    assert trials(mirror) == [("a", TrialState.COMPLETE)]


def test_a_proposal_that_was_never_heard_of_is_the_next(tmp_path: Path) -> None:
    mirror = TrialMirror(board, tmp_path)
    first, _ = mirror.wait(mirror.ask(Scoreboard.propose))
    lost = Away(1, lambda board: board.propose(frozenset([first])), reply_lost=True)
    name, params = mirror.wait(mirror.ask(lost))
    assert name == "trial-0001"
    asked = mirror.ask(lambda board: [trial.params for trial in board.optuna.get_trials()])
    assert mirror.wait(asked)[1:] == [params]


def test_what_it_is_owed_is_on_disk_while_it_is_away_and_when_the_study_ends(tmp_path: Path) -> None:
    mirror = TrialMirror(board, tmp_path)
    mirror.tell(["a"], Away(10**6, lambda board: None))
    mirror.tell(["b"], lambda board: None)
    deadline = time.monotonic() + 20
    while "a" not in owed_trials(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert mirror.close(0.05) == 2
    assert owed_trials(tmp_path) == ["a", "b"]
    again = TrialMirror(board, tmp_path)
    again.tell(["a", "b"], lambda board: board.agree({"a": DONE, "b": DONE}))
    assert trials(again) == [("a", TrialState.COMPLETE), ("b", TrialState.COMPLETE)]
    assert again.close(10) == 0
    assert owed_trials(tmp_path) == []


def test_one_that_never_responses_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENT_S", 0.05)
    silent, mirror = threading.Event(), TrialMirror(board, tmp_path)
    mirror.tell(["a"], lambda board: silent.wait(60))
    time.sleep(0.1)
    (line,) = mirror.news()
    assert line.startswith("Optuna's storage has not answered for 0 s; cells go on")
    assert mirror.news() == []
    asked = mirror.ask(Scoreboard.names)
    with pytest.raises(StudyError, match="has not answered for 0 s; what its cells did is safe there"):
        mirror.wait(asked, 0.05)
    began = time.monotonic()
    assert mirror.close(0.05) == 1
    assert time.monotonic() - began < 10
    assert owed_trials(tmp_path) == ["a"]
    silent.set()


def test_a_fault_of_ours_is_no_storage_that_is_away(tmp_path: Path) -> None:
    mirror = TrialMirror(board, tmp_path)
    mirror.tell(["a"], lambda board: board.params("nowhere"))
    mirror.wait(mirror.ask(Scoreboard.names))
    with pytest.raises(KeyError):
        mirror.tell(["b"], lambda board: None)


def test_a_storage_that_cannot_be_opened_ends_the_study_before_it_begins(tmp_path: Path) -> None:
    def refuse() -> Scoreboard:
        raise StudyError("no such storage")

    with pytest.raises(StudyError, match="no such storage"):
        TrialMirror(refuse, tmp_path)


def test_a_disk_that_keeps_the_lock_of_the_journal_is_a_storage_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = parse_study(SEARCH, "test")
    mirror = TrialMirror(
        lambda: Scoreboard(open_storage(None, tmp_path), "name", study, distributions(study)), tmp_path
    )
    remove, refusals = os.unlink, [OSError(errno.EIO, "the disk refuses")]

    def refuses(path: str, *more: Any, **named: Any) -> None:
        if "optuna.journal.lock" in str(path) and refusals:
            raise refusals.pop()
        remove(path, *more, **named)

    monkeypatch.setattr(os, "unlink", refuses)
    mirror.tell(["a"], lambda board: board.begin("a", DONE.params))
    mirror.tell(["a"], lambda board: board.finish("a", DONE))
    assert trials(mirror) == [("a", TrialState.COMPLETE)]
    assert not refusals
    assert mirror.close(5) == 0
