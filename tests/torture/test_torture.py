"""A part of the torture for every run of the tests: a few writes, each kind of fault."""

from pathlib import Path

import pytest
from torture.faults import KINDS
from torture.harness import torture

pytestmark = pytest.mark.e2e


def test_faults_at_some_writes_change_nothing(tmp_path: Path) -> None:
    for tally in torture(tmp_path, KINDS, every=150, first=43):
        assert tally.injected > 1
        assert tally.lost == []
