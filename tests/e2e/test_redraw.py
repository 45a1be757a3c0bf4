"""What is committed in results/figures is what `make figures` draws from results/."""

from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from committed_results import COMMITTED, committed_results
from matplotlib.figure import Figure
from matplotlib.image import imread

from vcppo.analysis.redraw import redraw

CLOSE = 1e-3  # mean difference of a pixel, of 1: another processor may round a line's end another way


@pytest.mark.e2e
@pytest.mark.long
def test_a_redraw_leaves_the_tree_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Figure, "savefig", save_pictures_alone)
    results = replace(committed_results(), root=Path("results"))  # as captions.md names it
    redraw(results, tmp_path, lambda line: None)
    committed = COMMITTED / "figures"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in committed.iterdir())
    changed = [drawn.name for drawn in sorted(tmp_path.iterdir()) if not alike(drawn, committed / drawn.name)]
    assert not changed, "`make figures` changes these; commit them with what changed them"


def save_pictures_alone(
    figure: Figure, file: BinaryIO, *, format: str, savefig: Any = Figure.savefig, **how: Any
) -> None:
    """Half of the time goes into PDFs, which are not compared: each is the same drawing as its PNG."""
    if format == "pdf":
        file.write(b"%PDF")
    else:
        savefig(figure, file, format=format, **how)


def alike(drawn: Path, committed: Path) -> bool:
    """Texts to the byte, pictures to the eye."""
    if drawn.suffix == ".pdf":
        return committed.read_bytes().startswith(b"%PDF")
    if drawn.suffix != ".png":
        return drawn.read_bytes() == committed.read_bytes()
    first, second = imread(drawn), imread(committed)
    return first.shape == second.shape and float(np.abs(first - second).mean()) < CLOSE
