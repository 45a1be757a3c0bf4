"""Ctrl-C and SIGTERM while a study is being opened: it does not wait for who never replies, and ends with 130."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vcppo.cli.main import main
from vcppo.studies import cell_states, mirror, worker_locks
from vcppo.studies.trials import Scoreboard
from vcppo.studies.worker_locks import worker_lock
from vcppo.system.files import is_locked
from vcppo.system.processes import STOPPED

GRID = 'name = "grid"\ntitle = "t"\nseeds = 1\n[[arms]]\nname = "ppo"\n'
SEARCH = (
    'name = "search"\ntitle = "t"\nseeds = 1\n[search]\ntrials = 1\n[search.space]\n"gae.lambda_actor" = [0.5, 1.0]\n'
)


@pytest.fixture
def unending() -> Iterator[threading.Event]:
    """What a silent server's reply waits for, until the test is over."""
    over = threading.Event()
    yield over
    over.set()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not interrupted ends after a while all the same, with another exit code."""
    monkeypatch.setattr(mirror, "OPENING_S", 20.0)
    monkeypatch.setattr(worker_locks, "PREDECESSOR_S", 20.0)


def signals_then_waits(number: int, over: threading.Event) -> Callable[..., Any]:
    """Called in the mirror's thread: a signal comes while the study's thread waits for a reply that never comes.

    One signal: the mirror asks again when the test is over, and nobody hears the next but pytest.
    """
    sent = threading.Event()

    def work(*arguments: Any, **named: Any) -> Any:
        if not sent.is_set():
            sent.set()
            os.kill(os.getpid(), number)
        over.wait()
        raise OSError("the test is over")

    return work


def swept(text: str, folder: Path) -> tuple[int, str]:
    (folder / "study.toml").write_text(text)
    words = ["sweep", str(folder / "study.toml"), "--out", str(folder / "runs"), "--tracking-uri", "none"]
    done = CliRunner().invoke(main, [*words, "--workers", "1"])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_storage_that_never_opens_is_not_waited_for(
    number: int, unending: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_states, "open_storage", signals_then_waits(number, unending))
    assert swept(GRID, tmp_path) == (130, f"{STOPPED}\n")


def test_one_that_opens_and_never_tells_what_was_proposed_is_not_either(
    unending: threading.Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scoreboard, "proposed", signals_then_waits(signal.SIGTERM, unending))
    assert swept(SEARCH, tmp_path) == (130, f"{STOPPED}\n")


def test_a_worker_that_an_earlier_process_left_elsewhere_is_not_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = tmp_path / "runs" / "studies" / "grid" / "logs"
    logs.mkdir(parents=True)

    def locked_when_looked_at(path: Path) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return is_locked(path)

    with worker_lock(logs, 0, "node"):
        monkeypatch.setattr(worker_locks, "is_locked", locked_when_looked_at)
        code, said = swept(GRID, tmp_path)
    assert (code, said) == (130, f"{STOPPED}\n")
