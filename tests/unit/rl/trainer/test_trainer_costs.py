"""What an iteration of each method costs: responses, tokens, forward and backward passes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from trainers import Make

from vcppo.engines.torch.decoder import Decoder
from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import forward
from vcppo.rl.costs import Costs
from vcppo.settings.methods import METHODS
from vcppo.types import Generation, RolloutBatch


class Meter:
    """Counts what passes through models and engine by itself."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.generated = self.forward = self.backward = 0
        for name in ("response_logprobs", "response_values", "last_token_values"):
            patch.setattr(forward, name, self.reading(getattr(forward, name)))
        for name in ("generate", "branch"):
            patch.setattr(TorchEngine, name, self.writing(getattr(TorchEngine, name)))
        read = Decoder.read
        patch.setattr(Decoder, "read", lambda decoder, stems: (self.stems(stems), read(decoder, stems))[1])

    def stems(self, stems: Any) -> None:
        self.forward += sum(map(len, stems))

    def reading(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(model: Any, batch: RolloutBatch, *more: Any) -> Tensor:
            tokens = int((batch.prompt_lengths + batch.response_mask.sum(dim=1)).sum())
            if torch.is_grad_enabled():
                self.backward += tokens
            else:
                self.forward += tokens
            return original(model, batch, *more)

        return counted

    def writing(self, original: Callable[..., list[Generation]]) -> Callable[..., list[Generation]]:
        def counted(*arguments: Any, **options: Any) -> list[Generation]:
            made = original(*arguments, **options)
            self.generated += sum(len(one.tokens) for one in made)
            return made

        return counted


@pytest.mark.parametrize("method", METHODS)
def test_costs_are_what_passed_through_the_models(make: Make, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make(method)
    if not trainer.settings.loss.pairs:
        trainer = make(method, "record.alignment_every=0")
    meter = Meter(monkeypatch)
    for _ in range(2):
        told = trainer.iterate().metrics
    assert told["cost/generated_tokens"] == meter.generated
    assert told["cost/forward_tokens"] == meter.forward
    assert told["cost/backward_tokens"] == meter.backward
    assert told["cost/compute_tokens"] == meter.generated + meter.forward + 3 * meter.backward
    assert told["cost/answers"] >= 2 * 12
    assert told["cost/elapsed_s"] > 0
    assert told["cost/peak_memory_mb"] > 10


def test_ppos_costs_by_hand(make: Make) -> None:
    trainer = make("ppo", "policy.epochs=2", "critic.updates_per_policy_update=3")
    done = trainer.iterate()
    tokens = int(done.batch.total_lengths.sum())
    assert trainer.costs.answers == 12
    assert trainer.costs.generated_tokens == int(done.batch.lengths.sum())
    assert trainer.costs.forward_tokens == tokens  # values
    assert trainer.costs.backward_tokens == 2 * tokens + 6 * tokens  # policy, critic


@pytest.mark.parametrize(
    ("method", "measured"),
    [
        ("vineppo", ("record.truth_every=1", "record.truth_samples=3")),
        ("vcppo", ("record.alignment_every=1",)),
    ],
)
def test_what_is_measured_beside_training_is_on_nobodys_account(
    make: Make, method: str, measured: tuple[str, ...]
) -> None:
    totals = []
    for more in (("record.alignment_every=0",), measured):
        told = make(method, *more).iterate().metrics
        totals.append({k: v for k, v in told.items() if k.startswith("cost/") and k.endswith(("tokens", "answers"))})
    assert len(totals[0]) == 5
    assert totals[0] == totals[1]


def test_compute_is_in_forward_passes() -> None:
    metrics = Costs(answers=1, generated_tokens=10, forward_tokens=200, backward_tokens=3000).metrics()
    assert metrics["cost/compute_tokens"] == 9210
