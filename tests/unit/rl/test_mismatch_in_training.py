"""The trainer beside its generator: agreement is seen, disagreement told and made up for."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, tiny
from torch import Tensor

from vcppo.engines.torch.engine import TorchEngine
from vcppo.models.checkpoints import save_model
from vcppo.rl import trainer as room
from vcppo.rl.policy_update import update_policy
from vcppo.rl.trainer import Trainer
from vcppo.stages.context import StageContext
from vcppo.stages.rl import assemble
from vcppo.store.cache import Address, StageFolder
from vcppo.tasks import make_task

CHECKED = ("critic.init=policy", "pretrain.steps=0", "mismatch.check=always", "evaluation.every=0")


def trainer(path: Path, *assignments: str) -> Trainer:
    settings = tiny(*CHECKED, *assignments)
    save_model(new_policy(), make_task(settings.task).tokenizer(), path / "policy")
    folder = StageFolder(path, Address("cold-start", {}, {}))
    folder.path = path
    return assemble(StageContext(settings, folder, {"cold-start": folder}))[0]


@pytest.fixture
def told_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    """A generator that reports every log-probability half a nat too low."""
    generate = TorchEngine.generate

    def lying(self: TorchEngine, *arguments: Any, **options: Any) -> Any:
        return [
            dataclasses.replace(made, logprobs=tuple(x - 0.5 for x in made.logprobs))
            for made in generate(self, *arguments, **options)
        ]

    monkeypatch.setattr(TorchEngine, "generate", lying)


def advantages_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """(advantages, old log-probabilities) of every update of the policy."""
    seen: list[tuple[Tensor, Tensor]] = []

    def watched(policy: Any, optimiser: Any, batch: Any, advantages: Tensor, *more: Any, **options: Any) -> Any:
        seen.append((advantages, batch.old_logprobs))
        return update_policy(policy, optimiser, batch, advantages, *more, **options)

    monkeypatch.setattr(room, "update_policy", watched)
    return seen


def test_generator_and_trainer_agree_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = trainer(tmp_path)
    for _ in range(2):
        told = here.iterate().metrics
        assert told["mismatch/max"] < 1e-4
        assert told["mismatch/alarm"] == 0.0
        assert told["mismatch/weight_mean"] == pytest.approx(1.0, abs=1e-4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("cap", "weight"), [("10", 0.5), ("1.2", None)])
def test_a_difference_is_told_and_weighed(
    tmp_path: Path, told_lower: None, cap: str, weight: float | None, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Half a nat too low: the trainer's probability is exp(0.5) times the generator's, on every token."""
    seen = advantages_seen(monkeypatch)
    here = trainer(tmp_path, f"mismatch.cap={cap}", "policy.minibatches=1")
    done = here.iterate()
    assert done.metrics["mismatch/mean"] == pytest.approx(0.5, abs=1e-4)
    assert done.metrics["mismatch/alarm"] == 1.0
    assert "generator and trainer differ by 0.5 nats a token" in capsys.readouterr().err
    wanted = 1.2 if weight is None else float(torch.tensor(weight).exp())
    assert done.metrics["mismatch/capped_share"] == float(weight is None)
    advantages, old_logprobs = seen[0]
    assert old_logprobs.sum() == pytest.approx(float(done.batch.old_logprobs.sum()))  # the trainer's own
    assert done.metrics["policy/ratio_max"] == pytest.approx(1.0, abs=1e-4)
    assert float(advantages.abs().sum()) == pytest.approx(wanted * float(done.advantages.final.abs().sum()), rel=1e-4)


def test_without_a_cap_nothing_is_weighed(tmp_path: Path, told_lower: None, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = advantages_seen(monkeypatch)
    done = trainer(tmp_path, "mismatch.cap=none", "policy.minibatches=1").iterate()
    assert "mismatch/weight_mean" not in done.metrics
    assert float(seen[0][0].abs().sum()) == pytest.approx(float(done.advantages.final.abs().sum()), rel=1e-6)


def test_stale_weights_raise_the_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator that missed an update says what the policy before it would."""
    here = trainer(tmp_path, "policy.learning_rate=0.05", "policy.epochs=3")
    monkeypatch.setattr(TorchEngine, "update_weights", lambda self, policy: None)
    alarms = [here.iterate().metrics["mismatch/alarm"] for _ in range(3)]
    assert alarms[0] == 0.0
    assert alarms[1] == alarms[2] == 1.0


def test_it_is_read_when_passes_are_narrow_and_left_when_nothing_differs() -> None:
    assert not tiny().checks_mismatch
    assert tiny("compute.dtype=bfloat16").checks_mismatch
    assert not tiny("compute.dtype=bfloat16", "mismatch.check=never").checks_mismatch
