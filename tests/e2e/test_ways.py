"""Adapters, narrow passes, packing, bounded critics: through every stage, and on from where they were stopped."""

from pathlib import Path

import pytest
from journals import metrics
from tiny import tiny, tiny_method

from vcppo.models.distributed import together
from vcppo.rl.experience import Iteration
from vcppo.rl.trainer import Trainer
from vcppo.settings.run import RunSettings
from vcppo.stages.pipeline import run_stages
from vcppo.store.cache import StageFolder, addresses

pytestmark = pytest.mark.e2e
CHECKPOINTED = ("compute.dtype=bfloat16", "compute.gradient_checkpointing=true")
FRESH_CRITIC = ("critic.init=policy", "critic.initial_value=mean-score", "critic.bounded=true")

NEW_CRITIC = (
    "critic.init=new",
    "critic.layers=2",
    "critic.hidden_size=24",
    "critic.initial_value=mean-score",
    "pretrain.steps=converge",
    "pretrain.patience=4",
    "pretrain.max_steps=8",
    "pretrain.gae_lambda=0.9",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cold-start policy to adapt, as the setting that names it."""
    out = tmp_path_factory.mktemp("base")
    run_stages(tiny(), out, until="cold-start")
    return f"model.path={StageFolder(out, addresses(tiny())['cold-start']).path / 'policy'}"


def settings_of(way: str, base: str) -> RunSettings:
    """Runs of four iterations with a checkpoint after the second."""
    return {
        "adapters": lambda: tiny(base, "cold_start.steps=0", "lora.rank=4"),
        "narrow adapters": lambda: tiny(base, "lora.rank=2", *CHECKPOINTED, *FRESH_CRITIC),
        "narrow": lambda: tiny(*CHECKPOINTED),
        "a new critic": lambda: tiny(*NEW_CRITIC),
        "packed": lambda: tiny("compute.packing=true"),
        "a sampler and a reference of their own": lambda: tiny_method(
            "grpo", base, "lora.rank=2", "rollout.refresh_every=2", "reference.ema=0.5", "compute.dtype=bfloat16"
        ),
    }[way]()


@pytest.mark.parametrize(
    "way",
    [
        "adapters",
        "a new critic",
        "packed",
        *(
            pytest.param(way, marks=pytest.mark.long)
            for way in ("narrow adapters", "narrow", "a sampler and a reference of their own")
        ),
    ],
)
def test_a_run_stopped_in_rl_goes_on_to_the_same_numbers(
    way: str, base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(way, base)
    with together():
        run_stages(settings, tmp_path / "straight")
    iterate = Trainer.iterate

    def stopped(self: Trainer) -> Iteration:
        if self.step == 3:
            raise KeyboardInterrupt
        return iterate(self)

    monkeypatch.setattr(Trainer, "iterate", stopped)
    with pytest.raises(KeyboardInterrupt), together():
        run_stages(settings, tmp_path / "stopped")
    monkeypatch.setattr(Trainer, "iterate", iterate)
    with together():
        run_stages(settings, tmp_path / "stopped")
    straight, resumed = metrics(tmp_path / "straight"), metrics(tmp_path / "stopped")
    assert ("rl", 3, "policy/loss") in straight
    assert resumed == straight
