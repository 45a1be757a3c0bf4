"""A study whose trials are in PostgreSQL, whose connections drop, which is killed, and which stops answering."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from postgresql_server import MISSING, PostgreSQL, running

from vcppo.errors import StudyError
from vcppo.studies import mirror as module
from vcppo.studies.mirror import TrialMirror
from vcppo.studies.outbox import owed_trials
from vcppo.studies.study import parse_study
from vcppo.studies.trials import Scoreboard, TrialEnd, distributions, open_storage

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(MISSING is not None, reason=str(MISSING))]

STUDY: dict[str, Any] = {"name": "grid", "title": "t", "arms": [{"name": f"a{n}"} for n in range(1)], "seeds": 1}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with running() as server:
        yield server


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.05)


def opened(server: PostgreSQL, folder: Path, name: str) -> TrialMirror:
    study = parse_study(STUDY, "test")
    return TrialMirror(
        lambda: Scoreboard(open_storage(server.url, folder), name, study, distributions(study)), folder=folder
    )


def run(mirror: TrialMirror, name: str, seed: int) -> None:
    params = {"arm": "a0", "seed": seed}
    mirror.tell([name], lambda board: board.begin(name, params))
    mirror.tell([name], lambda board: board.finish(name, TrialEnd(params, TrialState.COMPLETE, seed / 10)))


def stored(mirror: TrialMirror) -> list[tuple[str, TrialState, float | None]]:
    asked = mirror.ask(lambda board: board.optuna.get_trials())
    return [(trial.user_attrs["name"], trial.state, trial.value) for trial in mirror.wait(asked)]


def done(count: int) -> list[tuple[str, TrialState, float]]:
    return [(f"c{seed}", TrialState.COMPLETE, seed / 10) for seed in range(count)]


def first_news(mirror: TrialMirror) -> str:
    deadline = time.monotonic() + 60
    while not (news := mirror.news()):
        assert time.monotonic() < deadline, "no news came"
        time.sleep(0.05)
    return news[0]


@pytest.mark.usefixtures("soon")
def test_dropped_connections_and_a_killed_server_cost_no_trial_and_double_none(
    server: PostgreSQL, tmp_path: Path
) -> None:
    mirror = opened(server, tmp_path, "dropped")
    for seed in range(6):
        run(mirror, f"c{seed}", seed)
        server.drop_connections()
    assert stored(mirror) == done(6)
    server.kill()
    mirror.news()
    try:
        run(mirror, "c6", 6)
        assert "Optuna's storage is away" in first_news(mirror)
    finally:
        server.start()
    assert stored(mirror) == done(7)
    assert mirror.news()[-1] == "Optuna's storage is back"
    assert mirror.close(30) == 0
    assert owed_trials(tmp_path) == []


@pytest.mark.usefixtures("soon")
def test_a_server_that_stops_answering_keeps_nobody_waiting_and_hears_everything_later(
    server: PostgreSQL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = opened(server, tmp_path, "silent")
    run(mirror, "c0", 0)
    assert stored(mirror) == done(1)
    monkeypatch.setattr(module, "SILENT_S", 0.3)
    server.stop()
    try:
        run(mirror, "c1", 1)
        assert first_news(mirror).startswith("Optuna's storage has not answered for 0 s; cells go on")
        began = time.monotonic()
        assert mirror.close(0.2) == 1
        assert time.monotonic() - began < 20
        assert owed_trials(tmp_path) == ["c1"]
    finally:
        server.go_on()
    again = opened(server, tmp_path, "silent")
    end = {name: TrialEnd({"arm": "a0", "seed": n}, TrialState.COMPLETE, n / 10) for n, name in enumerate(["c0", "c1"])}
    again.tell(end, lambda board: board.agree(end))
    assert stored(again) == done(2)
    assert again.close(30) == 0
    assert owed_trials(tmp_path) == []


def test_one_that_is_not_there_at_the_beginning_is_refused_in_one_line(tmp_path: Path, server: PostgreSQL) -> None:
    server.kill()
    try:
        with pytest.raises(StudyError, match=r"--storage postgresql.*cannot be opened .*onnection refused"):
            opened(server, tmp_path, "away")
    finally:
        server.start()
