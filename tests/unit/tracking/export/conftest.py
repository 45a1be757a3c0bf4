"""A study on disk, and its export."""

from collections.abc import Callable
from pathlib import Path

import pytest
from exports import Rows, rows_of
from fake_study import FakeStudy

from vcppo.tracking import from_disk
from vcppo.tracking.export import export


@pytest.fixture
def study(tmp_path: Path) -> FakeStudy:
    return FakeStudy(tmp_path / "out")


@pytest.fixture
def exported(study: FakeStudy, tmp_path: Path) -> Callable[..., dict[str, Rows]]:
    """Exports this test's study from its folder; rows by file name."""

    def call(*, allow_incomplete: bool = False, metrics: tuple[str, ...] = ()) -> dict[str, Rows]:
        measured = from_disk.read_study(study.out, study.name, allow_incomplete=allow_incomplete)
        return rows_of(export(measured, tmp_path / "results", metrics=metrics))

    return call
