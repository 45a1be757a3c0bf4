"""A part of the torture for every run of the tests, and a larger one for those that take long."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from torture.harness import torture
from torture.kinds import Extent
from torture.tally import Outcomes, counts

from vcppo.system import files

pytestmark = pytest.mark.e2e


def tortured(place: Path, *kinds: str, every: int = 1, first: int = 1, rounds: int = 1) -> Outcomes:
    outcomes = Outcomes()
    torture(kinds, Extent(every, first, rounds), outcomes, place)
    return outcomes


def test_faults_at_some_writes_change_nothing(tmp_path: Path) -> None:
    outcomes = tortured(tmp_path, "kill", "ENOSPC", "EIO", every=150, first=43)
    assert counts(outcomes.all) == (6, 6)


def test_a_disk_that_refuses_to_sync_or_remove_is_one_line(tmp_path: Path) -> None:
    outcomes = tortured(tmp_path, "EIO", every=147, first=52)
    assert counts(outcomes.all) == (2, 2)


@pytest.mark.parametrize(("kind", "first"), [("clock-back", 43), ("users", 1)])
def test_one_case_of_a_clock_set_back_and_of_a_second_user_changes_nothing(kind: str, first: int) -> None:
    """In a process of its own: of a second user's commands the output is read, which pytest would take."""
    here = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}:{here}"}
    command = [sys.executable, "-m", "torture.harness", "--kinds", kind, "--every", "1000", "--first", str(first)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if "not tried" in done.stdout:
        pytest.skip(done.stdout.splitlines()[0])
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{kind}: 1 faults, 1 survived" in done.stdout


@pytest.mark.long
@pytest.mark.parametrize("kind", ["study", "proxy", "torchrun"])
def test_one_round_of_what_is_drawn_at_random_changes_nothing(tmp_path: Path, kind: str) -> None:
    outcomes = tortured(tmp_path, kind, rounds=1)
    assert [outcome.wrong for outcome in outcomes.all] == [None]


@pytest.mark.long
@pytest.mark.parametrize(
    ("kind", "every", "faults"),
    [("power", 100, 3), ("EINTR", 1, 1), ("parent-kill", 50, 1), ("parent-ENOSPC", 60, 1)],
)
def test_a_part_of_the_other_kinds_changes_nothing(tmp_path: Path, kind: str, every: int, faults: int) -> None:
    outcomes = tortured(tmp_path, kind, every=every, first=43)
    if not outcomes.all:
        pytest.skip("it cannot be tried here; the line above says why")
    assert [outcome.wrong for outcome in outcomes.all if outcome.wrong is not None] == []
    assert counts(outcomes.all)[0] >= faults


@pytest.mark.long
def test_a_power_cut_is_not_survived_by_files_that_nobody_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oracle sees what is lost."""
    monkeypatch.setattr(files, "sync", lambda path: None)
    outcomes = tortured(tmp_path, "power", every=40, first=43)
    if not outcomes.all:
        pytest.skip("nothing can be mounted here")
    assert any(outcome.wrong is not None for outcome in outcomes.all)
