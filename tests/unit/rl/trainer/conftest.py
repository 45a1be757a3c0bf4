"""Trainers at their first iteration, on what earlier stages would have left."""

from pathlib import Path

import pytest
import torch
from tiny import new_policy, tiny, tiny_method
from trainers import SMALL, Make, context, place

from vcppo.models import forward, loading
from vcppo.models.checkpoints import save_model
from vcppo.rl.trainer import Trainer
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages.rl import assemble
from vcppo.store.cache import StageFolder
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Verdict


def by_length(self: DigitsTask, text: str, prompt: Prompt) -> Verdict:
    """About half of all responses are right, whatever the policy has learnt."""
    return Verdict.CORRECT if len(text.split()) % 2 else Verdict.WRONG


@pytest.fixture(autouse=True)
def verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact values know nothing of it: the truth is what continuations say."""
    monkeypatch.setattr(DigitsTask, "verify", by_length)
    monkeypatch.setattr(DigitsTaskSettings, "exact_values", False)


@pytest.fixture(scope="session")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, StageFolder]:
    """What earlier stages would have left: random models."""
    out, tokenizer = tmp_path_factory.mktemp("before"), make_task(tiny().task).tokenizer()
    save_model(new_policy(), tokenizer, out / "cold" / "policy")
    save_model(new_policy(seed=1), tokenizer, out / "dpo" / "policy")
    critic = loading.load_critic(out / "cold" / "policy", head_seed=5)
    torch.nn.init.normal_(forward.value_head(critic).weight, std=1.0, generator=torch.Generator().manual_seed(6))
    save_model(critic, tokenizer, out / "scores" / "critic")
    return {"cold-start": place(out / "cold"), "preference": place(out / "dpo"), "reward-model": place(out / "scores")}


@pytest.fixture
def make(before: dict[str, StageFolder], tmp_path: Path) -> Make:
    """make(method, "key=value", ...): a trainer at its first iteration."""

    def new(method: str, *more: str, shared: tuple[str, ...] = ()) -> Trainer:
        return assemble(context(before, tmp_path, tiny_method(method, *more, shared=(*SMALL, *shared))))[0]

    return new
