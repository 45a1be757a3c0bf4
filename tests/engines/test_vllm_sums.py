"""A model of a million weights on text, from reward model to evaluation, with either generator: the same curves."""

import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from journals import metrics
from sums import flags, prepare

from vcppo.maths.statistics import count_intervals
from vcppo.settings.loading import load_settings
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal

PYTHON = os.environ.get("VCPPO_VLLM_PYTHON")
pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(PYTHON is None, reason="VCPPO_VLLM_PYTHON names no Python with vLLM; nox -s vllm does"),
]
RESPONSES = 64  # of an iteration
SURE = 3.0  # standard errors: with 8 iterations, a difference beyond is met by chance once in 50 times


def run(out: Path, assignments: list[str]) -> None:
    """`vcppo train`, as a user would."""
    command = [sys.executable, "-m", "vcppo", "train", "--out", str(out), *flags(assignments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def right_by_problem(out: Path, assignments: list[str]) -> np.ndarray:
    """Number of responses to each problem that were right in the final evaluation."""
    folder = StageFolder(out, addresses(load_settings(assignments=assignments))["evaluation"])
    (table,) = [r for r in read_journal(folder.path / "journal.jsonl") if r["kind"] == "table"]
    return np.array(table["columns"]["correct"])


def test_both_generators_give_the_same_curves(tmp_path: Path) -> None:
    """Cold start is shared; all that samples is not. Weights are compared token by token, accuracies by intervals."""
    by_torch = prepare(tmp_path)
    by_vllm = [*by_torch, "engine.kind=vllm", "engine.mode=server", f"engine.python={PYTHON}"]
    run(tmp_path / "torch", by_torch)
    shutil.copytree(tmp_path / "torch" / "cache" / "cold-start", tmp_path / "vllm" / "cache" / "cold-start")
    run(tmp_path / "vllm", by_vllm)
    torch, vllm = metrics(tmp_path / "torch"), metrics(tmp_path / "vllm")
    for step in range(8):
        one, other = (found["rl", step, "rollout/accuracy"] for found in (torch, vllm))
        error = math.sqrt(sum(max(p * (1 - p), 1 / RESPONSES) / RESPONSES for p in (one, other)))
        assert abs(one - other) < SURE * error, step
        assert vllm["rl", step, "mismatch/max"] < 1e-3
    intervals = []
    for out, assignments in ((tmp_path / "torch", by_torch), (tmp_path / "vllm", by_vllm)):
        right = right_by_problem(out, assignments)
        share = [np.arange(9) / 8]
        intervals += count_intervals(right, share, fixed_problems=False, rng=np.random.default_rng(0))
    assert intervals[0].low < intervals[1].high
    assert intervals[1].low < intervals[0].high
