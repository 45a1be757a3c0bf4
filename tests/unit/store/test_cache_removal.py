"""Removal from a cache: never what a study needs, nor what a process works on, and nothing by halves."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from fake_cache import make_cell, make_stage, run

from vcppo.errors import StudyError
from vcppo.settings.critic import PretrainSettings
from vcppo.store.cache import StageFolder, addresses, is_complete
from vcppo.store.cache_contents import cached_stages
from vcppo.store.cache_needs import needs_of_studies
from vcppo.store.cache_removal import Choice, plan_removals, remove
from vcppo.store.cell_folders import State
from vcppo.store.manifest import faults, read_manifest, record_files
from vcppo.store.pretrained_critics import (
    TrainingEnd,
    add_request,
    critic_folder,
    end_without_moments,
    saved_states,
    saved_steps,
)
from vcppo.system import files
from vcppo.system.files import file_lock, is_locked, read_json, write_bytes, write_json


def keys(out: Path) -> set[str]:
    return {stage.key for stage in cached_stages(out)}


def removable(out: Path, choice: Choice | None = None) -> dict[str, str]:
    """Return what can be removed: key -> kind."""
    return {removal.of.key: removal.kind for removal in plan_removals(out, choice or Choice()).removals}


def remove_all(out: Path, choice: Choice | None = None) -> list[str | None]:
    return [reason for _, reason in remove(plan_removals(out, choice or Choice()))]


def test_what_a_study_went_through_stays_and_what_none_did_goes(tmp_path: Path) -> None:
    make_cell(tmp_path, "one", run())
    make_cell(tmp_path, "two", run(("seed", 1)), state="queued")
    orphan = make_stage(tmp_path, addresses(run(("base_seed", 7)))["cold-start"], wall_s=90.0)
    remove_all(tmp_path)
    needed = keys(tmp_path)
    assert f"cold-start/{orphan.address.key}" not in needed
    make_stage(tmp_path, orphan.address, wall_s=90.0)
    (removal,) = plan_removals(tmp_path, Choice()).removals
    assert (removal.of.key, removal.again_s) == (f"cold-start/{orphan.address.key}", 90.0)
    assert removal.frees == sum(path.stat().st_size for path in orphan.path.rglob("*") if path.is_file())
    assert remove_all(tmp_path) == [None]
    assert not orphan.path.exists()
    assert keys(tmp_path) == needed
    assert removable(tmp_path) == {}


def test_what_a_cell_will_come_to_is_needed_and_what_a_removed_study_had_is_not(tmp_path: Path) -> None:
    settings = run()
    make_cell(tmp_path, "one", settings, state="failed")
    ahead = make_stage(tmp_path, addresses(settings)["rl"])  # of another study, which is gone: one comes to it as well
    assert f"rl/{ahead.address.key}" not in removable(tmp_path)
    shutil.rmtree(tmp_path / "studies" / "one")
    assert set(removable(tmp_path)) == keys(tmp_path)


def test_a_study_that_is_given_up_leaves_its_journals_and_what_others_need(tmp_path: Path) -> None:
    one, two = run(), run(("gae.lambda_actor", 1.0))
    make_cell(tmp_path, "one", one)
    make_cell(tmp_path, "two", two)
    remove_all(tmp_path)  # critics that nobody wants
    choice = Choice(studies=("one",))
    own = {f"{stage}/{addresses(one)[stage].key}" for stage in ("rl", "evaluation")}
    assert removable(tmp_path, choice) == dict.fromkeys(own, "all but journals")
    assert remove_all(tmp_path, choice) == [None, None]
    rl = StageFolder(tmp_path, addresses(one)["rl"])
    assert sorted(path.name for path in rl.path.iterdir()) == ["journal.jsonl", "lock", "stage.json"]
    assert not is_complete(rl, one)
    assert all(is_complete(StageFolder(tmp_path, address), two) for address in addresses(two).values())
    assert removable(tmp_path, choice) == {}


@pytest.mark.parametrize(("state", "why"), [("queued", "1 of its cells have"), ("failed", "1 of its cells have")])
def test_a_study_with_cells_to_go_is_not_given_up(tmp_path: Path, state: State, why: str) -> None:
    make_cell(tmp_path, "one", run(), state=state)
    with pytest.raises(StudyError, match=rf"study one: {why}"):
        plan_removals(tmp_path, Choice(studies=("one",)))
    with pytest.raises(StudyError, match=r"study three: not in .*studies, expected one of one"):
        plan_removals(tmp_path, Choice(studies=("three",)))


def test_a_study_that_runs_is_not_given_up(tmp_path: Path) -> None:
    make_cell(tmp_path, "one", run())
    with file_lock(tmp_path / "studies" / "one.lock"), pytest.raises(StudyError, match=r"study one: it is running"):
        plan_removals(tmp_path, Choice(studies=("one",)))


def test_a_record_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    cell = make_cell(tmp_path, "one", run())
    make_stage(tmp_path, addresses(run(("base_seed", 7)))["cold-start"])
    (cell.path / "cell.json").write_text('{"study": 3}')
    with pytest.raises(StudyError, match=r"cell\.json: not the record of a cell"):
        plan_removals(tmp_path, Choice())
    (cell.path / "cell.json").rename(cell.path / "cell.json.bad-1")
    with pytest.raises(StudyError, match=r"cell\.json\.bad-1: the record of a cell, moved aside"):
        plan_removals(tmp_path, Choice())


def test_what_a_process_works_on_stays(tmp_path: Path) -> None:
    orphan = make_stage(tmp_path, addresses(run())["cold-start"])
    with orphan.lock():
        plan = plan_removals(tmp_path, Choice())
        assert plan.removals == ()
        assert [stage.key for stage in plan.running] == [f"cold-start/{orphan.address.key}"]
    plan = plan_removals(tmp_path, Choice())
    with orphan.lock():  # taken up between the two
        assert [reason for _, reason in remove(plan)] == ["a process works on it"]
    assert is_complete(orphan, run())


def test_what_a_study_that_begins_meanwhile_needs_stays(tmp_path: Path) -> None:
    """It takes complete stages as they are, without a lock; they were removed beneath it."""
    first, second = (make_stage(tmp_path, addresses(run(("base_seed", base)))["cold-start"]) for base in (7, 8))
    plan = plan_removals(tmp_path, Choice())
    assert len(plan.removals) == 2
    removing = remove(plan)
    made = {next(removing)[0].of.key}
    left = second if made == {f"cold-start/{first.address.key}"} else first
    make_cell(tmp_path, "late", run(("base_seed", 8 if left is second else 7)), state="queued")
    ((removal, reason),) = removing
    assert (removal.of.path, reason) == (left.path, "a study has begun that needs it")
    assert left.path.exists()


def test_who_waits_for_a_folder_that_is_removed_works_in_a_new_one(tmp_path: Path) -> None:
    orphan = make_stage(tmp_path, addresses(run())["cold-start"])
    locked: list[bool] = []

    def wait() -> None:
        with orphan.lock():
            locked.append(is_locked(orphan.path / "lock"))

    with file_lock(orphan.path / "lock"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.2)
        assert not locked
        files.remove_folder(orphan.path)
    thread.join(timeout=60)
    assert locked == [True]
    assert orphan.result is None


def test_older_larger_and_of_one_stage(tmp_path: Path) -> None:
    small, large = (make_stage(tmp_path, addresses(run(("base_seed", seed)))["cold-start"]) for seed in (1, 2))
    answers = make_stage(tmp_path, addresses(run())["answers"])
    write_bytes(large.path / "policy" / "more.safetensors", b"w" * 10_000)
    day = time.time() - 86400
    for path in [small.path, *small.path.rglob("*")]:
        os.utime(path, (day, day))
    by_name = {"small": small, "large": large, "answers": answers}

    def chosen(choice: Choice) -> set[str]:
        return {
            name
            for name, folder in by_name.items()
            if f"{folder.address.stage}/{folder.address.key}" in removable(tmp_path, choice)
        }

    assert chosen(Choice()) == {"small", "large", "answers"}
    assert chosen(Choice(older_than_s=3600)) == {"small"}
    assert chosen(Choice(larger_than=10_000)) == {"large"}
    assert chosen(Choice(stages=("answers",))) == {"answers"}


def test_a_removal_that_is_killed_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orphan = make_stage(tmp_path, addresses(run())["cold-start"])
    rmtree = shutil.rmtree

    def killed(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise KeyboardInterrupt
        rmtree(path, ignore_errors=True)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_all(tmp_path)
    monkeypatch.undo()
    assert not orphan.path.exists()
    assert [stage.state for stage in cached_stages(tmp_path)] == ["aside"]
    assert remove_all(tmp_path) == [None]
    assert keys(tmp_path) == set()


def test_a_study_given_up_by_halves_has_no_complete_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = run()
    make_cell(tmp_path, "one", settings)
    write_bytes(StageFolder(tmp_path, addresses(settings)["rl"]).path / "critic" / "model.safetensors", b"c")
    choice = Choice(studies=("one",), stages=("rl",))

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vcppo.store.cache_removal.remove_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_all(tmp_path, choice)
    monkeypatch.undo()
    assert not is_complete(StageFolder(tmp_path, addresses(settings)["rl"]), settings)
    assert removable(tmp_path, choice) == {f"rl/{addresses(settings)['rl'].key}": "all but journals"}
    assert remove_all(tmp_path, choice) == [None]


def test_what_cannot_be_removed_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_stage(tmp_path, addresses(run())["cold-start"])

    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vcppo.store.cache_removal.remove_folder", refused)
    (reason,) = remove_all(tmp_path)
    assert reason is not None
    assert "Permission denied" in reason


def test_critics_stay_that_a_study_starts_from_and_the_moments_of_the_last(tmp_path: Path) -> None:
    """A folder of an earlier version, with a critic and its moments for every measurement."""
    make_cell(tmp_path, "one", run(("pretrain.steps", 20)))
    make_cell(tmp_path, "two", run(("pretrain.steps", 30)))
    folder = StageFolder(tmp_path, addresses(run())["value-pretraining"])
    assert saved_steps(folder.path) == [10, 20, 30, 40]
    (removal,) = plan_removals(tmp_path, Choice()).removals
    assert removal.kind == "critics"
    assert removal.frees == 1000 + 3 * 3000  # the critic of 10, and all moments but the last
    assert remove_all(tmp_path) == [None]
    assert saved_steps(folder.path) == [20, 30, 40]
    assert saved_states(folder.path) == [critic_folder(folder.path, 40) / "state.pt"]
    assert faults(folder.path, digests=True) == []
    assert {path.split("/")[0] for path in read_manifest(folder.path) if path.startswith("critic")} == {
        "critic-000020",
        "critic-000030",
        "critic-000040",
    }
    assert {read_json(path)["steps"] for path in (folder.path / "requests").iterdir()} == {20, 30}
    assert removable(tmp_path) == {}


def test_the_last_moments_go_where_that_is_wanted_and_nothing_was_logged_since(tmp_path: Path) -> None:
    settings = run()
    make_cell(tmp_path, "one", settings)
    folder = StageFolder(tmp_path, addresses(settings)["value-pretraining"])
    choice = Choice(moments=True)
    remove_all(tmp_path)
    assert removable(tmp_path, choice) == {}  # the journal ends elsewhere than the state: a run was killed on its way
    folder.journal.metrics(40, {"loss": 0.5})
    (removal,) = plan_removals(tmp_path, choice).removals
    assert removal.frees == 3000
    assert remove_all(tmp_path, choice) == [None]
    assert saved_steps(folder.path) == [40]
    assert saved_states(folder.path) == []
    assert end_without_moments(folder.path) == TrainingEnd(updates=40, records=2)
    assert is_complete(folder, settings)
    assert removable(tmp_path, choice) == {}


def test_a_critic_that_a_study_names_by_its_path_stays(tmp_path: Path) -> None:
    make_cell(tmp_path, "one", run())
    folder = StageFolder(tmp_path, addresses(run())["value-pretraining"]).path
    named = {"critic": {"path": str(critic_folder(folder, 10))}}
    cell = make_cell(tmp_path, "two", run(("base_seed", 3)))
    write_json(cell.path / "settings.json", read_json(cell.path / "settings.json") | named)
    remove_all(tmp_path)
    assert saved_steps(folder) == [10, 40]
    shutil.rmtree(tmp_path / "studies" / "one")
    assert f"value-pretraining/{folder.name}" not in removable(tmp_path)


def test_a_study_that_was_moved_aside_needs_its_cache_too(tmp_path: Path) -> None:
    make_cell(tmp_path, "one", run())
    remove_all(tmp_path)
    files.move_aside(tmp_path / "studies" / "one")
    assert removable(tmp_path) == {}
    assert [study.study for study in needs_of_studies(tmp_path) if study.stages] == ["one.old-1"]


def test_a_folder_without_cache_or_studies_has_nothing(tmp_path: Path) -> None:
    assert plan_removals(tmp_path, Choice()).removals == ()
    assert cached_stages(tmp_path / "nowhere") == []


def test_requests_of_two_runs_stand_beside_each_other_and_one_is_noted_once(tmp_path: Path) -> None:
    for steps in (10, 20, 10):
        add_request(tmp_path, PretrainSettings(steps=steps))
    assert len(list((tmp_path / "requests").iterdir())) == 2
    record_files(tmp_path)
    assert read_manifest(tmp_path) == {}


def test_in_a_folder_of_another_user_nothing_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    add_request(tmp_path, PretrainSettings(steps=10))
    assert list(tmp_path.iterdir()) == []
