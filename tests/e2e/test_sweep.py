"""Studies with real worker processes and cells that do nothing but sleep, fail, or kill whoever runs them."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from fake_cells import A_CELL, B_CELL, GRID, SEARCH, Bench, alive, study, until, value_at
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState

from vcppo.errors import ConfigError, StudyError
from vcppo.studies.outbox import owed_trials
from vcppo.studies.progress import CellEnded, Notice, WorkerDied

pytestmark = pytest.mark.e2e

Parent = Callable[[dict[str, Any]], subprocess.Popen[bytes]]


def test_two_workers_drain_a_grid_exactly_and_a_second_call_runs_nothing(bench: Bench) -> None:
    bench.plan({}, nap=0.15)
    outcome = bench.run(study(GRID))
    assert (outcome.done, outcome.failed, outcome.left, outcome.exit_code) == (8, 0, 0, 0)
    assert sorted(bench.ends().values()) == [1] * 8
    assert len({record["pid"] for record in bench.log("begin")}) == 2
    assert bench.states() == {TrialState.COMPLETE: 8}

    assert bench.run(study(GRID)).done == 8
    assert sum(bench.ends().values()) == 8
    assert len(bench.trials()) == 8


def test_each_cell_of_a_grid_received_exactly_what_its_trial_suggested(bench: Bench) -> None:
    bench.run(study(GRID))
    received = {record["cell"]: record["settings"] for record in bench.log("begin")}
    trials = bench.trials()
    assert len(trials) == len(received) == 8
    for trial in trials:
        name = trial.user_attrs["name"]
        written = json.loads((bench.out / "studies/grid/cells" / name / "settings.json").read_text())
        assert written == received[name]
        assert set(trial.params) == {"arm", "seed", "gae.lambda_actor", "gae.lambda_critic"}
        assert {key: value_at(received[name], key) for key in trial.params} == trial.params
        assert trial.value == bench.record(name).result["final_accuracy"]


def test_each_cell_of_a_search_received_exactly_what_its_trial_suggested(bench: Bench) -> None:
    outcome = bench.run(study(SEARCH))
    assert (outcome.done, outcome.left) == (10, 0)
    received = {record["cell"]: record["settings"] for record in bench.log("begin")}
    trials = bench.trials("search")
    assert len(trials) == 5
    assert len({trial.params["gae.lambda_actor"] for trial in trials}) == 5
    for trial in trials:
        cells = [f"trial-{trial.number:04d}-s{seed}" for seed in (0, 1)]
        for cell in cells:
            assert {key: value_at(received[cell], key) for key in trial.params} == trial.params
        scores = [bench.record(cell, "search").result["final_accuracy"] for cell in cells]
        assert trial.value == pytest.approx(sum(score for score in scores if score is not None) / 2)


def test_more_seeds_add_only_the_new_cells(bench: Bench) -> None:
    bench.run(study(GRID), seeds=[0, 1], workers=1)
    assert [record["settings"]["seed"] for record in bench.log("begin")] == [0] * 4 + [1] * 4
    assert bench.run(study(GRID), seeds=[0, 1, 2, 3, 4]).done == 20
    assert sorted(bench.ends().values()) == [1] * 20
    assert bench.states() == {TrialState.COMPLETE: 20}


def test_another_arm_adds_only_its_cells(bench: Bench) -> None:
    arms = [{"name": "a"}, {"name": "b", "set": {"pretrain.steps": 5}}]
    bench.run(study({"name": "grid", "title": "t"}, arms=arms))
    arms.append({"name": "c", "set": {"gae.gamma": 0.9}})
    assert bench.run(study({"name": "grid", "title": "t"}, arms=arms)).done == 6
    assert sorted(bench.ends().values()) == [1] * 6
    assert {trial.params["arm"] for trial in bench.trials()} == {"a", "b", "c"}
    assert bench.states() == {TrialState.COMPLETE: 6}


def test_a_failed_cell_is_shown_with_its_error_and_never_scored(bench: Bench) -> None:
    bench.plan({A_CELL: ["fail", "ok"]})
    outcome = bench.run(study(GRID))
    error = "ZeroDivisionError: the cell's own fault"
    assert (outcome.done, outcome.failures, outcome.exit_code) == (7, ((A_CELL, error),), 1)
    assert [event.error for event in bench.events if isinstance(event, CellEnded) and event.state == "failed"] == [
        error
    ]
    assert "in run_cell" in (bench.out / "studies/grid/cells" / A_CELL / "traceback.txt").read_text()
    (trial,) = [trial for trial in bench.trials() if trial.state == TrialState.FAIL]
    assert (trial.value, trial.user_attrs["error"]) == (None, f"{A_CELL}: {error}")

    assert bench.run(study(GRID)).failed == 1  # not run again unasked
    assert len([record for record in bench.log("begin") if record["cell"] == A_CELL]) == 1
    assert bench.run(study(GRID), retry_failed=True).done == 8
    assert sorted(bench.ends().values()) == [1] * 8
    assert bench.states() == {TrialState.COMPLETE: 8, TrialState.FAIL: 1}
    assert bench.record(A_CELL).error is None


def test_a_failed_trial_of_a_search_is_never_scored_and_can_be_tried_again(bench: Bench) -> None:
    bench.plan({"trial-0001-s1": ["fail", "ok"]})
    outcome = bench.run(study(SEARCH))
    assert (outcome.done, outcome.failed) == (9, 1)
    assert bench.trials("search")[1].state == TrialState.FAIL
    assert bench.trials("search")[1].value is None
    assert bench.run(study(SEARCH), retry_failed=True).done == 10
    assert bench.states("search") == {TrialState.COMPLETE: 5, TrialState.FAIL: 1}
    assert bench.trials("search")[5].params == bench.trials("search")[1].params
    assert sorted(bench.ends().values()) == [1] * 10


def test_a_run_without_the_result_that_scores_it_has_failed(bench: Bench) -> None:
    bench.plan({A_CELL: ["nan"]})
    ((cell, error),) = bench.run(study(GRID)).failures
    assert cell == A_CELL
    assert error == "the run has no finite result final_accuracy, by which the study scores it; it has other"


def test_a_killed_worker_has_its_cell_run_again(bench: Bench) -> None:
    bench.plan({A_CELL: ["die", "ok"], B_CELL: ["die", "die", "ok"]})
    outcome = bench.run(study(GRID))
    assert (outcome.done, outcome.failed) == (8, 0)
    assert sorted(bench.ends().values()) == [1] * 8
    assert (bench.record(A_CELL).attempts, bench.record(B_CELL).attempts) == (2, 3)
    assert all(event.again for event in bench.events if isinstance(event, WorkerDied))
    assert bench.states() == {TrialState.COMPLETE: 8}


def test_a_worker_that_dies_between_its_last_word_to_the_disk_and_its_reply_costs_nothing(bench: Bench) -> None:
    bench.plan({A_CELL: ["die silent"]})
    assert bench.run(study(GRID)).done == 8
    assert sorted(bench.ends().values()) == [1] * 8
    assert bench.record(A_CELL).attempts == 1


def test_a_cell_that_kills_its_workers_is_given_up_and_the_others_are_done(bench: Bench) -> None:
    bench.plan({A_CELL: ["die"]})
    outcome = bench.run(study(GRID))
    ((cell, error),) = outcome.failures
    assert (outcome.done, cell) == (7, A_CELL)
    assert error.startswith(
        "worker died 3 times, last by signal 9 (SIGKILL, often for want of memory); see logs/worker-"
    )
    assert bench.states() == {TrialState.COMPLETE: 7, TrialState.FAIL: 1}


def test_a_killed_study_leaves_no_worker_and_goes_on_where_it_was(bench: Bench, parent: Parent) -> None:
    bench.plan({A_CELL: ["wait"], B_CELL: ["wait"]})
    process = parent(GRID)
    waiting = {A_CELL, B_CELL}
    until(lambda: waiting <= {record["cell"] for record in bench.log("begin")}, "both workers to be in a cell")
    assert 0 < len(bench.ends()) < 7
    process.kill()
    assert process.wait() == -signal.SIGKILL
    pids = {record["pid"] for record in bench.log("begin")}
    until(lambda: not any(map(alive, pids)), "the workers to die with their parent")
    assert {bench.record(cell).state for cell in waiting} == {"running"}

    (bench.out / "go").touch()
    assert bench.run(study(GRID)).done == 8
    assert sorted(bench.ends().values()) == [1] * 8
    assert bench.states() == {TrialState.COMPLETE: 8}


def test_a_killed_search_goes_on_with_its_trials_and_proposes_new_ones(bench: Bench, parent: Parent) -> None:
    bench.plan({"trial-0001-s0": ["wait"], "trial-0001-s1": ["wait"]})
    process = parent(SEARCH)
    until(lambda: len(bench.log("begin")) == 4, "the second trial to begin")
    process.kill()
    process.wait()
    half_way = bench.trials("search")
    assert [trial.state for trial in half_way] == [TrialState.COMPLETE, TrialState.RUNNING]

    (bench.out / "go").touch()
    assert bench.run(study(SEARCH)).done == 10
    trials = bench.trials("search")
    assert [trial.params for trial in trials[:2]] == [trial.params for trial in half_way]
    assert len({trial.params["gae.lambda_actor"] for trial in trials}) == 5
    assert sorted(bench.ends().values()) == [1] * 10


def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(bench: Bench, parent: Parent) -> None:
    bench.plan({A_CELL: ["wait"]})
    process = parent(GRID)
    until(lambda: A_CELL in {record["cell"] for record in bench.log("begin")}, "the cell to begin")
    with pytest.raises(StudyError, match=f"process {process.pid} is running this study"):
        bench.run(study(GRID))
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 130
    assert not any(alive(record["pid"]) for record in bench.log("begin"))
    assert bench.record(A_CELL).state == "queued"

    (bench.out / "go").touch()
    assert bench.run(study(GRID)).done == 8
    assert sorted(bench.ends().values()) == [1] * 8


def test_a_cell_that_was_done_when_everything_died_is_told_and_not_run_again(bench: Bench) -> None:
    bench.run(study(GRID))
    journal = bench.out / "studies/grid/optuna.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while telling the last one
    assert TrialState.RUNNING in bench.states()
    bench.run(study(GRID))
    assert bench.states() == {TrialState.COMPLETE: 8}
    assert sum(bench.ends().values()) == 8


def test_a_study_that_changed_under_its_cells_is_refused(bench: Bench) -> None:
    bench.run(study(GRID), seeds=[0])
    before = (bench.out / "studies/grid/study.json").read_text()
    with pytest.raises(StudyError, match=r"was made with policy\.epochs = 1, now 2\. .* --fresh"):
        bench.run(study(GRID, base={"policy.epochs": 2}), seeds=[0])
    assert (bench.out / "studies/grid/study.json").read_text() == before
    assert bench.run(study(GRID, base={"policy.epochs": 2}), seeds=[0], fresh=True).done == 4
    assert sum(bench.ends().values()) == 8
    assert (bench.out / "studies/grid.old-1/cells" / A_CELL / "cell.json").exists()


def test_a_search_over_another_space_or_other_seeds_is_refused(bench: Bench) -> None:
    bench.run(study(SEARCH), seeds=[0])
    with pytest.raises(StudyError, match=r"scored on seeds \[0\], now \[0, 1\]"):
        bench.run(study(SEARCH), seeds=[0, 1])
    other = {**SEARCH["search"], "space": {"gae.gamma": {"low": 0.9, "high": 1.0}}}
    with pytest.raises(StudyError, match="has other dimensions or choices"):
        bench.run(study(SEARCH, search=other), seeds=[0])
    assert bench.run(study(SEARCH, search={**SEARCH["search"], "trials": 7}), seeds=[0]).done == 7


def test_a_pruner_stops_poor_trials_early_and_they_are_not_failures(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcppo.studies.dispatcher.LOOK_S", 0.05)
    trials = [f"trial-{number:04d}-s0" for number in range(8)]
    bench.plan({cell: ["iterate"] for cell in trials}, nap=0.02)
    space = {"gae.lambda_actor": {"choices": [0.1, 0.5, 1.0]}}
    pruner = {"startup_trials": 2, "warmup_steps": 4, "interval_steps": 2}
    search = {"trials": 8, "sampler": "random", "sampler_seed": 3, "space": space, "pruner": pruner}
    outcome = bench.run(study(SEARCH, search=search), seeds=[0], workers=1)
    assert (outcome.failed, outcome.left, outcome.exit_code) == (0, 0, 0)
    assert outcome.pruned >= 1
    assert outcome.done + outcome.pruned == 8
    assert bench.states("search") == {TrialState.COMPLETE: outcome.done, TrialState.PRUNED: outcome.pruned}
    done = [trial for trial in bench.trials("search") if trial.state == TrialState.COMPLETE]
    for trial in bench.trials("search"):
        if trial.state == TrialState.PRUNED:
            assert max(trial.intermediate_values) < 39
            assert trial.params["gae.lambda_actor"] < max(other.params["gae.lambda_actor"] for other in done)
            assert bench.record(f"trial-{trial.number:04d}-s0", "search").state == "pruned"


def test_two_folders_may_share_one_database(bench: Bench) -> None:
    url = f"sqlite:///{bench.out}/studies.db"
    first, second = bench.out / "first", bench.out / "second"
    for out in (first, second):
        out.mkdir()
        other = Bench(out)
        assert other.run(study(GRID), seeds=[0], storage=url).done == 4
        assert other.run(study(GRID), seeds=[0], storage=url).done == 4
        assert sum(other.ends().values()) == 4
        assert [trial.state for trial in other.trials(url=url)] == [TrialState.COMPLETE] * 4


def test_several_that_open_a_new_database_at_once_all_do(bench: Bench) -> None:
    code = "import sys; from pathlib import Path; from vcppo.studies.trials import open_storage; "
    code += "print('ready', flush=True); sys.stdin.read(); open_storage(sys.argv[1], Path())"
    command = [sys.executable, "-c", code, f"sqlite:///{bench.out}/studies.db"]
    openers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(5)]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == b"ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.close()
    for opener in openers:
        with opener:
            assert opener.wait(60) == 0


def test_moving_to_another_storage_enters_what_is_done(bench: Bench) -> None:
    bench.run(study(GRID), seeds=[0])
    url = f"sqlite:///{bench.out}/studies.db"
    bench.run(study(GRID), seeds=[0], storage=url)
    assert [trial.state for trial in bench.trials(url=url)] == [TrialState.COMPLETE] * 4
    assert sum(bench.ends().values()) == 4


def test_a_storage_that_cannot_be_opened_is_told_without_its_password(bench: Bench) -> None:
    with pytest.raises(StudyError, match="--storage nosuch://host/db: cannot be opened") as caught:
        bench.run(study(GRID), storage="nosuch://me:secret@host/db")
    assert "secret" not in str(caught.value)


def test_workers_that_cannot_start_say_why(bench: Bench) -> None:
    with pytest.raises(StudyError, match=r"worker . cannot start: ModuleNotFoundError: No module named 'missing'"):
        bench.run(study(GRID), runner="missing:run_cell")
    assert bench.record(A_CELL).attempts == 0


class FakeUploader:
    replay_command = "vcppo track replay grid --out here"

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def news(self) -> list[str]:
        return ["the server is away"] if len(self.calls) == 1 else []

    def close(self, timeout_s: float) -> int:
        self.calls.append(f"close within {timeout_s:.0f} s")
        return 17


def test_the_uploader_works_while_workers_do_and_what_it_keeps_is_told(bench: Bench) -> None:
    uploader = FakeUploader()
    bench.run(study(GRID), seeds=[0], uploader=uploader)
    assert uploader.calls == ["start", "close within 30 s"]
    notices = [event.text for event in bench.events if isinstance(event, Notice)]
    assert notices[0] == "the server is away"
    assert notices[-1] == (
        "17 records are not with the tracking server yet; vcppo track replay grid --out here sends them"
    )


def test_a_storage_that_goes_away_costs_no_cell(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise StorageInternalError("disk I/O error")

    folder = bench.out / "studies" / "grid"
    with monkeypatch.context() as patch:
        patch.setattr("vcppo.studies.trials.Scoreboard.finish", gone)
        patch.setattr("vcppo.studies.sweep.LAST_WORDS_S", {False: 0.1, True: 0.1})
        outcome = bench.run(study(GRID), workers=1)
    assert (outcome.done, outcome.undelivered) == (8, 8)
    notices = [event.text for event in bench.events if isinstance(event, Notice)]
    assert notices[0].startswith("Optuna's storage is away (disk I/O error); cells go on, and their trials wait")
    assert notices[-1] == "8 trials are not in Optuna's storage yet; the same command enters them"
    assert len(owed_trials(folder)) == 8
    assert bench.run(study(GRID)).undelivered == 0
    assert owed_trials(folder) == []
    assert bench.states() == {TrialState.COMPLETE: 8}
    assert sorted(bench.ends().values()) == [1] * 8


def test_a_bad_study_starts_nothing(bench: Bench) -> None:
    bad = study(GRID).model_copy(update={"grid": {"gae.lambda_actor": [0.9, 7]}})
    with pytest.raises(ConfigError, match=r"gae.lambda_actor = 7"):
        bench.run(bad)
    assert not (bench.out / "studies").exists()
    assert os.listdir(bench.out / "modules") == ["fake.py"]


def test_a_worker_that_cannot_be_started_again_ends_the_study_and_fails_no_cell(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two workers one dies, and the kernel has no memory for another."""
    bench.plan({A_CELL: ["die", "ok"]})
    started: list[object] = []
    make = subprocess.Popen

    def starve(*arguments: Any, **options: Any) -> Any:
        started.append(arguments)
        if len(started) > 2:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return make(*arguments, **options)

    with monkeypatch.context() as starved:
        starved.setattr("vcppo.studies.local_pool.subprocess.Popen", starve)
        with pytest.raises(StudyError, match=r"worker [01] cannot be started \(Cannot allocate memory\)"):
            bench.run(study(GRID), [0])
    assert "failed" not in {bench.record(path.name).state for path in bench.folder(A_CELL).path.parent.iterdir()}
    assert bench.run(study(GRID), [0]).done == 4
