"""A policy as it is saved."""

from pathlib import Path

import pytest
from tiny import new_policy, tiny

from vcppo.models.checkpoints import save_model
from vcppo.tasks import make_task


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "policy"
    save_model(new_policy(), make_task(tiny().task).tokenizer(), path)
    return path
