"""The files committed in results/figures are those that `make figures` draws from results/."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "results" / "figures"
CLOSE = 1e-3  # mean difference of a pixel, of 1: another processor may round a line's end another way


@pytest.mark.e2e
def test_a_redraw_leaves_the_tree_clean(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vcppo.analysis", "--results", "results", "--out", str(tmp_path), "--quiet"]
    subprocess.run(command, cwd=ROOT, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in COMMITTED.iterdir())
    changed = [drawn.name for drawn in sorted(tmp_path.iterdir()) if not alike(drawn, COMMITTED / drawn.name)]
    assert not changed, "`make figures` changes these; commit them with what changed them"


def alike(drawn: Path, committed: Path) -> bool:
    """Texts to the byte, pictures to the eye; a PDF is the same drawing as its PNG."""
    if drawn.suffix == ".pdf":
        return committed.read_bytes().startswith(b"%PDF")
    if drawn.suffix != ".png":
        return drawn.read_bytes() == committed.read_bytes()
    first, second = imread(drawn), imread(committed)
    return first.shape == second.shape and float(np.abs(first - second).mean()) < CLOSE
