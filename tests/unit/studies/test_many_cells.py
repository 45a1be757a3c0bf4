"""What each cell of a large study costs before it runs, by counts: seconds are of bench/many_cells.py."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vcppo.settings import kinds, run
from vcppo.store import cache
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.execution import Execution
from vcppo.studies.runners import PipelineRunner
from vcppo.studies.study import Study, parse_study
from vcppo.studies.trials import MOST_CHOICES

ARMS = 64  # more than a trial's distribution lists


def many() -> Study:
    arms = [{"name": f"arm-{n:02d}", "set": {"policy.learning_rate": 1e-4 * (1 + n / ARMS)}} for n in range(ARMS)]
    return parse_study({"name": "many", "title": "t", "arms": arms, "seeds": 1}, "test")


def opened(study: Study, out: Path) -> StudyLedger:
    """All that `vcppo sweep` does with a study before its first line."""
    runner, seeds = PipelineRunner(processes=None, verl_settings=()), study.seed_list()
    runner.check(study, seeds)
    runner.notes(study, seeds, 1, out)
    runner.entry_point(study, seeds, out, fresh=False)
    (out / "studies" / study.name).mkdir(parents=True, exist_ok=True)
    return StudyLedger(study, Execution(tuple(seeds), out), warn=print)


def test_what_takes_long_is_done_once_for_each_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return function(*given, **named)

        return counting

    monkeypatch.setattr(cache, "addresses", counted("addresses", cache.addresses))
    monkeypatch.setattr(run, "flat_layout", counted("flat_layout", kinds.flat_layout))
    ledger = opened(many(), tmp_path)
    for cell in ledger.queue:
        ledger.stages_of(cell)
    ledger.mirror.close(60)
    assert calls["addresses"] == ARMS
    assert calls["flat_layout"] <= 4 * ARMS + 10  # its varied values, its digest, its addresses, its record


def test_a_trial_of_many_arms_is_small_in_the_journal_and_lists_no_arms_but_its_own(tmp_path: Path) -> None:
    assert ARMS > MOST_CHOICES
    ledger = opened(many(), tmp_path)
    while ledger.queue:
        cell = ledger.queue.pop(0)
        ledger.begin(cell)
        folder = ledger.folder_of(cell.name)
        ledger.end(folder.update(state="done", started=1.0, finished=2.0, result={"final_accuracy": 0.5}))
        ledger.settle(ledger.trial_of(cell.name))
    assert ledger.mirror.close(60) == 0
    lines = (tmp_path / "studies" / "many" / "optuna.journal").read_text().splitlines()
    assert sum(map(len, lines)) < 2000 * ARMS
    for line in lines:
        assert sum(f"arm-{n:02d}" in line for n in range(ARMS)) <= 1, line
        json.loads(line)
    assert all(any(f"arm-{n:02d}" in line for line in lines) for n in range(ARMS))
