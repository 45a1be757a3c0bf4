"""A set of problems to measure on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from problem_files import HUB, forget, write


@pytest.fixture
def measured(tmp_path: Path) -> str:
    """Two problems to measure on."""
    return write(tmp_path / "m.jsonl", {"problem": "M1?", "answer": "1"}, {"problem": "M2?", "answer": 2})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[object, ...]]]:
    """Rows as the sets' pages show them, in place of the network; what was asked for."""
    import datasets

    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str) -> Any:
        asked.append((name, config, split))
        return HUB[name, config, split]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    forget()
    yield asked
    forget()
