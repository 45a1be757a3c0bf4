"""Which responses of an iteration are trained on, and what becomes of the others."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import new_policy, random_batch, tiny_method
from torch import Tensor
from trainers import CLOCKS, Make, assert_same, name_of, present, rollout, weights

from vcppo.models import forward
from vcppo.rl import trainer as room
from vcppo.rl.selection import choose, until_mixed
from vcppo.settings.methods import METHODS
from vcppo.store.cache import StageFolder
from vcppo.tasks.digits import DigitsTask
from vcppo.types import Prompt, Rollout, RolloutBatch, Verdict


def test_cppo_ranks_by_the_whole_group_and_trains_on_its_extremes(make: Make) -> None:
    whole = make("cppo", "select.prune_rate=0").iterate()
    done = make("cppo", "select.prune_rate=0.5", "select.refill=false").iterate()
    assert torch.equal(done.batch.input_ids, whole.batch.input_ids)
    assert len(done.rows) == 6
    assert_same(done.advantages.final[done.rows], whole.advantages.final[done.rows])
    size = whole.advantages.final[:, 0].abs()
    for group in done.batch.group.unique():
        rows = (done.batch.group == group).nonzero()[:, 0]
        stay = torch.isin(rows, done.rows)
        assert int(stay.sum()) == len(rows) // 2
        assert float(size[rows[stay]].min()) >= float(size[rows[~stay]].max())


@pytest.mark.parametrize("scope", ["question", "batch"])
def test_cppo_ranks_a_response_by_its_own_questions_others(scope: str) -> None:
    """One of four is wrong, one of four is right: these two stand out, though not from the average of all eight."""
    batch = dataclasses.replace(
        random_batch([2] * 8),
        scores=torch.tensor([1.0, 1.0, 1.0, -1.0, 1.0, -1.0, -1.0, -1.0]),
        group=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
    )
    settings = tiny_method("cppo", "select.prune_rate=0.75", f"select.scope={scope}")
    assert choose(batch, settings, torch.Generator()).tolist() == [[3], [4]]


def test_cppo_reads_and_trains_on_no_row_that_it_dropped(make: Make) -> None:
    trainer = make("cppo", "select.prune_rate=0.75", "select.refill=false")
    done = trainer.iterate()
    tokens = int(done.batch.total_lengths[done.rows].sum())
    assert tokens < int(done.batch.total_lengths.sum())
    assert trainer.costs.forward_tokens == tokens  # the reference
    assert trainer.costs.backward_tokens == tokens
    dropped = torch.ones(12, dtype=torch.bool)
    dropped[done.rows] = False
    assert not bool(present(done.outputs.ref_logprobs)[dropped].any())
    assert bool(present(done.outputs.ref_logprobs)[done.rows].any(dim=1).all())


@pytest.mark.parametrize(("rate", "asked"), [(0.5, 2), (0.75, 4), (0.875, 8)])
def test_refilling_asks_for_as_many_more_questions_as_it_drops(make: Make, rate: float, asked: int) -> None:
    done = make("cppo", f"select.prune_rate={rate}", "rollout.samples_per_prompt=8").iterate()
    assert done.metrics["cost/answers"] == asked * 24
    assert len(done.rows) == 24


def test_refilling_and_dynamic_sampling_together_fill_the_wider_batch(make: Make) -> None:
    done = make("cppo", "select.prune_rate=0.5", "select.dynamic_sampling=true").iterate()
    assert len(done.batch.scores) == 24
    assert len(done.rows) == 12


def test_responses_that_were_cut_are_not_trained_on_if_so_wanted(make: Make) -> None:
    done = make("grpo", "select.drop_truncated=true", "rollout.max_tokens=6", "rollout.prompts=12").iterate()
    assert bool(done.batch.truncated.any())
    assert not bool(done.batch.truncated[done.rows].any())
    assert len(done.rows) == int((~done.batch.truncated).sum())
    assert make("grpo", "rollout.max_tokens=6").iterate().metrics["select/kept"] == 12


def by_first_of_group() -> Callable[[DigitsTask, str, Prompt], Verdict]:
    verdicts = itertools.cycle([Verdict.CORRECT, Verdict.WRONG, Verdict.WRONG, Verdict.WRONG])
    return lambda self, text, prompt: next(verdicts)


@pytest.mark.parametrize(
    ("method", "more", "wanted"),
    [  # scores 1, -1, -1, -1 of each group; the policy is the reference, so that no token has a reward
        ("rloo", (), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("kl.coefficient=0.5",), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("kl.estimator=k3", "kl.coefficient=0.5"), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("rloo", ("token_reward.kind=rto", "token_reward.weight=1"), [2.0, -2 / 3, -2 / 3, -2 / 3]),
        ("grpo", ("kl.placement=reward",), [1.5, -0.5, -0.5, -0.5]),
        ("dr-grpo", ("kl.placement=reward",), [1.5, -0.5, -0.5, -0.5]),
        ("reinforce++-baseline", ("kl.placement=reward", "advantage.whiten=none"), [1.5, -0.5, -0.5, -0.5]),
    ],
    ids=str,
)
def test_a_response_that_is_dropped_is_one_of_its_group_by_its_own_reward(
    make: Make,
    before: dict[str, StageFolder],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    more: tuple[str, ...],
    wanted: list[float],
) -> None:
    monkeypatch.setattr(DigitsTask, "verify", by_first_of_group())
    monkeypatch.setitem(before, "preference", before["cold-start"])
    done = make(method, *more, "select.drop_truncated=true", "rollout.prompts=5").iterate()
    assert len(done.batch.group.unique()) == 5  # no question was drawn twice
    assert 0 < len(done.rows) < 20
    for row in done.rows.tolist():
        assert float(done.advantages.raw[row, 0]) == pytest.approx(wanted[row % 4], abs=1e-4)


def test_a_dropped_responses_token_rewards_count_in_its_groups_baseline(make: Make) -> None:
    """The same as if nothing were dropped: what is trained on does not change what it is compared with."""
    for method, more in (("rloo", ("kl.coefficient=1",)), ("grpo", ("kl.placement=reward", "token_reward.kind=rto"))):
        given = ("rollout.prompts=12", "policy.learning_rate=0.02", *more)
        whole, some = make(method, *given), make(method, *given, "select.drop_truncated=true")
        for trainer in (whole, some):  # a policy that has left its reference
            trainer.policy.load_state_dict(new_policy(seed=3).state_dict())
            trainer.sampler.engine.update_weights(trainer.policy)
        every, few = whole.iterate(), some.iterate()
        assert 0 < len(few.rows) < len(every.rows)
        assert_same(few.advantages.raw[few.rows], every.advantages.raw[few.rows])


SELECTIVE = {  # how each method comes to drop rows, other than by those that were cut
    "dpo": (),  # which are in no pair
    "dpo-iter": (),
    **dict.fromkeys(("ppo", "ppo-max", "ppo-xu", "vapo", "rto", "reinforce++", "apa"), ("select.prune_rate=0.5",)),
}
DROPPING = [*SELECTIVE.items(), *((name, ("select.drop_truncated=true",)) for name in METHODS if "dpo" not in name[:3])]


@pytest.mark.parametrize(("method", "more"), DROPPING, ids=name_of)
def test_nothing_of_a_row_that_was_never_read_enters_any_number(
    make: Make, monkeypatch: pytest.MonkeyPatch, method: str, more: tuple[str, ...]
) -> None:
    """Whatever stands in rows that were not asked for: 0, or no number."""
    read, found = forward.gather_outputs, []

    def poisoned(model: Any, batch: RolloutBatch, limit: int, score: Any, rows: Any = None, **options: Any) -> Tensor:
        got = read(model, batch, limit, score, rows, **options)
        if rows is not None:
            got[[row for row in range(len(batch.scores)) if row not in set(rows.tolist())]] = torch.nan
        return got

    for how in (read, poisoned):
        monkeypatch.setattr(forward, "gather_outputs", how)
        trainer = make(method, *more)
        dones = [trainer.iterate() for _ in range(3)]
        assert sum(len(done.rows) for done in dones) < sum(len(done.batch.scores) for done in dones)
        told = [
            {k: v for k, v in done.metrics.items() if not k.startswith((*CLOCKS, "value/explained_variance"))}
            for done in dones
        ]
        state = trainer.state()
        found.append((told, weights(trainer.policy), state["value_moments"], state["reward_moments"]))
    for one, other in zip(found[0][0], found[1][0], strict=True):
        assert one == pytest.approx(other, rel=0, abs=0, nan_ok=True)
    assert_same(found[0][1], found[1][1])
    assert found[0][2:] == found[1][2:]


@pytest.mark.parametrize("units", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "more", [(), ("critic.updates_per_policy_update=3",), ("early_stop.threshold=0",)], ids=name_of
)
def test_updates_that_have_no_rows_count_for_both_schedules(
    make: Make, monkeypatch: pytest.MonkeyPatch, units: int, more: tuple[str, ...]
) -> None:
    monkeypatch.setattr(room, "choose", lambda batch, *rest: choose(batch, *rest)[:units])
    trainer = make("espo" if "early_stop.threshold=0" in more else "ppo", *more, "policy.schedule=linear")
    each = trainer.settings.critic.updates_per_policy_update
    planned = trainer.settings.policy.epochs * trainer.settings.policy.minibatches
    for iteration in range(1, 5):
        told = trainer.iterate().metrics
        assert trainer.policy_optimiser.taken == iteration * planned
        assert trainer.critic_optimiser.taken == iteration * planned * each
        assert ("value/loss" in told) == (units > 0)
    assert trainer.policy_optimiser.learning_rate == trainer.critic_optimiser.learning_rate == 0


def test_a_critic_that_rests_counts_no_update_without_rows(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "choose", lambda batch, *rest: choose(batch, *rest)[:0])
    trainer = make("ppo", "critic.update_every=3")
    for _ in range(4):
        trainer.iterate()
    assert trainer.critic_optimiser.taken == trainer.critic_optimiser.total_steps == 4


@pytest.mark.parametrize("method", ["ppo", "grpo"])
def test_groups_that_agree_are_trained_on_where_more_than_their_scores_counts(
    make: Make, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """What `until_mixed` says of them: by GAE at once, by a KL penalty once the policy has left its reference."""
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    trainer = make(
        method, "select.dynamic_sampling=true", "select.max_rounds=1", "kl.placement=loss", "kl.coefficient=1"
    )
    with torch.no_grad():
        for parameter in trainer.policy.parameters():
            parameter.mul_(1.1)
    first = weights(trainer.policy)
    assert trainer.iterate().metrics["select/kept"] == 12
    assert not torch.equal(weights(trainer.policy), first)


@pytest.mark.parametrize("method", ["dpo", "dapo"])
def test_an_iteration_of_nothing_to_learn_from_passes(make: Make, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    trainer = make(method)
    first = weights(trainer.policy)
    told = trainer.iterate().metrics
    assert told["select/kept"] == {"dpo": 0, "dapo": 12}[method]  # no pair; no group with both: the last round's
    assert told["cost/answers"] == {"dpo": 12, "dapo": 120}[method]
    assert trainer.policy_optimiser.taken == 2  # the schedule goes on
    if method == "dpo":
        assert_same(weights(trainer.policy), first)
        assert told["cost/backward_tokens"] == 0


def rounds(*patterns: str) -> tuple[Callable[[int], list[Rollout]], list[int]]:
    """Groups of two by round, "10 11" for one mixed and one right group; and which rounds were asked for."""
    asked: list[int] = []

    def sample(number: int) -> list[Rollout]:
        asked.append(number)
        groups = patterns[number].split()
        return [rollout(100 * number + i, letter == "1") for i, group in enumerate(groups) for letter in group]

    return sample, asked


def test_dynamic_sampling_asks_until_enough_groups_are_mixed() -> None:
    sample, asked = rounds("11 10", "00 11", "01 10", "10 10")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=10)
    assert [r.prompt.name for r in batch] == ["q1", "q1", "q200", "q200"]  # in their order, no more than wanted
    assert asked == [0, 1, 2]
    assert len(everything) == 12


def test_dynamic_sampling_asks_no_more_than_it_needs() -> None:
    sample, asked = rounds("10 01", "10 01")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=10)
    assert (len(batch), len(everything), asked) == (4, 4, [0])


def test_dynamic_sampling_ends_with_a_smaller_batch_after_its_last_round() -> None:
    sample, asked = rounds("11 10", "00 11", "01 10")
    batch, everything = until_mixed(sample, groups=2, size=2, max_rounds=2)
    assert [r.prompt.name for r in batch] == ["q1", "q1"]
    assert (asked, len(everything)) == ([0, 1], 8)
    sample, _ = rounds("11 00", "00 11")
    batch, _ = until_mixed(sample, groups=2, size=2, max_rounds=2)
    assert [r.prompt.name for r in batch] == ["q100", "q100", "q101", "q101"]  # nothing mixed: the last round's
