"""A cell's folder tells what it runs with and how it fared, whatever becomes of the process that runs it."""

import json
import math
from pathlib import Path

import pytest

from vcppo.errors import StudyError, TrainingError
from vcppo.settings.loading import override
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord, check_same_settings
from vcppo.studies.cell_run import run_and_record
from vcppo.system.files import json_bytes


@pytest.fixture
def cell(tmp_path: Path) -> CellFolder:
    record = CellRecord(study="s", cell="a-s0", arm="a", seed=0)
    return CellFolder.create(tmp_path / "a-s0", record, RunSettings(steps=3))


def test_a_folder_gives_back_its_settings_and_its_record(cell: CellFolder) -> None:
    assert cell.settings() == RunSettings(steps=3)
    assert cell.read() == CellRecord(study="s", cell="a-s0", arm="a", seed=0)


@pytest.mark.parametrize("arm", ["a", 'quoted "\\n" \u00fc\nline'])
def test_settings_lie_there_as_any_json_of_ours_does(tmp_path: Path, arm: str) -> None:
    settings = RunSettings(arm=arm, task={"name": "maths"}, model={"path": "a/b"}, steps=7)
    folder = CellFolder.create(tmp_path / "a", CellRecord(study="s", cell="a", arm="a", seed=0), settings)
    assert (folder.path / "settings.json").read_bytes() == json_bytes(settings.model_dump(mode="json"))


def test_an_update_changes_only_what_it_names(cell: CellFolder) -> None:
    cell.update(attempts=2)
    assert cell.update(state="running") == cell.read()
    assert (cell.read().attempts, cell.read().state, cell.read().arm) == (2, "running", "a")
    with pytest.raises(ValueError, match="nonsense"):
        cell.update(state="nonsense")
    assert cell.read().state == "running"


def test_a_cell_that_ends_well_is_done_with_its_results(cell: CellFolder, tmp_path: Path) -> None:
    record = run_and_record(cell, tmp_path, lambda folder, out: {"accuracy": 1, "loss": math.nan})
    assert (record.state, record.result, record.attempts, record.error) == (
        "done",
        {"accuracy": 1.0, "loss": None},
        1,
        None,
    )
    assert record.started is not None
    assert record.finished is not None
    assert "NaN" not in (cell.path / "cell.json").read_text()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (TrainingError("loss is NaN at step 3"), "loss is NaN at step 3"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError("two\n  lines"), "RuntimeError: two lines"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_a_cell_that_raises_is_failed_in_one_line_with_its_traceback(
    cell: CellFolder, tmp_path: Path, error: Exception, line: str
) -> None:
    def runner(folder: Path, out: Path) -> dict[str, float]:
        raise error

    record = run_and_record(cell, tmp_path, runner)
    assert (record.state, record.error, record.result) == ("failed", line, {})
    assert "in runner" in (cell.path / "traceback.txt").read_text()
    record = run_and_record(cell, tmp_path, lambda folder, out: {"accuracy": 1.0})
    assert (record.state, record.error, record.attempts) == ("done", None, 2)
    assert not (cell.path / "traceback.txt").exists()


def test_ctrl_c_in_a_cell_is_no_failure_of_the_cell(cell: CellFolder, tmp_path: Path) -> None:
    def runner(folder: Path, out: Path) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_and_record(cell, tmp_path, runner)
    assert cell.read().state == "queued"


def test_what_an_earlier_attempt_computed_stays_computed(cell: CellFolder) -> None:
    cell.add_stage("cold-start", "c0", ran=True)
    cell.add_stage("rl", "c1", ran=True)
    cell.add_stage("cold-start", "c0", ran=False)  # the second attempt finds it in the cache
    record = cell.add_stage("rl", "c1", ran=True)
    assert [(stage.stage, stage.address, stage.ran) for stage in record.stages] == [
        ("cold-start", "c0", True),
        ("rl", "c1", True),
    ]


def test_other_settings_are_refused_by_name(cell: CellFolder) -> None:
    check_same_settings(cell, RunSettings(steps=3))
    with pytest.raises(StudyError, match=r"a-s0 .* made with steps = 3, now 4\."):
        check_same_settings(cell, RunSettings(steps=4))


def test_settings_that_neither_run_reads_do_not_make_a_cell_another(tmp_path: Path) -> None:
    """So a default of theirs may change while a study is under way."""
    at_20 = override(RunSettings(), {"pretrain.steps": 20})
    cell = CellFolder.create(tmp_path / "a-s0", CellRecord(study="s", cell="a-s0", arm="a", seed=0), at_20)
    patient = at_20.pretrain.model_copy(update={"patience": 20})
    check_same_settings(cell, at_20.model_copy(update={"pretrain": patient}))
    with pytest.raises(
        StudyError, match=r"made with pretrain.steps = 20, now 'converge'; pretrain.patience = 100, now"
    ):
        check_same_settings(cell, override(at_20, {"pretrain.steps": "converge", "pretrain.patience": 20}))


def test_settings_that_came_into_being_since_do_not_make_a_cell_another(cell: CellFolder) -> None:
    tree = json.loads((cell.path / "settings.json").read_text())
    del tree["guard"]
    (cell.path / "settings.json").write_text(json.dumps(tree))
    check_same_settings(cell, RunSettings(steps=3))


def test_settings_that_are_no_more_are_told(cell: CellFolder) -> None:
    tree = json.loads((cell.path / "settings.json").read_text())
    (cell.path / "settings.json").write_text(json.dumps({**tree, "bygone": 1}))
    with pytest.raises(StudyError, match=r"made by another version .*bygone"):
        check_same_settings(cell, RunSettings(steps=3))


def test_what_is_no_cell_says_so(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="is not the folder of a cell"):
        CellFolder(tmp_path).read()
    (tmp_path / "cell.json").write_text("{}")
    with pytest.raises(StudyError, match=r"cell\.json: not the record of a cell \(study"):
        CellFolder(tmp_path).read()
