"""The critic of an iteration: when it is trained, on which returns, in which units."""

import dataclasses
from pathlib import Path

import pytest
import torch
from tiny import random_batch, tiny_method
from trainers import SMALL, Make, assert_same, context, name_of, present, spy, weights

from vcppo.rl import reading
from vcppo.rl import trainer as room
from vcppo.rl.metrics import value_metrics
from vcppo.rl.pretraining_targets import value_targets
from vcppo.rl.rewards import returns_known
from vcppo.settings.estimators import ESTIMATORS
from vcppo.settings.kinds import KINDS
from vcppo.stages.rl import assemble
from vcppo.stages.value_pretraining import token_reward_models
from vcppo.store.cache import StageFolder

BOOTSTRAP = ("gae.bootstrap_truncated=true",)


def test_dvpos_critic_is_never_touched(make: Make) -> None:
    trainer = make("dvpo")
    first, policy = weights(present(trainer.critic)), weights(trainer.policy)
    for _ in range(2):
        told = trainer.iterate().metrics
        assert told["policy/updates"] == 2
        assert {"value/loss", "value/learning_rate", "value/grad_norm"} & told.keys() == set()
        assert {"value/mean", "value/value_bias"} <= told.keys()
    assert_same(weights(present(trainer.critic)), first)
    assert trainer.critic_optimiser.taken == 0
    assert not torch.equal(weights(trainer.policy), policy)


def test_a_critic_is_trained_every_so_many_iterations(make: Make) -> None:
    trainer = make("ppo", "critic.update_every=3")
    moved = []
    for _ in range(4):
        first = weights(present(trainer.critic))
        trainer.iterate()
        moved.append(not torch.equal(weights(present(trainer.critic)), first))
    assert moved == [True, False, False, True]
    assert trainer.critic_optimiser.taken == trainer.critic_optimiser.total_steps == 4
    assert trainer.critic_optimiser.learning_rate == 0


def test_value_normalisation_teaches_the_critic_in_its_own_units(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("ppo-xu", "reward.truncated=none", "policy.minibatches=1")
    calls = spy(monkeypatch, room, "update_critic")
    raw = spy(monkeypatch, reading, "read_values")
    first, second = trainer.iterate(), trainer.iterate()
    mask = first.batch.response_mask
    assert_same(present(first.outputs.values), raw[0][2])  # nothing seen yet: units of reward
    returns = first.returns[mask]
    mean, deviation = float(returns.mean()), float(returns.std(correction=0))
    assert trainer.value_moments.weight > 0
    _, _, part, values, targets = calls[0][0]
    live = part.response_mask
    assert float(targets[live].mean()) == pytest.approx(0, abs=1e-5)
    assert float(targets[live].std(correction=0)) == pytest.approx(1, abs=1e-4)
    assert sorted(targets[live].tolist()) == pytest.approx(sorted(((returns - mean) / deviation).tolist()), abs=1e-4)
    assert sorted(values[live].tolist()) == sorted(raw[0][2][mask].tolist())  # old values are what the critic said
    mask = second.batch.response_mask
    expected = torch.where(mask, raw[1][2] * deviation + mean, 0.0)
    torch.testing.assert_close(second.outputs.values, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "more", [(), ("critic.value_clip_range=1e-4",), ("reward.correct=9", "reward.wrong=-1")], ids=str
)
def test_a_critic_that_has_not_moved_is_held_back_on_no_token(make: Make, more: tuple[str, ...]) -> None:
    """A clip around any other number than the critic's own leaves most tokens without gradient."""
    trainer = make("ppo-xu", "reward.truncated=none", "policy.minibatches=1", *more)
    for _ in range(3):
        assert trainer.iterate().metrics["value/clip_fraction"] == 0


def test_moments_of_returns_are_of_the_rows_trained_on(make: Make) -> None:
    """Cut responses are worth 10 more than any other, and are dropped."""
    trainer = make(
        "ppo-xu", "select.drop_truncated=true", "reward.truncated=10", "rollout.prompts=24", "kl.coefficient=0"
    )
    done = trainer.iterate()
    assert 0 < len(done.rows) < len(done.batch.scores)
    live = done.returns[done.rows][done.batch.response_mask[done.rows]]
    assert float(live.max()) < 1.01
    assert trainer.value_moments.mean == pytest.approx(float(live.mean()), abs=1e-5)
    assert trainer.value_moments.std == pytest.approx(float(live.std(correction=0)), rel=1e-4)


def test_an_iteration_that_drops_every_row_leaves_the_moments_alone(make: Make) -> None:
    trainer = make("ppo-xu", "select.drop_truncated=true", "rollout.max_tokens=1")
    first = weights(present(trainer.critic))
    assert len(trainer.iterate().rows) == 0
    assert trainer.value_moments.weight == 0
    assert_same(weights(present(trainer.critic)), first)


SAME_RETURNS = [
    ("ppo", ()),
    ("ppo", ("gae.gamma=0.9",)),
    ("ppo-max", ("kl.coefficient=1", "critic.init=reward-model")),
    *[(kind, ("token_reward.weight=0.5",)) for kind in ("rto", "semi-rto", "ddpo", "rs-ppo")],
    ("rto", ("token_reward.weight=0.5", "token_reward.clip=0.2", "gae.gamma=0.9", "kl.coefficient=1")),
    ("semi-rto", ("token_reward.weight=0.5", "rollout.temperature=0.7")),
]


@pytest.mark.parametrize(("method", "more"), SAME_RETURNS, ids=name_of)
def test_a_critic_is_pretrained_on_the_returns_that_rl_begins_with(
    before: dict[str, StageFolder], tmp_path: Path, method: str, more: tuple[str, ...]
) -> None:
    settings = tiny_method(method, *more, shared=(*SMALL, "rollout.max_tokens=25"))
    here = context(before, tmp_path, settings)
    trainer, _ = assemble(here)
    done = trainer.iterate()
    taught = value_targets(done.batch, token_reward_models(here), settings)
    torch.testing.assert_close(taught.returns, done.rewards.monte_carlo, atol=1e-4, rtol=1e-4)
    dense = trainer.settings.token_reward.kind != "none"
    plain = torch.where(done.batch.response_mask, done.batch.scores[:, None], 0.0)
    if trainer.settings.gae.gamma == 1:
        assert torch.allclose(taught.returns, plain, atol=1e-4) != dense


def test_bootstrapped_responses_have_no_return_to_measure_the_critic_against(make: Make) -> None:
    given = ("rollout.prompts=24", "gae.lambda_critic=1", "critic.update_every=never")
    plain, booted = (make("ppo", *(n for n in given if "lambda" not in n), *more) for more in ((), BOOTSTRAP))
    one, other = plain.iterate(), booted.iterate()
    assert torch.equal(one.rows_with_return, one.rows)
    assert torch.equal(other.rows_with_return, (~other.batch.truncated).nonzero()[:, 0])
    assert 0 < len(other.rows_with_return) < len(other.rows)
    part = (present(other.outputs.values)[other.rows_with_return], other.rewards.monte_carlo[other.rows_with_return])
    wanted = value_metrics(*part, other.batch.response_mask[other.rows_with_return])
    assert {name: other.metrics[name] for name in wanted} == wanted
    assert one.metrics["value/value_bias"] != other.metrics["value/value_bias"]
    cut = other.batch.truncated
    assert_same(one.advantages.raw[~cut], other.advantages.raw[~cut])
    assert not torch.equal(one.advantages.raw[cut], other.advantages.raw[cut])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_only_advantages_with_room_for_it_are_bootstrapped(make: Make, estimator: str) -> None:
    """A study's base may ask for it beside arms that bootstrap nothing."""
    settings = tiny_method("ppo", shared=(*SMALL, *BOOTSTRAP)).model_copy(
        update={"advantage": KINDS["advantage"].models[estimator].model_validate({"estimator": estimator})}
    )
    batch = dataclasses.replace(random_batch([2, 3]), truncated=torch.tensor([True, False]))
    known = returns_known(batch, settings).tolist()
    assert known == [estimator not in ("gae", "td", "q"), True]
