"""Folders of an earlier version are read, exported and gone on with (tests/before/README.md)."""

import csv
import hashlib
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from vcppo.cli.main import main
from vcppo.models import loading
from vcppo.models.checkpoints import load_state
from vcppo.stages.shared.saved_responses import load_responses
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.cell_folders import CellFolder
from vcppo.store.journal import read_journal
from vcppo.store.summary import curves_of
from vcppo.tracking.export import POSITION_COLUMNS, critic_table, curve_rows, problem_rows
from vcppo.tracking.from_disk import read_study
from vcppo.tracking.table_files import as_csv

pytestmark = pytest.mark.e2e

BEFORE = Path(__file__).parents[1] / "before"
EXPECTED: dict[str, Any] = json.loads((BEFORE / "expected.json").read_text(encoding="utf-8"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BEFORE / "out", tmp_path / "out"))


def cell_of(out: Path, study: str, cell: str) -> CellFolder:
    return CellFolder(out / "studies" / study / "cells" / cell)


def stage_of(out: Path, cell: CellFolder, stage: str) -> StageFolder:
    return StageFolder(out, addresses(cell.settings())[stage])


def test_a_study_that_ended_is_exported_as_it_was_then(out: Path, tmp_path: Path) -> None:
    words = ["export", "finished", "--out", str(out), "--to", str(tmp_path / "results"), "--metrics", "*"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    measured = read_study(out, "finished")
    curves = [row for cell in measured.cells for row in curve_rows("finished", cell, ["*"])]
    texts = {path.name: path.read_text() for path in (tmp_path / "results").glob("*.csv")}
    names, positions = critic_table("finished", measured.cells, "critic_by_position", POSITION_COLUMNS)
    texts["curves.csv"] = as_csv(list(curves[0]), curves)  # CSV files then, Parquet now
    texts["positions.csv"] = as_csv(names, positions)
    problems = [row for cell in measured.cells for row in problem_rows("finished", cell)]
    texts["problems.csv"] = as_csv(list(problems[0]), problems)
    assert {name: digest_of_then(text) for name, text in texts.items()} == EXPECTED["finished"]
    table = pq.read_table(tmp_path / "results" / "curves.parquet")
    assert table.column_names == list(curves[0])
    values = [math.nan if row["value"] is None else row["value"] for row in curves]
    assert table.column("value").to_numpy() == pytest.approx(values, rel=1e-6, nan_ok=True)


def digest_of_then(text: str) -> str:
    """The digest of a CSV file without the columns that came later.

    Those are base_seed, and of runs what pretraining cost and what was foreseen, which nobody measured then.
    """
    rows = list(csv.DictReader(text.splitlines()))
    assert {row.pop("base_seed") for row in rows} == {"0"}
    for later in ("pretrain_answers", "pretrain_compute_tokens"):
        if later in rows[0]:
            assert all(float(row.pop(later)) >= 0 for row in rows)
    for later in ("start_reward_cosine", "start_score_z", "start_length_z", "early_warning_at"):
        if later in rows[0]:
            assert {row.pop(later) for row in rows} == {""}
    return hashlib.sha256(as_csv(list(rows[0]), rows).encode()).hexdigest()


def test_every_cell_finds_its_stages_at_the_addresses_of_then(out: Path) -> None:
    for folder in sorted((out / "studies").glob("*/cells/*")):
        cell = CellFolder(folder)
        now = {stage: address.key for stage, address in addresses(cell.settings()).items()}
        for record in cell.read().stages:
            assert now[record.stage] == record.address


def test_a_cache_entry_and_a_checkpoint_load(out: Path) -> None:
    cell = cell_of(out, "killed", "vcppo-s0")
    policy = loading.load_policy(stage_of(out, cell, "cold-start").path / "policy")
    assert sum(weight.numel() for weight in policy.parameters()) > 0
    loading.load_critic(stage_of(out, cell, "reward-model").path / "critic")
    loading.load_critic(stage_of(out, cell, "value-pretraining").path / "critic-000004")
    assert len(load_responses(stage_of(out, cell, "answers").path).scores) == 48 + 32
    state = load_state(stage_of(out, cell, "rl").path / "state.pt")
    assert state is not None
    assert 0 < state["step"] < cell.settings().steps
    assert all(torch.isfinite(weight).all() for weight in state["policy"].values())


def test_a_study_that_was_killed_goes_on_by_the_same_command(out: Path, tmp_path: Path) -> None:
    ended, killed = (cell_of(out, "killed", cell) for cell in ("ppo-s0", "vcppo-s0"))
    untouched = (ended.path / "cell.json").read_bytes()
    journal = stage_of(out, killed, "rl").path / "journal.jsonl"
    state = load_state(journal.with_name("state.pt"))
    assert state is not None
    before = journal.read_bytes().splitlines(keepends=True)[: state["records"]]
    cached = {path for path in out.glob("cache/*/*") if path.parent.name != "evaluation"}

    words = ["sweep", str(BEFORE / "killed.toml"), "--workers", "1", "--out", str(out)]
    store = ["--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    done = subprocess.run([sys.executable, "-m", "vcppo", *words, *store], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    assert (ended.path / "cell.json").read_bytes() == untouched
    record = killed.read()
    assert (record.state, record.attempts) == ("done", 2)
    assert {path for path in out.glob("cache/*/*") if path.parent.name != "evaluation"} == cached
    assert journal.read_bytes().splitlines(keepends=True)[: len(before)] == before
    expected = EXPECTED["killed"]
    curves = curves_of(read_journal(journal))
    for name, values in expected["curves"].items():
        assert list(curves[name]) == list(range(len(values)))
        assert list(curves[name].values()) == pytest.approx(values, rel=1e-3, abs=1e-5)  # another processor's rounding
    measured = {name: value for name, value in record.result.items() if name in expected["result"]}
    assert measured == pytest.approx(expected["result"], rel=1e-3, abs=1e-5)
    assert (out / "results" / "killed" / "runs.csv").read_text().count(",done,") == 2
