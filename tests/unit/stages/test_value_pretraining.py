"""Value pretraining on responses whose tokens tell their outcome."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny import new_policy, random_batch, tiny
from torch import Tensor
from transformers import LlamaConfig, LlamaForSequenceClassification, PreTrainedModel

from vcppo.errors import CheckpointError, TrainingError
from vcppo.maths.advantages import gae_by_recursion
from vcppo.maths.losses import denominators
from vcppo.maths.settling import Measurement, first_phase_end
from vcppo.maths.shaping import RunningMoments
from vcppo.models import forward
from vcppo.models.checkpoints import save_model
from vcppo.models.optimiser import Optimiser
from vcppo.rl.critic_update import read_values, update_critic
from vcppo.rl.pretraining_targets import ValueTargets, mixed_returns
from vcppo.rl.rewards import place_scores, score_range, verdict_scores
from vcppo.rl.sampler import collate
from vcppo.settings.task import DigitsTaskSettings
from vcppo.stages import value_pretraining as stage
from vcppo.stages.context import StageContext
from vcppo.stages.rl import assemble
from vcppo.stages.shared.critic_start import critic_for, start_of_critic
from vcppo.stages.shared.fixed_prompts import fixed_prompts, training_prompts
from vcppo.stages.shared.saved_responses import load_responses, responses_file
from vcppo.stages.value_pretraining import value_pretraining
from vcppo.store.cache import StageFolder, addresses
from vcppo.store.journal import read_journal
from vcppo.store.pretrained_critics import (
    add_request,
    chosen_step,
    critic_folder,
    end_of,
    last_moments,
    measurements_in,
    pretraining_is_done,
    remove_last_moments,
    saved_states,
    saved_steps,
    step_of,
)
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch

FROM_POLICY = "critic.init=policy"


@pytest.fixture(scope="module")
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


def context(before: Path, out: Path, *assignments: str) -> StageContext:
    """The stage with these settings in an --out of its own, over the same earlier stages."""
    init = () if any(text.startswith("critic.init=") for text in assignments) else (FROM_POLICY,)
    settings = tiny(*init, *assignments)
    found = addresses(settings)
    for name in ("cold-start", "answers"):
        there = StageFolder(out, found[name]).path
        if not there.exists():
            plain = StageFolder(before, addresses(tiny(FROM_POLICY))[name]).path
            shutil.copytree(plain, there)
    earlier = {name: StageFolder(out, found[name]) for name in ("cold-start", "answers")}
    return StageContext(settings, StageFolder(out, found["value-pretraining"]), earlier)


def weights(stage_context: StageContext, step: int) -> bytes:
    return (critic_folder(stage_context.folder.path, step) / "model.safetensors").read_bytes()


def told(stage_context: StageContext) -> list[dict[str, Any]]:
    records = read_journal(stage_context.folder.path / "journal.jsonl")
    return [{key: value for key, value in record.items() if key != "time"} for record in records]


def test_a_step_count_is_exactly_so_many_updates(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    step = Optimiser.step
    monkeypatch.setattr(Optimiser, "step", lambda self: (taken.append(1), step(self))[1])
    here = context(before, tmp_path, "pretrain.steps=5")
    assert not pretraining_is_done(here.folder.path, here.settings.pretrain)
    assert value_pretraining(here) == {"steps": 5.0}
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    assert len(taken) == 5
    assert saved_steps(here.folder.path) == [5]  # and none of those that were measured on the way


def test_more_asked_for_later_goes_on_and_less_takes_what_is_there(before: Path, tmp_path: Path) -> None:
    straight = context(before, tmp_path / "straight", "pretrain.steps=8")
    value_pretraining(straight)
    first = context(before, tmp_path / "extended", "pretrain.steps=3")
    value_pretraining(first)
    extended = context(before, tmp_path / "extended", "pretrain.steps=8")
    assert extended.folder.path == first.folder.path
    assert not pretraining_is_done(extended.folder.path, extended.settings.pretrain)
    value_pretraining(extended)
    assert saved_steps(extended.folder.path) == [3, 8]
    assert weights(extended, 8) == weights(straight, 8)
    assert told(extended) == told(straight)

    for few in (3, 1):  # neither lies there
        less = context(before, tmp_path / "straight", f"pretrain.steps={few}")
        assert not pretraining_is_done(less.folder.path, less.settings.pretrain)
        journal = told(straight)
        value_pretraining(less)
        assert told(straight) == journal  # the same updates tell nothing twice
        assert pretraining_is_done(straight.folder.path, straight.settings.pretrain)
    assert weights(less, 3) == weights(first, 3)
    alone = context(before, tmp_path / "alone", "pretrain.steps=1")
    value_pretraining(alone)
    assert weights(less, 1) == weights(alone, 1)
    assert saved_steps(straight.folder.path) == [1, 3, 8]
    (state,) = saved_states(straight.folder.path)  # of the last critic alone
    assert state.parent == critic_folder(straight.folder.path, 8)


def test_a_critic_that_another_run_will_want_stays_and_one_of_every_measurement_where_wanted(
    before: Path, tmp_path: Path
) -> None:
    other = context(before, tmp_path, "pretrain.steps=4")
    add_request(other.folder.path, other.settings.pretrain)
    here = context(before, tmp_path, "pretrain.steps=8")
    value_pretraining(here)
    assert saved_steps(here.folder.path) == [4, 8]
    assert pretraining_is_done(other.folder.path, other.settings.pretrain)
    measured = context(before, tmp_path / "all", "pretrain.steps=5", "pretrain.checkpoints=measured")
    assert measured.folder.address.key == here.folder.address.key
    value_pretraining(measured)
    assert saved_steps(measured.folder.path) == [2, 4, 5]
    assert len(saved_states(measured.folder.path)) == 1


def test_killed_anywhere_on_the_way_back_it_goes_on_from_the_last_measurement(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that wants fewer updates trains anew, beside what is there, and loses neither that nor its own way."""
    far = context(before, tmp_path, "pretrain.steps=8")
    value_pretraining(far)
    journal = told(far)
    less = context(before, tmp_path, "pretrain.steps=5")
    step = Optimiser.step
    taken: list[int] = []

    def killed_at_the_fourth(self: Optimiser) -> float:
        if self.taken == 4:
            raise KeyboardInterrupt
        return step(self)

    def counted(self: Optimiser) -> float:
        taken.append(self.taken)
        return step(self)

    monkeypatch.setattr(Optimiser, "step", killed_at_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        value_pretraining(less)
    monkeypatch.setattr(Optimiser, "step", counted)
    value_pretraining(less)
    assert taken == [4]
    assert told(far) == journal
    assert saved_steps(far.folder.path) == [5, 8]
    assert [step_of(state.parent) for state in saved_states(far.folder.path)] == [8]


def test_without_the_last_moments_more_updates_are_trained_from_the_start_and_logged_once(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = context(before, tmp_path / "straight", "pretrain.steps=8")
    value_pretraining(straight)
    here = context(before, tmp_path / "here", "pretrain.steps=4")
    value_pretraining(here)
    remove_last_moments(here.folder.path)
    journal = told(here)
    assert saved_states(here.folder.path) == []
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)
    more = context(before, tmp_path / "here", "pretrain.steps=8")
    step = Optimiser.step

    def killed(self: Optimiser) -> float:
        if self.taken == 3:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Optimiser, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        value_pretraining(more)
    assert told(here) == journal  # on which others count
    monkeypatch.undo()
    monkeypatch.setattr(DigitsTaskSettings, "exact_values", False)
    value_pretraining(more)
    assert told(more) == told(straight)
    assert weights(more, 8) == weights(straight, 8)
    assert saved_steps(more.folder.path) == [4, 8]
    assert last_moments(more.folder.path) == 8


def test_a_folder_whose_state_was_never_written_is_not_made(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "pretrain.steps=4")
    value_pretraining(here)
    whole = told(here)
    (critic_folder(here.folder.path, 4) / "state.pt").unlink()  # killed between the two
    assert not pretraining_is_done(here.folder.path, here.settings.pretrain)
    value_pretraining(here)
    assert told(here) == whole
    assert pretraining_is_done(here.folder.path, here.settings.pretrain)


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
    assert tables == {(n, s) for n in ("critic_by_position", "critic_calibration") for s in (0, 10, 20)}


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


def measured_in(here: StageContext) -> list[Measurement]:
    return measurements_in(here.folder.path / "journal.jsonl")


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


# ---- the returns that RL will meet ----


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


# ---- where a critic starts ----


def spread(critic: PreTrainedModel, batch: RolloutBatch) -> Tensor:
    return forward.response_values(critic, batch).detach()[batch.response_mask]


@pytest.mark.parametrize("bounded", ["false", "true"])
def test_a_fresh_critic_may_start_at_the_mean_score(before: Path, tmp_path: Path, bounded: str) -> None:
    assignments = ("critic.initial_value=mean-score", f"critic.bounded={bounded}")
    here = context(before, tmp_path, *assignments)
    responses = load_responses(here.earlier["answers"].path)
    mean = float(responses.scores.mean())
    at_zero = spread(start_of_critic(context(before, tmp_path / "zero")), responses)
    values = spread(start_of_critic(here), responses)
    if bounded == "false":
        torch.testing.assert_close(values, at_zero + mean)  # the same head, moved
    else:
        torch.testing.assert_close(values, 2.0 * torch.sigmoid(at_zero + math.log((1 + mean) / (1 - mean))) - 1.0)


@pytest.mark.parametrize("value", ["0.5", "mean-score"])
def test_a_critic_of_its_own_size_learns_as_any(before: Path, tmp_path: Path, value: str) -> None:
    given = ("critic.init=new", "critic.layers=2", "critic.hidden_size=24", f"critic.initial_value={value}")
    here = context(before, tmp_path, *given, "pretrain.steps=20", "pretrain.learning_rate=0.01")
    responses = load_responses(here.earlier["answers"].path)
    start = spread(start_of_critic(here), responses)
    assert float(start.mean()) == pytest.approx(
        float(responses.scores.mean()) if value == "mean-score" else 0.5, abs=0.3
    )
    value_pretraining(here)
    critic, _ = critic_for(first_done(here))
    assert (critic.config.hidden_size, len(critic.base_model.layers)) == (24, 2)
    assert measured_in(here)[-1].loss < 0.8 * measured_in(here)[0].loss
    other = context(before, tmp_path, *given, "pretrain.steps=20", "seed=1", "pretrain.learning_rate=0.01")
    assert not torch.equal(spread(start_of_critic(other), responses), start)
    assert addresses(here.settings)["cold-start"].key == addresses(tiny(FROM_POLICY))["cold-start"].key


def test_a_saved_critic_is_gone_on_from(before: Path, tmp_path: Path) -> None:
    first = context(before, tmp_path)
    value_pretraining(first)
    path = critic_folder(first.folder.path, 4)
    settings = tiny("critic.init=saved", f"critic.path={path}")
    second = StageContext(settings, StageFolder(tmp_path, addresses(settings)["value-pretraining"]), first.earlier)
    responses = load_responses(first.earlier["answers"].path)
    torch.testing.assert_close(
        spread(start_of_critic(second), responses), spread(critic_for(first_done(first))[0], responses)
    )


def test_a_reward_model_of_others_is_pretrained_on(before: Path, tmp_path: Path) -> None:
    """A sequence classifier, whose head has no bias."""
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = len(make_task(tiny().task).tokenizer())
    torch.manual_seed(0)
    options = {**shape, "num_labels": 1, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    for folder, known in {"theirs": tokens, "small": tokens - 1}.items():
        LlamaForSequenceClassification(LlamaConfig(vocab_size=known, **options)).save_pretrained(tmp_path / folder)
    here = context(before, tmp_path, "critic.init=saved", f"critic.path={tmp_path / 'theirs'}", "pretrain.steps=8")
    value_pretraining(here)
    losses = [m.loss for m in measurements_in(here.folder.path / "journal.jsonl")]
    assert losses[-1] < losses[0]
    critic, _ = critic_for(first_done(here))
    assert type(critic).__name__ == "LlamaForSequenceClassification"
    small = context(before, tmp_path, "critic.init=saved", f"critic.path={tmp_path / 'small'}")
    with pytest.raises(CheckpointError, match=rf"knows {tokens - 1} tokens, .* writes token {tokens - 1}; expected"):
        start_of_critic(small)


def first_done(done: StageContext) -> StageContext:
    """The context of the stage after."""
    earlier = {**done.earlier, "value-pretraining": done.folder}
    return StageContext(done.settings, done.folder, earlier)


def test_a_bounded_critic_learns_and_stays_bounded(before: Path, tmp_path: Path) -> None:
    here = context(before, tmp_path, "critic.bounded=true", "pretrain.steps=20", "pretrain.learning_rate=0.02")
    value_pretraining(here)
    losses = [m.loss for m in measurements_in(here.folder.path / "journal.jsonl")]
    assert losses[-1] < 0.8 * losses[0]
    critic, _ = critic_for(first_done(here))
    assert forward.value_range(critic) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("assignments", "wanted"),
    [
        ((), (-1.0, 1.0)),
        (("reward.unreadable=-2", "reward.correct=3"), (-2.0, 3.0)),
        (("reward.truncated=-4",), (-4.0, 1.0)),
        (("reward.correct=3", "reward.wrong=2", "reward.unreadable=2"), (2.0, 3.0)),
        (("reward.overlong_share=0.2", "reward.overlong_penalty=0.5"), (-1.5, 1.0)),
    ],
)
def test_a_bounded_critics_range_holds_every_score(assignments: tuple[str, ...], wanted: tuple[float, float]) -> None:
    assert score_range(tiny(*assignments).reward, gamma=1.0) == wanted


def test_discounted_scores_are_in_a_bounded_critics_range_too() -> None:
    reward = tiny("reward.correct=3", "reward.wrong=2", "reward.unreadable=2").reward
    assert score_range(reward, gamma=0.9) == (0.0, 3.0)
    assert score_range(tiny().reward, gamma=0.9) == (-1.0, 1.0)
