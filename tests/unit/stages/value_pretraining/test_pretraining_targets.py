"""The prompts, batches and returns of value pretraining: those that RL will meet."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from pretraining import context, first_done, spread, told
from safetensors.torch import save_file
from tiny import random_batch
from transformers import PreTrainedModel

from vcppo.errors import CheckpointError, TrainingError
from vcppo.maths.advantages import gae_by_recursion
from vcppo.maths.losses import denominators
from vcppo.maths.shaping import RunningMoments
from vcppo.models.optimiser import Optimiser
from vcppo.rl.critic_update import read_values, update_critic
from vcppo.rl.pretraining_targets import ValueTargets, mixed_returns
from vcppo.rl.rewards import place_scores, verdict_scores
from vcppo.rl.sampler import collate
from vcppo.stages import value_pretraining as stage
from vcppo.stages.context import StageContext
from vcppo.stages.rl import assemble
from vcppo.stages.shared.critic_start import start_of_critic
from vcppo.stages.shared.fixed_prompts import fixed_prompts, training_prompts
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.pretrained_critics import pretraining_is_done
from vcppo.types import RolloutBatch


def test_targets_may_mix_in_the_critics_own_values(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the critic as it stands at each update; it is measured against Monte-Carlo returns all the same."""
    here = context(before, tmp_path, "pretrain.gae_lambda=0.5", "pretrain.steps=3", "pretrain.learning_rate=0.05")
    plain = stage.Pretraining(context(before, tmp_path / "plain"))
    seen = []

    def seeing(critic: PreTrainedModel, optimiser: Optimiser, batch: RolloutBatch, **given: Any) -> Any:
        values = read_values(critic, batch, 200)
        seen.append((given["returns"], gae_by_recursion(place_scores(batch), values, batch.response_mask, **mixed)))
        seen[-1][1].add_(values)
        return update_critic(critic, optimiser, batch, **given)

    mixed = {"gamma": 1.0, "gae_lambda": 0.5}
    monkeypatch.setattr(stage, "update_critic", seeing)
    value_pretraining(here)
    assert len(seen) == 3
    for given, expected in seen:
        torch.testing.assert_close(given, expected)
    first, last = (seen[i][0] for i in (0, 2))
    assert (first.shape, float(first.sum())) != (last.shape, float(last.sum()))
    assert torch.equal(stage.Pretraining(here).held_out.returns, plain.held_out.returns)


def test_mixed_returns_by_pencil() -> None:
    """Values of a half, a reward of 1 at the end: deltas 0, 0, 1/2."""
    batch, rewards = random_batch([3]), torch.tensor([[0.0, 0.0, 1.0]])
    targets = ValueTargets(batch, rewards, torch.ones(1, 3))
    values = torch.full((1, 3), 0.5)
    for gae_lambda, expected in {0.0: [0.5, 0.5, 1.0], 0.5: [0.625, 0.75, 1.0], 1.0: [1.0, 1.0, 1.0]}.items():
        found = mixed_returns(targets, values, gamma=1.0, gae_lambda=gae_lambda)
        torch.testing.assert_close(found, torch.tensor([expected]))


def test_fresh_prompts_are_none_of_the_held_out_ones(before: Path, tmp_path: Path) -> None:
    for how in ("disjoint", "shared"):
        given = ("pretrain.fresh_rollouts=true", f"pretrain.held_out_prompts={how}")
        here = context(before, tmp_path / how, *given)
        pretraining = stage.Pretraining(here)
        held_out = {prompt.text for prompt in fixed_prompts(here).held_out}
        common = [
            prompt.text in held_out
            for step in range(20)
            for prompt in training_prompts(here, 16, pretraining._held_out_texts, "pretrain", "prompts", step)
        ]
        assert len(common) == 320
        assert any(common) == (how == "shared")


def batch_of(pretraining: stage.Pretraining, step: int) -> RolloutBatch:
    """The responses of one update, which has some."""
    targets = pretraining._targets(step)
    assert targets is not None
    return targets.batch


def test_each_pass_over_the_pool_takes_every_response_once(before: Path, tmp_path: Path) -> None:
    pretraining = stage.Pretraining(context(before, tmp_path))
    pool = pretraining.pool
    assert pool is not None
    assert len(pool.batch.scores) == 48
    assert len(pretraining.held_out.batch.scores) == 32
    seen = [tuple(row) for step in range(3) for row in batch_of(pretraining, step).old_logprobs[:, :3].tolist()]
    assert sorted(seen) == sorted(tuple(row) for row in pool.batch.old_logprobs[:, :3].tolist())
    again = [tuple(row) for step in range(3, 6) for row in batch_of(pretraining, step).old_logprobs[:, :3].tolist()]
    assert sorted(again) == sorted(seen)
    assert again != seen


def test_a_pool_smaller_than_an_update_is_gone_through_again(before: Path, tmp_path: Path) -> None:
    pretraining = stage.Pretraining(context(before, tmp_path, "pretrain.batch=100"))
    assert len(batch_of(pretraining, 0).scores) == 100


def test_fresh_rollouts_are_new_responses_of_the_policy_each_time(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.fresh_rollouts=true", "pretrain.steps=2")
    held_out = load_responses(here.earlier["answers"].path).take(torch.arange(48, 80))
    save_file(
        {name: x.contiguous() for name, x in vars(held_out).items()}, responses_file(here.earlier["answers"].path)
    )
    pretraining = stage.Pretraining(here)
    assert pretraining.pool is None
    first, again, second = (batch_of(pretraining, step) for step in (0, 0, 1))
    assert torch.equal(first.input_ids, again.input_ids)
    assert len(first.scores) == 16
    assert not torch.equal(first.old_logprobs, second.old_logprobs)
    value_pretraining(here)
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)


def test_responses_that_are_none_are_told_by_name(tmp_path: Path) -> None:
    for content in (b"", b"garbage of some length"):
        (tmp_path / "answers.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"answers.safetensors: not a batch of responses"):
            load_responses(tmp_path)
    with pytest.raises(CheckpointError, match="not a batch of responses"):
        load_responses(tmp_path / "nothing")


def test_outcomes_that_are_all_alike_are_no_number_and_no_obstacle(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.steps=converge", "pretrain.max_steps=4", "pretrain.patience=2")
    path = responses_file(here.earlier["answers"].path)
    alike = dataclasses.replace(load_responses(path.parent), scores=-torch.ones(80))
    save_file({name: x.contiguous() for name, x in vars(alike).items()}, path)
    assert value_pretraining(here)["steps"] <= 4
    measured = [r["values"] for r in told(here) if "pretrain/held_out_loss" in r.get("values", {})]
    assert measured[0]["pretrain/explained_variance"] is None


def cut(here: StageContext, rows: slice) -> RolloutBatch:
    """The earlier stage's responses, those of `rows` cut at the limit."""
    path = responses_file(here.earlier["answers"].path)
    responses = load_responses(path.parent)
    truncated = torch.zeros(len(responses.scores), dtype=torch.bool)
    truncated[rows] = True
    found = dataclasses.replace(responses, truncated=truncated)
    save_file({name: x.contiguous() for name, x in vars(found).items()}, path)
    return found


LEAVES_OUT = [("gae.bootstrap_truncated=true",), ("select.drop_truncated=true",)]


@pytest.mark.parametrize("how", LEAVES_OUT)
def test_responses_whose_worth_was_cut_off_are_no_targets(before: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    """48 responses to learn from and 32 to measure on, of which 8 and 12 were cut."""
    for name, more, sizes in (("all", (), (48, 32)), ("some", how, (40, 20))):
        here = context(before, tmp_path / name, *more, "critic.initial_value=mean-score")
        responses = cut(here, slice(40, 60))
        pretraining = stage.Pretraining(here)
        pool = pretraining.pool
        assert pool is not None
        assert (len(pool.batch.scores), len(pretraining.held_out.batch.scores)) == sizes
        assert bool(pool.batch.truncated.any()) == (not more)
        counted = responses.scores if not more else responses.scores[~responses.truncated]
        at_zero = spread(start_of_critic(context(before, tmp_path / "zero")), responses)
        torch.testing.assert_close(spread(start_of_critic(here), responses), at_zero + counted.mean())
        assert value_pretraining(here) == {"steps": 4.0}


@pytest.mark.parametrize("how", LEAVES_OUT)
def test_where_every_response_was_cut_there_is_nothing_to_learn_and_it_is_said(
    before: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    here = context(before, tmp_path, *how)
    cut(here, slice(0, 48))
    with pytest.raises(
        TrainingError, match=r"all 48 responses were cut at the limit of \d+ tokens.*raise rollout.max_tok"
    ):
        stage.Pretraining(here)


@pytest.mark.parametrize("how", LEAVES_OUT)
def test_there_is_no_mean_score_of_responses_that_were_all_cut(
    before: Path, tmp_path: Path, how: tuple[str, ...]
) -> None:
    here = context(before, tmp_path, *how, "critic.initial_value=mean-score")
    cut(here, slice(0, 80))
    with pytest.raises(TrainingError, match=r"critic: all 80 responses were cut at the limit of \d+ tokens"):
        start_of_critic(here)


def test_an_update_whose_fresh_responses_were_all_cut_teaches_nothing(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_cut = torch.ones(16, dtype=torch.bool)
    monkeypatch.setattr(stage, "collate", lambda *given: dataclasses.replace(collate(*given), truncated=all_cut))
    more = ("pretrain.fresh_rollouts=true", "pretrain.steps=2", "gae.bootstrap_truncated=true")
    here = context(before, tmp_path, *more)
    held_out = load_responses(here.earlier["answers"].path).take(torch.arange(48, 80))
    save_file(
        {name: x.contiguous() for name, x in vars(held_out).items()}, responses_file(here.earlier["answers"].path)
    )
    pretraining = stage.Pretraining(here)
    first = pretraining.critic.state_dict()["score.weight"].clone()
    pretraining.go_to(2)
    assert pretraining.optimiser.taken == 2
    assert torch.equal(pretraining.critic.state_dict()["score.weight"], first)


@pytest.mark.parametrize("kind", ["standardise", "scale"])
def test_rl_goes_on_with_the_moments_that_the_critics_targets_were_normalised_by(
    before: Path, tmp_path: Path, kind: str
) -> None:
    here = context(before, tmp_path, f"reward.normalise={kind}", "reward.correct=3", "pretrain.steps=2")
    value_pretraining(here)
    pretraining = stage.Pretraining(here)
    responses = load_responses(here.earlier["answers"].path)
    assert pretraining.shaping.moments == RunningMoments().updated(responses.scores)
    there = first_done(here)
    there = dataclasses.replace(there, folder=StageFolder(tmp_path, addresses(here.settings)["rl"]))
    trainer, _ = assemble(there)
    assert trainer.shaping == pretraining.shaping
    done = trainer.iterate()
    scores = verdict_scores(done.rollouts, here.settings.reward)
    assert trainer.shaping.moments == pretraining.shaping.moments.updated(scores)
    again, _ = assemble(there)
    again.load(trainer.state())
    assert again.shaping == trainer.shaping  # and a run that goes on has what it had


def test_moments_are_of_the_scores_that_are_handed_out(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "reward.normalise=standardise", "gae.bootstrap_truncated=true")
    responses = cut(here, slice(40, 60))
    moments = stage.Pretraining(here).shaping.moments
    assert moments == RunningMoments().updated(responses.scores[~responses.truncated])


@pytest.mark.parametrize("limit", [7, 9])
def test_a_fixed_length_is_the_limit_of_what_is_sampled(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    given = ("critic.aggregation=fixed-length", f"rollout.max_tokens={limit}", "pretrain.steps=2")
    here = context(before, tmp_path, *given)
    assert here.task.max_tokens != limit
    seen = []
    monkeypatch.setattr(
        stage, "update_critic", lambda *a, **k: (seen.append(k["fixed_length"]), update_critic(*a, **k))[1]
    )
    monkeypatch.setattr(
        stage, "denominators", lambda mask, **k: (seen.append(k["fixed_length"]), denominators(mask, **k))[1]
    )
    value_pretraining(here)
    assert seen == [limit] * 6  # two updates, two measurements, and of the best constant its mean and its loss
