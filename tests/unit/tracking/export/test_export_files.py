"""What an export computes of a run's metrics, and how its files come into place."""

import csv
import dataclasses
import errno
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exports import ACCURACIES, LENGTHS, Rows, measured
from fake_study import STARTED, FakeStudy

from vcppo.errors import DiskError, StudyError
from vcppo.tracking import from_mlflow
from vcppo.tracking.export import responses_behind, scores
from vcppo.tracking.measured import Pretraining
from vcppo.tracking.mlflow_client import Point
from vcppo.tracking.table_files import as_csv, write_files


def test_a_disk_that_refuses_the_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, *arguments: Any, **named: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskError, match=r"new: cannot be written \(Input/output error"):
        write_files(tmp_path / "new", {"runs.csv": (("x",), [{"x": 1}])})


def test_of_several_points_at_a_step_the_latest_counts() -> None:
    points = [Point("a", 1, 5.0, 200), Point("a", 1, 4.0, 100), Point("a", 0, 1.0, 0), Point("b", 1, 2.0, 0)]
    for seed in range(5):
        random.Random(seed).shuffle(points)
        assert from_mlflow.curves_of(points) == {"a": {0: 1.0, 1: 5.0}, "b": {1: 2.0}}


def test_floats_read_back_as_they_were() -> None:
    numbers = [random.Random(seed).uniform(-1, 1) * 10 ** (seed - 10) for seed in range(20)]
    text = as_csv(("x",), [{"x": number} for number in numbers])
    assert [float(row["x"]) for row in csv.DictReader(text.splitlines())] == numbers


def test_a_failing_export_leaves_the_old_files_alone(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")

    def broken() -> Any:
        yield {"x": 1}
        raise StudyError("no")

    with pytest.raises(StudyError):
        write_files(tmp_path, {"a.csv": (("x",), [{"x": 1}]), "b.csv": (("x",), broken())})
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "old")]


@pytest.mark.parametrize("broken", range(3))
def test_an_export_that_cannot_put_one_file_in_place_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    old = {"runs.csv": "old runs", "truth.csv": "old truth", "notes.txt": "mine"}
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    calls, really = [], os.replace

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == broken + 1:
            raise PermissionError(13, "no")
        really(source, target)

    monkeypatch.setattr("vcppo.tracking.table_files.os.replace", replace)
    files = {name: (("step",), [{"step": 1}]) for name in ("runs.csv", "curves.parquet", "positions.parquet")}
    with pytest.raises(DiskError, match="Permission denied"):
        write_files(tmp_path, files)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == old


def test_files_of_an_export_before_that_this_one_has_nothing_for_go_and_others_stay(tmp_path: Path) -> None:
    for name in ("runs.csv", "curves.csv", "positions.csv", "truth.csv", "notes.csv"):
        (tmp_path / name).write_text("old")
    write_files(tmp_path, {"runs.csv": (("x",), [{"x": 1}])})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"runs.csv": "x\n1\n", "notes.csv": "old"}


@pytest.mark.parametrize(
    ("metric", "step", "n"),
    [
        ("rollout/accuracy", 0, 20),
        ("value/loss", 3, 20),
        ("pretrain/loss", 10, 96),
        ("pretrain/explained_variance", 10, 384),
        ("eval/digits/avg_at_1", 50, 50),
        ("eval/digits/avg_at_8", 60, 400),
        ("eval/digits/length_tokens", 50, 50),
        ("eval/digits/length_tokens", 60, 400),
    ],
)
def test_n_is_the_number_of_responses_behind_a_point(metric: str, step: int, n: int) -> None:
    evaluations = {"eval/digits/length_tokens": {50: 1.0, 60: 2.0}, "eval/digits/avg_at_8": {60: 1.0}}
    cell = measured({"eval/digits/avg_at_1": {50: 0.5}, **evaluations})
    assert responses_behind(cell, metric, step) == n


@pytest.mark.parametrize(
    ("settings", "problems", "asked"),
    [
        ({}, {}, 50),  # a run that was stopped before its final evaluation
        ({"evaluation.problems": "search", "task.held_out_for_search": 30}, {}, 30),
        ({"evaluation.problems": "report", "task.held_out_for_search": 30}, {}, 50),
        ({}, {60: {"problem": ["a", "b"]}}, 2),  # mathematics: task.held_out is of digits
        ({}, {50: {"problem": ["a"]}, 60: {"problem": ["a", "b", "c"]}}, 3),
    ],
)
def test_the_number_of_problems_is_of_those_that_were_asked(
    settings: dict[str, Any], problems: dict[int, dict[str, list[Any]]], asked: int
) -> None:
    evaluations = {"eval/digits/avg_at_8": {60: 0.5}}
    cell = dataclasses.replace(measured(evaluations, **settings), tables={"problems": problems})
    assert scores(cell)["problems"] == asked
    assert responses_behind(cell, "eval/digits/avg_at_8", 60) == asked * 8


def test_the_evaluation_that_counts_is_the_one_with_all_samples() -> None:
    cell = measured({"eval/digits/avg_at_1": {50: 0.9}, "eval/digits/avg_at_8": {60: 0.5}})
    assert (scores(cell)["avg_at_k"], scores(cell)["k"]) == (0.5, 8)


def test_pretrain_steps_are_what_the_run_says_else_what_was_asked_else_what_was_done() -> None:
    done = Pretraining({"pretrain/loss": {10: 1.0, 70: 0.5}})
    assert dataclasses.replace(measured({}), result={"pretrain_steps_done": 40.0}).pretrain_steps == 40
    assert measured({}).pretrain_steps == 0
    assert dataclasses.replace(measured({}, **{"pretrain.steps": 25}), pretraining=done).pretrain_steps == 25
    assert dataclasses.replace(measured({}), pretraining=done).pretrain_steps == 70
    settled = Pretraining({"pretrain/held_out_loss": {0: 1.0, 10: 0.5, 20: 0.6, 100: 0.6, 110: 0.6, 120: 0.1}})
    assert dataclasses.replace(measured({}), pretraining=settled).pretrain_steps == 10  # waited for until 110


def test_a_nan_is_an_empty_cell(study: FakeStudy, exported: Callable[..., dict[str, Rows]]) -> None:
    cell = study.finished_cell("ppo-s0", arm="ppo", seed=0, accuracies=ACCURACIES, lengths=LENGTHS)
    journal = study.enter(cell, "rl", "rl-ppo-s0").journal
    journal.metrics(6, {"value/explained_variance": math.nan})
    cell.update(state="done", finished=STARTED + 60)
    (row,) = [row for row in exported()["curves.parquet"] if row["metric"] == "value/explained_variance"]
    assert row["value"] == ""
