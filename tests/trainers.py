"""A trainer's settings, folders and weights, and spies on what it calls."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from vcppo.rl.trainer import Trainer
from vcppo.settings.run import RunSettings
from vcppo.stages.context import StageContext
from vcppo.store.cache import Address, StageFolder
from vcppo.store.journal import read_journal
from vcppo.types import Generation, Prompt, Rollout, Verdict

T = TypeVar("T")
SMALL = (
    "pretrain.steps=0",
    "rollout.prompts=3",
    "rollout.samples_per_prompt=4",
    "rollout.max_tokens=10",
    "policy.learning_rate=0.003",
    "critic.learning_rate=0.003",
    "vine.samples=2",
    "evaluation.every=0",
    "steps=4",
    "micro_batch_tokens=2000",
)


def place(path: Path) -> StageFolder:
    folder = StageFolder(path, Address("cold-start", {}, {}))
    folder.path = path
    return folder


Make = Callable[..., Trainer]


def context(before: dict[str, StageFolder], path: Path, settings: RunSettings) -> StageContext:
    earlier = dict(before)
    if settings.critic.init == "policy":
        del earlier["reward-model"]
    return StageContext(settings, place(path), earlier)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def spy(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any], Any]]:
    """(arguments, options, result) of every call from now on."""
    calls, original = [], getattr(owner, name)

    def watched(*arguments: Any, **options: Any) -> Any:
        calls.append((arguments, options, original(*arguments, **options)))
        return calls[-1][2]

    monkeypatch.setattr(owner, name, watched)
    return calls


def present(value: T | None) -> T:
    """What this trainer has, though not every one has it."""
    assert value is not None
    return value


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def name_of(part: str | tuple[str, ...]) -> str:
    return part if isinstance(part, str) else ",".join(part)


def rollout(question: int, right: bool) -> Rollout:
    verdict = Verdict.CORRECT if right else Verdict.WRONG
    return Rollout(Prompt(f"q{question}", "?", "1"), (1,), Generation((2,), (-1.0,), "stop"), "", verdict)


CLOCKS = ("time/", "system/", "cost/elapsed_s", "cost/peak_memory_mb")


def told(path: Path) -> list[dict[str, Any]]:
    records = []
    for record in read_journal(path / "journal.jsonl"):
        del record["time"]
        if record["kind"] == "metrics":
            record["values"] = {k: v for k, v in record["values"].items() if not k.startswith(CLOCKS)}
        records.append(record)
    return records
