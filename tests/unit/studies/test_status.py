"""The status of a study, as `vcppo status` says it by the folder alone."""

import json
import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_study import STARTED, FakeStudy, iterate

from vcppo.cli.export import export_study
from vcppo.cli.main import main
from vcppo.store.study_folders import StudyFolder
from vcppo.studies.outbox import write_owed
from vcppo.studies.status import study_status
from vcppo.system.processes import locked
from vcppo.tracking.ledger import Entry, Ledger, Source


@pytest.fixture
def study(tmp_path: Path) -> FakeStudy:
    study = FakeStudy(tmp_path / "out")
    study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=[0.1, 0.2], lengths=[9.0, 8.0])
    return study


def asked(study: FakeStudy, *options: str) -> Result:
    return CliRunner().invoke(main, ["status", "components", "--out", str(study.out), *options])


def deliver(study: FakeStudy) -> None:
    """As an uploader leaves the ledger when everything is in the store."""
    folder = StudyFolder(study.out, "components")
    ledger = Ledger(folder, "http://there#vcppo/components")
    for cell in folder.cells():
        record = cell.read()
        stages = folder.stages(record)
        for source in (Source.of_cell(cell, record, stages), *(Source.of_stage(stage) for stage in stages)):
            ledger.put(source.key, Entry("run", source.records(), source.state, source.signature()))
    ledger.save()


def test_done_is_not_enough_it_must_be_exported_and_delivered(study: FakeStudy) -> None:
    assert asked(study).exit_code == 3
    export_study("components", study.out / "results" / "components", out=study.out, allow_incomplete=False)
    done = asked(study)
    assert done.exit_code == 4
    assert "MLflow: 13 records undelivered (never reached)" in done.stdout
    deliver(study)
    done = asked(study)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "components: 1 cells, 1 done; no process runs it"
    assert "results: exported" in done.stdout
    write_owed(study.out / "studies" / "components", ["ppo-s0"])
    assert asked(study).exit_code == 4
    assert "Optuna: 1 trials undelivered" in asked(study).stdout
    write_owed(study.out / "studies" / "components", [])
    assert asked(study).exit_code == 0


def test_an_export_from_before_the_last_cell_ended_is_none(study: FakeStudy) -> None:
    export_study("components", study.out / "results" / "components", out=study.out, allow_incomplete=False)
    deliver(study)
    study.cell("ppo-s1", state="failed", seed=1, error="a\nb", attempts=1)
    assert study_status(study.out, "components").exported is False
    assert asked(study).exit_code == 1
    CliRunner().invoke(
        main, ["export", "components", "--out", str(study.out), "--to", str(study.out / "results" / "components")]
    )
    os.utime(study.out / "results" / "components" / "runs.csv", (STARTED, STARTED))
    assert study_status(study.out, "components").exported is False


def test_what_is_left_is_shown_with_attempts_and_signs_of_life(study: FakeStudy) -> None:
    running, queued = study.cell("ppo-s1", seed=1, attempts=2), study.cell("ppo-s2", state="queued", seed=2)
    stage = study.enter(running, "rl", "a")
    iterate(stage.journal, 0)
    now = time.time()
    os.utime(running.path / "cell.json", (now - 500, now - 500))
    os.utime(stage.folder / "journal.jsonl", (now - 90, now - 90))
    os.utime(stage.folder, (now - 95, now - 95))
    for cell in ("ppo-s0", "ppo-s2"):
        os.utime(queued.path.parent / cell / "cell.json", (now - 999, now - 999))
    for journal in study.out.glob("cache/*/*-ppo-s0/journal.jsonl"):
        os.utime(journal, (now - 999, now - 999))
        os.utime(journal.parent, (now - 999, now - 999))
    with locked(study.out / "studies" / "components"):
        done = asked(study)
        assert done.exit_code == 5
        assert done.stdout.splitlines()[0] == (
            f"components: 3 cells, 1 done, 1 queued, 1 running; process {os.getpid()} runs it"
        )
        assert "running, attempt 2, rl, 1 min 3" in done.stdout
        assert "last sign of life: 1 min 3" in done.stdout
    listed = json.loads(asked(study, "--json").stdout)
    assert {cell["cell"]: cell["state"] for cell in listed["cells"]} == {
        "ppo-s0": "done",
        "ppo-s1": "interrupted",
        "ppo-s2": "queued",
    }
    assert (listed["left"], listed["holder"]) == (2, None)
    assert listed["cache_bytes"] == sum(f.stat().st_size for f in study.out.glob("cache/*/*/*"))


def test_a_search_counts_the_cells_that_are_not_proposed(study: FakeStudy) -> None:
    definition = {"definition": {"search": {"trials": 3}}, "seeds": [0, 1], "bases": [0, 1]}
    (study.out / "studies/components/study.json").write_text(json.dumps(definition))
    assert study_status(study.out, "components").left == 11
    assert asked(study).exit_code == 5


def test_single_runs_have_no_export(study: FakeStudy) -> None:
    (study.out / "studies/components/study.json").unlink()
    deliver(study)
    assert asked(study).exit_code == 0


def test_a_study_that_is_not_there_is_one_line(study: FakeStudy) -> None:
    done = CliRunner().invoke(main, ["status", "nowhere", "--out", str(study.out)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("StudyError: study nowhere: no cells in ")
    assert done.stderr.endswith("there are components\n")
