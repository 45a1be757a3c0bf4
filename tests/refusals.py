"""The message of a model that is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from vcppo.errors import CheckpointError


def message(load: Callable[[Path], object], path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path)
    said = str(caught.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    return said
