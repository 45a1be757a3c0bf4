"""A component that is switched off leaves no trace in an iteration."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from trainers import Make, assert_same, name_of, present, weights

from vcppo.store.cache import StageFolder
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Verdict

RTO_WITHOUT = ("token_reward.kind=none",)
CLIPPED = ("critic.value_loss=clipped",)
OFF = [  # (method, settings of the one, of the other: the same to the bit; settings that do change something)
    ("cppo", ("select.prune_rate=0",), ("method=grpo",), ("select.prune_rate=0.5", "select.refill=false")),
    ("rto", ("token_reward.weight=0",), RTO_WITHOUT, ("token_reward.weight=0.5",)),
    ("semi-rto", ("token_reward.weight=0",), RTO_WITHOUT, ("token_reward.weight=0.5",)),
    ("espo", ("early_stop.threshold=1e9",), ("early_stop.deviation=none",), ("early_stop.threshold=0",)),
    ("ppo", ("rollout.refresh_every=2",), ("rollout.refresh_every=never",), ()),
    ("grpo", ("reference.refresh_every=9",), (), ("reference.refresh_every=1",)),
    ("grpo", ("kl.coefficient=0",), ("kl.placement=none",), ()),
    ("rloo", ("kl.coefficient=0",), ("kl.placement=none",), ()),
    ("ppo", ("reward.clip=99",), (), ("reward.clip=0.5",)),
    ("ppo", ("reward.overlong_share=0.1", "reward.overlong_penalty=1e-30"), (), ("reward.overlong_share=0.9",)),
    ("ppo", ("advantage.clip=1e9",), (), ("advantage.clip=0.1",)),
    ("ppo", ("policy.dual_clip=1e9",), (), ()),
    ("ppo", (*CLIPPED, "critic.value_clip_range=1e9"), (), (*CLIPPED, "critic.value_clip_range=1e-6")),
    ("vineppo", ("vine.max_steps=999",), ("vine.max_steps=none",), ("vine.max_steps=1",)),
    ("vineppo", ("vine.cap=first", "vine.max_steps=999"), ("vine.max_steps=none",), ("vine.samples=5",)),
    ("ppo", ("record.truth_every=1", "record.truth_samples=2"), (), ()),
]


def after_two(make: Make, method: str, *more: str) -> Tensor:
    given = dict(text.split("=", 1) for text in more)
    trainer = make(given.pop("method", method), *(f"{name}={value}" for name, value in given.items()))
    for _ in range(min(trainer.settings.steps, 2)):
        trainer.iterate()
    return weights(trainer.policy)


@pytest.mark.parametrize(("method", "one", "other", "on"), OFF, ids=name_of)
def test_a_component_that_is_off_leaves_no_trace(
    make: Make, method: str, one: tuple[str, ...], other: tuple[str, ...], on: tuple[str, ...]
) -> None:
    same = after_two(make, method, *other)
    assert_same(after_two(make, method, *one), same)
    if on:
        assert not torch.equal(after_two(make, method, *on), same)


def test_a_dpo_policy_that_is_the_reference_rewards_nothing(make: Make, before: dict[str, StageFolder]) -> None:
    without = after_two(make, "rto", *RTO_WITHOUT)
    assert not torch.equal(after_two(make, "rto"), without)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(before, "preference", before["cold-start"])
        assert_same(after_two(make, "rto"), without)


def test_dynamic_sampling_of_groups_that_are_always_mixed_is_none(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other response is right."""

    def turns() -> Callable[[DigitsTask, str, Prompt], Verdict]:
        verdicts = itertools.cycle([Verdict.CORRECT, Verdict.WRONG])
        return lambda self, text, prompt: next(verdicts)

    found = []
    for flag in ("true", "false"):
        monkeypatch.setattr(DigitsTask, "verify", turns())
        found.append(after_two(make, "dapo", f"select.dynamic_sampling={flag}"))
    assert_same(*found)


def test_a_reference_that_takes_the_policy_over_whole_has_no_kl(make: Make) -> None:
    trainer = make("grpo", "reference.ema=1", "policy.learning_rate=0.05")
    for _ in range(2):
        trainer.iterate()
        assert_same(weights(present(trainer.reference).policy), weights(trainer.policy))


def test_bases_share_no_draw(make: Make) -> None:
    """From the same weights; with the draws of a seed in common, bases would be no repetitions."""
    first, again, other = (make("grpo", *base).iterate().batch for base in ((), ("base_seed=0",), ("base_seed=1",)))
    assert torch.equal(first.input_ids, again.input_ids)
    assert first.input_ids.shape != other.input_ids.shape or not torch.equal(first.input_ids, other.input_ids)
