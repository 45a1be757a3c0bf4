"""What the stages before value pretraining leave: responses whose tokens tell their outcome."""

import dataclasses
from pathlib import Path

import pytest
import torch
from pretraining import FROM_POLICY
from safetensors.torch import save_file
from tiny import new_policy, random_batch, tiny

from vcppo.models.checkpoints import save_model
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.shared.saved_responses import responses_file
from vcppo.store.cache import StageFolder, addresses
from vcppo.tasks import make_task


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the stages before: a policy, and 48 + 32 responses; right ones have low tokens, wrong ones high."""
    out = tmp_path_factory.mktemp("before")
    found = addresses(tiny(FROM_POLICY))
    policy = StageFolder(out, found["cold-start"]).path / "policy"
    save_model(new_policy(), make_task(tiny().task).tokenizer(), policy)
    batch = random_batch([6, 3, 4, 6] * 20)
    columns = torch.arange(batch.input_ids.shape[1])[None]
    generated = (columns >= batch.prompt_lengths[:, None]) & (batch.input_ids > 0)
    low_or_high = batch.input_ids % 9 + torch.where(batch.scores > 0, 1, 10)[:, None]
    batch = dataclasses.replace(batch, input_ids=torch.where(generated, low_or_high, batch.input_ids))
    folder = StageFolder(out, found["answers"])
    folder.path.mkdir(parents=True)
    save_file({name: x.contiguous() for name, x in vars(batch).items()}, responses_file(folder.path))
    return out


@pytest.fixture(autouse=True)
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No values are computed of responses that nobody gave to any prompt."""
    monkeypatch.setattr(DigitsTaskSettings, "exact_values", False)
