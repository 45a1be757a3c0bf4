"""Studies whose weights, code, arms or seeds have changed between two calls: one table never averages two worlds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from vcppo.cli.export import export_study
from vcppo.errors import StudyError
from vcppo.settings.run import RunSettings
from vcppo.store import cache
from vcppo.store.cache import keys_of
from vcppo.store.cell_folders import State
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.execution import Execution
from vcppo.studies.outdated import AddressesOf
from vcppo.studies.study import Study, parse_study

GRID = {"name": "grid", "title": "t", "grid": {"gae.lambda_actor": [0.9, 1.0]}}
A_CELL = "gae.lambda_actor=0.9-s0"
ARMS: list[dict[str, Any]] = [{"name": "a"}, {"name": "b", "set": {"pretrain.steps": 5}}]
SEARCH: dict[str, Any] = {
    "name": "search",
    "title": "t",
    "search": {"trials": 2, "space": {"gae.lambda_actor": {"low": 0.5, "high": 1.0}}},
}


class Calls:
    """Calls of one study without workers: cells end because a test says so."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.notices: list[str] = []

    def open(self, tree: dict[str, Any], seeds: list[int], **options: Any) -> StudyLedger:
        self.notices.clear()
        (self.out / "studies" / tree["name"]).mkdir(parents=True, exist_ok=True)
        ledger = StudyLedger(self.study(tree), Execution(tuple(seeds), self.out, **options), warn=self.notices.append)
        ledger.propose()
        return ledger

    def study(self, tree: dict[str, Any]) -> Study:
        return parse_study(tree, "test")

    def run(self, tree: dict[str, Any], seeds: list[int], **options: Any) -> StudyLedger:
        """A call that runs all of its cells, in the stages that they have today."""
        ledger = self.open(tree, seeds, **options)
        while ledger.queue:
            cell = ledger.queue.pop(0)
            ledger.begin(cell)
            self.end(ledger, cell.name, "done", options.get("addresses_of", keys_of))
            ledger.propose()
        return ledger

    def end(self, ledger: StudyLedger, cell: str, state: State, addresses_of: AddressesOf = keys_of) -> None:
        folder = ledger.folder_of(cell)
        stages = [{"stage": name, "address": key, "ran": True} for name, key in addresses_of(folder.settings()).items()]
        record = folder.update(
            state=state, stages=stages, started=1.0, finished=2.0, attempts=1, result={"final_accuracy": 0.5}
        )
        if state != "running":
            ledger.end(record)
            ledger.settle(ledger.trial_of(cell))


@pytest.fixture
def calls(tmp_path: Path) -> Calls:
    return Calls(tmp_path)


@pytest.fixture
def raise_version(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setitem(cache.VERSIONS, "reward-model", 99)


def test_cells_of_an_earlier_version_of_a_stage_are_not_averaged_with_new_ones(
    calls: Calls, raise_version: Callable[[], None]
) -> None:
    calls.run(GRID, [0, 1])
    assert not calls.open(GRID, [0, 1]).queue
    raise_version()
    with pytest.raises(StudyError, match=r"4 of its ended cells .* and 1 more. have results of another reward"):
        calls.open(GRID, [0, 1, 2])
    assert len(calls.open(GRID, [0, 1, 2], recompute=True).queue) == 6
    calls.run(GRID, [0, 1, 2])
    assert not calls.open(GRID, [0, 1, 2]).queue


def test_cells_that_this_call_does_not_run_are_compared_too_and_leave_on_recompute(
    calls: Calls, raise_version: Callable[[], None]
) -> None:
    calls.run(GRID, [0])
    raise_version()
    with pytest.raises(StudyError, match="another reward-model"):
        calls.open(GRID, [1])
    assert len(calls.open(GRID, [1], recompute=True).queue) == 2
    assert {path.name[-2:] for path in (calls.out / "studies/grid/cells").iterdir()} == {"s1"}
    assert (calls.out / "studies/grid/withdrawn" / A_CELL / "settings.json").exists()


def test_other_weights_at_the_same_path_are_refused(calls: Calls, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").write_text("one")
    tree = {**GRID, "base": {"model.path": str(model)}}
    calls.run(tree, [0])
    assert not calls.open(tree, [0]).queue
    (model / "tokenizer.json").write_text("two")
    with pytest.raises(StudyError, match=r"another cold-start .*weights behind model.path"):
        calls.open(tree, [0])


def test_a_search_does_not_compare_trials_of_two_versions(calls: Calls, raise_version: Callable[[], None]) -> None:
    calls.run(SEARCH, [0])
    raise_version()
    longer = {**SEARCH, "search": {**SEARCH["search"], "trials": 3}}
    with pytest.raises(StudyError, match="another reward-model"):
        calls.open(longer, [0])
    assert len(calls.open(longer, [0], recompute=True).queue) == 2


@pytest.mark.parametrize(("name", "value"), [("direction", "minimize"), ("objective", "final_length_tokens")])
def test_a_search_whose_goal_has_changed_is_refused(calls: Calls, name: str, value: str) -> None:
    calls.run(SEARCH, [0])
    before = (calls.out / "studies/search/study.json").read_text()
    with pytest.raises(StudyError, match=rf"its trials were scored with {name} = .*, now {value}; .* --fresh"):
        calls.open({**SEARCH, "search": {**SEARCH["search"], "trials": 3, name: value}}, [0])
    assert (calls.out / "studies/search/study.json").read_text() == before
    assert not calls.open(SEARCH, [0]).queue


def test_a_search_that_became_a_grid_is_refused_with_nothing_put_aside(calls: Calls) -> None:
    ledger = calls.open(SEARCH, [0])
    assert ledger.queue
    with pytest.raises(StudyError, match="it was a search, and is a grid now"):
        calls.open({**GRID, "name": "search"}, [0])
    assert not (calls.out / "studies/search/withdrawn").exists()


def test_a_runner_with_addresses_of_its_own_is_compared_by_them(calls: Calls) -> None:
    def of_verl(settings: RunSettings) -> dict[str, str]:
        return {"rl": "verl"}

    calls.run(GRID, [0], addresses_of=of_verl)
    assert not calls.open(GRID, [0], addresses_of=of_verl).queue
    with pytest.raises(StudyError, match=r"another rl \(address verl, now "):
        calls.open(GRID, [0])


def test_an_arm_removed_with_a_cell_unfinished_leaves_a_study_that_can_be_exported(calls: Calls) -> None:
    both, one = ({"name": "grid", "title": "t", "arms": arms} for arms in (ARMS, ARMS[:1]))
    ledger = calls.open(both, [0])
    calls.end(ledger, "a-s0", "done")
    calls.end(ledger, "b-s0", "running")  # as a kill leaves it
    assert not calls.open(one, [0]).queue
    assert [text.split(":")[0] for text in calls.notices] == [
        "1 unfinished cells are not of this study any more (b-s0)"
    ]
    assert export_study("grid", calls.out / "results", out=calls.out, allow_incomplete=False)
    assert [cell.name for cell in calls.open(both, [0]).queue] == ["b-s0"]
    assert (calls.out / "studies/grid/withdrawn/b-s0").exists()


def test_fewer_seeds_with_a_cell_unfinished_leave_a_study_that_can_be_exported(calls: Calls) -> None:
    ledger = calls.run(GRID, [0, 1])
    ledger.folder_of("gae.lambda_actor=0.9-s1").update(state="queued")
    assert not calls.open(GRID, [0]).queue
    assert len(calls.notices) == 2
    assert calls.notices[1] == (
        "1 ended cells of earlier calls stay in this study and its tables (gae.lambda_actor=1.0-s1)"
    )
    assert export_study("grid", calls.out / "results", out=calls.out, allow_incomplete=False)
    ledger = calls.run(GRID, [0, 1])
    assert set(ledger.states.values()) == {"done"}
    trials = ledger.mirror.wait(ledger.mirror.ask(lambda board: board.optuna.get_trials()))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
