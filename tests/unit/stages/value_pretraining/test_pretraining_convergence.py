"""Value pretraining learns what can be told, ends where it has settled, and hands on its best critic."""

from pathlib import Path

import pytest
import torch
from pretraining import context, first_done, measured_in, spread, told
from safetensors.torch import save_file

from vcppo.maths.settling import first_phase_end
from vcppo.rl.critic_update import read_values
from vcppo.stages import value_pretraining as stage
from vcppo.stages.context import StageContext
from vcppo.stages.shared.critic_start import critic_for, start_of_critic
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.pretrained_critics import chosen_step, end_of, pretraining_is_done, saved_steps


def test_it_learns_what_can_be_told(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.steps=20", "pretrain.learning_rate=0.003", "pretrain.evaluate_every=10")
    value_pretraining(here)
    measured = [r["values"] for r in told(here) if "pretrain/held_out_loss" in r.get("values", {})]
    assert [r["step"] for r in told(here) if "pretrain/held_out_loss" in r.get("values", {})] == [0, 10, 20]
    assert measured[-1]["pretrain/held_out_loss"] < 0.6 * measured[0]["pretrain/held_out_loss"]
    assert measured[0]["pretrain/explained_variance"] < 0.2
    assert measured[-1]["pretrain/explained_variance"] > 0.4
    losses = [r["values"]["pretrain/loss"] for r in told(here) if "pretrain/loss" in r.get("values", {})]
    assert len(losses) == 20
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    tables = {(r["name"], r["step"]) for r in told(here) if r["kind"] == "table"}
    names = ("critic_by_position", "critic_by_fraction", "critic_calibration")
    assert tables == {(name, step) for name in names for step in (0, 10, 20)}


def test_converge_ends_where_the_measurements_say_and_another_patience_elsewhere(before: Path, tmp_path: Path) -> None:
    slow = ("pretrain.steps=converge", "pretrain.learning_rate=1e-9")
    here = context(before, tmp_path, *slow, "pretrain.patience=4")
    assert value_pretraining(here)["updates"] == 4.0  # measured at 0, 2, 4; nothing moves
    longer = context(before, tmp_path, *slow, "pretrain.patience=6")
    assert longer.folder.path == here.folder.path
    assert end_of(measured_in(longer), longer.settings.pretrain) is None
    assert not pretraining_is_done(longer.folder.path, longer.settings.pretrain)
    assert value_pretraining(longer)["updates"] == 6.0
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    end = end_of(measured_in(here), here.settings.pretrain)
    assert end is not None
    assert end.stopped == 4


def test_the_best_critic_is_taken_and_not_the_last(before: Path, tmp_path: Path) -> None:
    """16 responses are learnt by heart, at a rate at which what was learnt of others is lost again."""
    fast = ("pretrain.learning_rate=0.02", "pretrain.evaluate_every=4", "pretrain.max_steps=40", "pretrain.patience=40")
    here = context(before, tmp_path, "pretrain.steps=converge", *fast)
    keep_of_pool(here, 16)
    result = value_pretraining(here)
    losses = {m.step: m.loss for m in measured_in(here)}
    assert list(losses) == list(range(0, 41, 4))
    best = min(losses, key=lambda step: losses[step])
    assert 0 < best < 40
    assert (result["steps"], result["updates"]) == (best, 40.0)
    assert saved_steps(here.folder.path) == [best, 40]
    critic, updates = critic_for(first_done(here))
    assert updates == best
    pretraining = stage.Pretraining(here)
    pretraining.critic = critic
    assert pretraining._held_out_loss(read_values(critic, pretraining.held_out.batch, 200)) == pytest.approx(
        losses[best]
    )


def keep_of_pool(here: StageContext, count: int) -> None:
    """Let the pool's 48 responses be these `count`, again and again."""
    path = responses_file(here.earlier["answers"].path)
    rows = torch.cat([torch.arange(48) % count, torch.arange(48, 80)])
    few = load_responses(path.parent).take(rows)
    save_file({name: x.contiguous() for name, x in vars(few).items()}, path)


def test_a_start_that_only_gets_worse_is_taken_as_it_was(before: Path, tmp_path: Path) -> None:
    wild = ("pretrain.learning_rate=5", "pretrain.max_steps=6", "critic.initial_value=mean-score")
    here = context(before, tmp_path, "pretrain.steps=converge", *wild)
    assert value_pretraining(here) == {"steps": 0.0, "updates": 6.0, "first_phase_updates": 0.0}
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    responses, (critic, updates) = load_responses(here.earlier["answers"].path), critic_for(first_done(here))
    assert updates == 0
    assert torch.equal(spread(critic, responses), spread(start_of_critic(here), responses))
    journal = told(here)
    assert value_pretraining(here)["steps"] == 0.0
    assert told(here) == journal


def test_converge_gives_up_at_max_steps_exactly(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.steps=converge", "pretrain.max_steps=5", "pretrain.patience=99")
    assert value_pretraining(here)["updates"] == 5.0
    assert [m.step for m in measured_in(here)] == [0, 2, 4, 5]
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    chosen = chosen_step(here.folder.path, here.settings.pretrain)
    assert critic_for(first_done(here))[1] == chosen
    beyond = context(before, tmp_path, "pretrain.steps=12", "pretrain.max_steps=5")
    value_pretraining(beyond)
    assert chosen_step(here.folder.path, here.settings.pretrain) == chosen  # what lies beyond does not count


def test_the_end_of_the_first_phase_is_noted_once(before: Path, tmp_path: Path) -> None:
    """A critic that starts 3 too high is worse than a constant until it has come down."""
    fast = ("pretrain.steps=60", "pretrain.learning_rate=0.03", "critic.initial_value=3")
    here = context(before, tmp_path, *fast)
    value_pretraining(here)
    noted = [(r["step"], r["values"]) for r in told(here) if "pretrain/first_phase_updates" in r.get("values", {})]
    ((step, values),) = noted
    assert values["pretrain/first_phase_updates"] == step == first_phase_end(measured_in(here))
    measured = {r["step"]: r["values"] for r in told(here) if "pretrain/held_out_loss" in r.get("values", {})}
    assert 0 < step < 60
    for earlier in range(0, step, 2):
        assert measured[earlier]["pretrain/held_out_loss"] > 1.01 * measured[earlier]["pretrain/constant_loss"]
    held_out = load_responses(here.earlier["answers"].path).take(torch.arange(48, 80))
    returns = held_out.scores[:, None].expand(held_out.response_mask.shape)[held_out.response_mask]
    variance = float(returns.var(unbiased=False))
    assert values["pretrain/constant_loss"] == pytest.approx(0.5 * variance, rel=1e-5)
    more = context(before, tmp_path, "pretrain.steps=62", *fast[1:])
    value_pretraining(more)
    assert sum("pretrain/first_phase_updates" in r.get("values", {}) for r in told(more)) == 1


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean", "fixed-length"])
def test_no_constant_has_a_lower_loss_than_the_best(before: Path, tmp_path: Path, aggregation: str) -> None:
    pretraining = stage.Pretraining(context(before, tmp_path, f"critic.aggregation={aggregation}"))
    returns = pretraining.held_out.returns
    losses = [pretraining._held_out_loss(torch.full_like(returns, c / 1000)) for c in range(-1000, 1001, 2)]
    assert pretraining._constant_loss == pytest.approx(min(losses), rel=1e-4)
    assert pretraining._constant_loss <= min(losses) * (1 + 1e-6)
