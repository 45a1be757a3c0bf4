"""Tiny policies, and an evaluation of one."""

from pathlib import Path

import pytest
from evaluations import TINY, a_policy, invoke


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_policy(tmp_path_factory.mktemp("policy") / "policy")


@pytest.fixture(scope="module")
def out(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The --out of an evaluation with 3 responses a problem."""
    out = tmp_path_factory.mktemp("out")
    assert invoke(checkpoint, "--samples", "3", "--out", out, *TINY).exit_code == 0
    return out
