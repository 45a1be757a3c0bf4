"""Settings of the command line reach the results and the captions, without folders that are nobody's business."""

import csv
import shlex
from pathlib import Path

import pandas as pd
import pytest

from vcppo.analysis.commands import command_of
from vcppo.cli.recipes import settings_file
from vcppo.cli.sweep import with_settings
from vcppo.store.cell_folders import CellFolder
from vcppo.store.study_folders import read_object
from vcppo.studies.cell_states import StudyLedger
from vcppo.studies.execution import Execution
from vcppo.studies.study import load_study
from vcppo.tracking.export import export
from vcppo.tracking.from_disk import read_study

STUDY = "real-critic"


def given(*assignments: str, config: Path | None = None) -> str:
    return with_settings(load_study(STUDY), config, assignments).given


def test_of_a_local_path_its_last_part_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clients" / "acme").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert given() == ""
    assert given("model.path=/home/me/acme/tiny") == "--set model.path=PATH/tiny"
    assert given("model.path=~/acme/tiny") == "--set model.path=PATH/tiny"
    assert given("model.path=clients/acme") == "--set model.path=PATH/acme"  # which is there
    assert given("model.path=Qwen/Qwen2.5-0.5B") == "--set model.path=Qwen/Qwen2.5-0.5B"
    assert given(f"task.options.text={'a/b ' * 200}").endswith("a/b'"), "no name of a file is so long"
    assert given('task.options={file = ["/home/me/a.csv"]}') == """--set 'task.options.file=["PATH/a.csv"]'"""


def test_a_value_is_said_as_it_can_be_given_again(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("steps = 3\n")
    said = given("steps=2", "critic.learning_rate=1e-4", 'task.options.name="1"', config=tmp_path / "mine.toml")
    words = ["--config", "PATH/mine.toml", "--set", "steps=2", "--set", "critic.learning_rate=0.0001"]
    assert shlex.split(said) == [*words, "--set", 'task.options.name="1"']
    assert given(config=settings_file("smollm2-135m")) == "--config smollm2-135m"


def test_a_study_and_its_export_keep_what_it_was_given(tmp_path: Path) -> None:
    study = with_settings(load_study(STUDY), None, ["model.path=/home/me/acme/tiny", "steps=2"])
    StudyLedger(study, Execution((0,), tmp_path), warn=pytest.fail)
    folder = tmp_path / "studies" / STUDY
    assert read_object(folder / "study.json")["given"] == "--set model.path=PATH/tiny --set steps=2"
    for cell in (folder / "cells").glob("*"):
        CellFolder(cell).update(state="failed", error="stopped by the test")
    export(read_study(tmp_path, STUDY), tmp_path / "results")
    with open(tmp_path / "results" / "runs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["given"] for row in rows} == {"--set model.path=PATH/tiny --set steps=2"}
    assert "/home/me" not in (tmp_path / "results" / "runs.csv").read_text()


def test_a_caption_names_the_command_with_what_was_given() -> None:
    runs = pd.DataFrame({"base_seed": [0, 1], "seed": [0, 0], "given": ["--set model.path=PATH/tiny"] * 2})
    command = "vcppo sweep real-critic --set model.path=PATH/tiny --bases 2 --seeds 1 && vcppo export real-critic"
    assert command_of(STUDY, runs) == command
    assert "--set" not in command_of(STUDY, runs.drop(columns="given"))
    other = pd.DataFrame({"base_seed": [0], "seed": [0]})  # of a study that was given nothing
    assert "--set model.path=PATH/tiny --bases 3" in command_of(STUDY, pd.concat([runs, other.assign(base_seed=2)]))
