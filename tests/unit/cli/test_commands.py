"""Last lines of commands whose work is done."""

import shlex
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vcppo.cli.main import main
from vcppo.cli.sweep import SweepOptions, best_trials, conclude, run_sweep, with_settings
from vcppo.settings.loading import load_settings
from vcppo.settings.run import RunSettings
from vcppo.store.cell_folders import CellFolder, CellRecord
from vcppo.studies.study import load_study
from vcppo.studies.sweep import StudyOutcome


def ended(out: Path, trial: str, seed: int, state: str, accuracy: float | None, gae_lambda: float) -> None:
    record = CellRecord(
        study="search",
        cell=f"{trial}-s{seed}",
        arm=trial,
        seed=seed,
        state=state,
        swept={"gae.lambda_actor": gae_lambda},
        result={} if accuracy is None else {"final_accuracy": accuracy},
    )
    CellFolder.create(out / "studies" / "search" / "cells" / record.cell, record, RunSettings())


def test_the_best_trials_of_a_search_are_those_whose_runs_are_all_done(tmp_path: Path) -> None:
    for trial, states, accuracies, gae_lambda in (
        ("trial-0000", ("done", "done"), (0.25, 0.75), 0.9),
        ("trial-0001", ("done", "done"), (0.5, 0.75), 0.99),
        ("trial-0002", ("done", "failed"), (0.9, None), 1.0),
        ("trial-0003", ("done", "pruned"), (0.9, 1.0), 0.5),
        ("trial-0004", ("done",), (0.9,), 0.8),  # Ctrl-C before its second seed
    ):
        for seed, (state, accuracy) in enumerate(zip(states, accuracies, strict=True)):
            ended(tmp_path, trial, seed, state, accuracy, gae_lambda)
    assert best_trials(load_study("search"), tmp_path, 2) == [
        "trial-0001: final_accuracy 0.625  gae.lambda_actor=0.99",
        "trial-0000: final_accuracy 0.500  gae.lambda_actor=0.9",
    ]


def test_results_that_are_not_exported_are_told_with_the_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my runs"
    ended(out, "trial-0000", 0, "running", None, 0.9)
    assert not conclude("search", out)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("not exported: ")
    assert "no cell of it has ended" in first
    assert second.startswith(f"everything measured is safe in {out}; once that is mended: vcppo export search --to ")
    assert shlex.split(second)[-3:] == ["--out", str(out), "--allow-incomplete"]


@pytest.mark.parametrize(
    ("failed", "interrupted", "undelivered", "concluded", "code"),
    [
        (0, False, 0, True, 0),
        (0, False, 9, True, 4),
        (0, False, 9, False, 3),
        (0, False, 0, False, 3),
        (1, False, 0, False, 1),
        (1, False, 9, True, 1),
        (0, True, 9, False, 130),
    ],
)
def test_a_study_that_was_not_exported_or_not_delivered_is_no_success(
    failed: int,
    interrupted: bool,
    undelivered: int,
    concluded: bool,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ran(*arguments: object, **options: object) -> StudyOutcome:
        return StudyOutcome(tmp_path, 1, failed, 0, 0, (), 1.0, interrupted, undelivered)

    monkeypatch.setattr("vcppo.studies.sweep.run_study", ran)
    monkeypatch.setattr("vcppo.cli.sweep.conclude", lambda *arguments: concluded)
    assert run_sweep(SweepOptions("components", out=tmp_path)) == code


def test_the_options_of_a_sweep_are_those_of_its_command_line() -> None:
    asked = {parameter.name for parameter in main.commands["sweep"].params if parameter.expose_value}
    assert asked == {field.name for field in fields(SweepOptions)}


def swept(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["sweep", "components", "--dry-run", *arguments])


def test_the_runner_of_the_cells_may_be_given_by_the_flags_old_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def ran(options: SweepOptions) -> int:
        asked.append(options.runner)
        return 0

    monkeypatch.setattr("vcppo.cli.sweep.run_sweep", ran)
    for arguments in ([], ["--runner", "verl"], ["--engine", "verl"], ["--engine", "verl", "--runner", "verl"]):
        done = swept(*arguments)
        assert done.exit_code == 0
        assert done.stdout == ""
        note = "note: --engine verl: the flag is --runner now" if "--engine" in arguments else ""
        assert done.stderr.startswith(note)
        assert done.stderr.count("\n") == bool(note)
    assert asked == ["vcppo", "verl", "verl", "verl"]
    done = swept("--engine", "verl", "--runner", "vcppo")
    assert done.exit_code == 2
    assert "ConfigError: --engine verl beside --runner vcppo: both say who runs the cells" in done.stderr
    assert "--engine" not in swept("--help").output


def test_what_belongs_to_another_runner_is_refused() -> None:
    done = swept("--verl", "a=1")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "ConfigError: --verl a=1: it would be ignored, expected --runner verl beside it\n"


def test_the_record_of_a_run_is_a_base_for_a_study(tmp_path: Path) -> None:
    """Its arm and its seed are the run's; a study has its own."""
    settings = load_settings(None, ["arm=mine", "seed=7", "rollout.prompts=24", "policy.learning_rate=0.002"])
    record = tmp_path / "settings.json"
    record.write_text(settings.model_dump_json())
    study = with_settings(load_study("components"), record, ["steps=3"])
    cells = study.cells()
    assert {cell.settings.steps for cell in cells} == {3}
    assert {cell.settings.policy.learning_rate for cell in cells} == {0.002}
    assert "mine" not in {cell.settings.arm for cell in cells}
    assert 7 not in {cell.settings.seed for cell in cells}
