"""A study whose small files were damaged, or whose disk was full, goes on by the same command, with a line for each."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from vcppo.errors import DiskError
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.studies.execution import Execution
from vcppo.studies.progress import CellEnded, Event, Notice
from vcppo.studies.study import parse_study
from vcppo.studies.sweep import StudyOutcome, run_study
from vcppo.studies.trials import open_storage

pytestmark = pytest.mark.e2e

# A cell's score is its λ; while there is a file OUT/full, the disk of its worker is full.
FAKE = """
import errno, os
from vcppo.store.cell_folders import CellFolder

def run_cell(cell, out):
    if (out / "full").exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cell / "state.pt"))
    return {"final_accuracy": CellFolder(cell).settings().gae.lambda_actor}
"""
GRID = {"name": "small", "title": "two cells", "grid": {"gae": {"lambda_actor": [0.9, 1]}}}
CELLS = ["gae.lambda_actor=0.9-s0", "gae.lambda_actor=1.0-s0"]


def search(trials: int) -> dict[str, Any]:
    space = {"gae.lambda_actor": {"low": 0.5, "high": 1.0}}
    return {"name": "small", "title": "a search", "search": {"trials": trials, "startup_trials": 2, "space": space}}


class Damaged:
    """A study below `out`, and what its latest run said."""

    def __init__(self, out: Path) -> None:
        self.out, self.folder = out, out / "studies" / "small"
        self.events: list[Event] = []

    def run(self, study: dict[str, Any]) -> StudyOutcome:
        self.events.clear()
        return run_study(
            parse_study(study, "test"),
            Execution((0,), self.out, runner="fake_scores:run_cell"),
            on_event=self.events.append,
        )

    def notices(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Notice)]

    def ended(self) -> list[str]:
        return [event.cell for event in self.events if isinstance(event, CellEnded)]

    def record(self, cell: str) -> CellRecord:
        return CellFolder(self.folder / "cells" / cell).read()

    def trials(self) -> dict[str, tuple[TrialState, float | None]]:
        name = json.loads((self.folder / "study.json").read_text())["optuna_study"]
        trials = optuna.load_study(storage=open_storage(None, self.folder), study_name=name).get_trials()
        return {
            str(trial.user_attrs.get("name", f"trial-{trial.number:04d}")): (trial.state, trial.value)
            for trial in trials
        }


@pytest.fixture
def damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Damaged:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "fake_scores.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"), prepend=":")
    return Damaged(tmp_path)


def test_small_files_of_nothing_are_moved_aside_and_made_again(damaged: Damaged) -> None:
    assert damaged.run(GRID).done == 2
    before = damaged.trials()
    assert sorted(state for state, _ in before.values()) == [TrialState.COMPLETE] * 2
    (damaged.folder / "study.json").write_bytes(bytes(200))
    (damaged.folder / "cells" / CELLS[0] / "cell.json").write_bytes(b"")
    settings = damaged.folder / "cells" / CELLS[1] / "settings.json"
    settings.write_bytes(settings.read_bytes()[:50])
    journal = damaged.folder / "optuna.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:2], b"\0\0garbage\n", *lines[2:]]))

    assert damaged.run(GRID).done == 2
    assert sorted(damaged.ended()) == CELLS
    for file in ("study.json", f"{CELLS[0]}/cell.json", f"{CELLS[1]}/settings.json", "optuna.journal line 3"):
        assert len([line for line in damaged.notices() if file in line]) == 1
    assert not any("\n" in line for line in damaged.notices())
    assert damaged.trials() == before
    assert damaged.run(GRID).done == 2
    assert (damaged.notices(), damaged.ended()) == ([], [])


def test_a_search_whose_journal_is_damaged_goes_on_with_the_trials_of_its_cells(damaged: Damaged) -> None:
    assert damaged.run(search(3)).done == 3
    before = damaged.trials()
    (damaged.folder / "optuna.journal").write_bytes(b"\0" * 100 + b"\n")
    assert damaged.run(search(5)).done == 5
    after = damaged.trials()
    assert list(after) == [f"trial-{number:04d}" for number in range(5)]
    assert {name: after[name] for name in before} == before
    assert [damaged.record(f"trial-{number:04d}-s0").attempts for number in range(5)] == [1] * 5


def test_a_full_disk_fails_no_cell_and_ends_the_study_in_one_line(damaged: Damaged) -> None:
    (damaged.out / "full").touch()
    with pytest.raises(DiskError, match=r"state\.pt: cannot be written \(No space left on device; .*; make room"):
        damaged.run(GRID)
    assert [damaged.record(cell).state for cell in CELLS] == ["queued"] * 2
    assert damaged.ended() == []
    (damaged.out / "full").unlink()
    assert damaged.run(GRID).done == 2
