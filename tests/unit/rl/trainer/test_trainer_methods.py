"""What is particular to an iteration of VinePPO, ESPO and DPO, to moving references and to shaped rewards."""

import dataclasses

import pytest
import torch
from tiny import new_policy, plainly, tiny
from torch import Tensor
from trainers import Make, assert_same, present, spy, weights

from vcppo.engines.torch.engine import TorchEngine
from vcppo.models import loading
from vcppo.rl import trainer as room
from vcppo.rl.experience import Iteration
from vcppo.rl.policy_update import read_logprobs
from vcppo.rl.reference import Reference
from vcppo.rl.rewards import Shaping, verdict_scores
from vcppo.settings.policy import ReferenceSettings
from vcppo.settings.reward import RewardSettings
from vcppo.store.cache import StageFolder
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import RolloutBatch, Verdict

# ---- VinePPO ----


def steps_of(done: Iteration) -> list[list[float]]:
    """Each response's advantages, one a step."""
    raw, segments, lengths = done.advantages.raw, present(done.steps).segments, done.batch.lengths.tolist()
    found = []
    for row, length in enumerate(lengths):
        kinds = segments[row, :length]
        advantages = [raw[row, :length][kinds == step] for step in range(int(kinds.max()) + 1)]
        assert all(bool((own == own[0]).all()) for own in advantages)  # one for all tokens of a step
        found.append([float(own[0]) for own in advantages])
    return found


@pytest.mark.parametrize("more", [(), ("vine.max_steps=2",), ("vine.max_steps=2", "vine.cap=first")], ids=str)
def test_the_advantages_of_a_response_steps_add_up_to_its_score_less_the_prompts_value(
    make: Make, more: tuple[str, ...]
) -> None:
    done = make("vineppo", "rollout.max_tokens=20", *more).iterate()
    added = torch.tensor([sum(own) for own in steps_of(done)])
    torch.testing.assert_close(added, done.batch.scores - present(done.steps).step_values[:, 0], atol=1e-5, rtol=0)
    assert max(map(len, steps_of(done))) > 1
    if more == ("vine.max_steps=2",):
        assert max(map(len, steps_of(done))) == 2


def test_steps_beyond_the_cap_get_nothing_and_the_last_before_it_all_that_is_left(make: Make) -> None:
    done = make("vineppo", "rollout.max_tokens=25", "vine.max_steps=2", "vine.cap=first").iterate()
    longer = [(row, own) for row, own in enumerate(steps_of(done)) if len(own) > 2]
    assert longer
    for row, own in longer:
        assert own[2:] == [0.0] * len(own[2:])
        assert own[1] == pytest.approx(float(done.batch.scores[row] - present(done.steps).step_values[row, 1]))


def test_responses_to_one_question_share_the_value_of_their_start(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo", "vine.samples=3").iterate()
    start = present(done.steps).step_values[:, 0]
    for group in done.batch.group.unique():
        assert len(set(start[done.batch.group == group].tolist())) == 1
    (_, stems, points, _), _, _ = calls[0]
    states = [tuple(stems[point.stem][: point.length]) for point in points]
    assert len(points) == 3 * len(set(states))
    assert len(set(states)) < len(present(done.steps).at)


def test_continuations_start_from_the_sampled_token_ids_and_keep_within_the_limit(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo").iterate()
    (_, stems, points, sampling), _, made = calls[0]
    assert list(stems) == [(*r.prompt_tokens, *r.generation.tokens) for r in done.rollouts]
    begun = {(row, len(done.rollouts[row].prompt_tokens) + offset) for row, offset in present(done.steps).at}
    assert {(point.stem, point.length) for point in points} <= begun
    for point, continuation in zip(points, made, strict=True):
        so_far = point.length - len(done.rollouts[point.stem].prompt_tokens)
        assert so_far + point.limit == sampling.max_tokens == 10
        assert so_far + len(continuation.tokens) <= 10


def test_auxiliary_samples_leave_the_batch_as_it_is(make: Make) -> None:
    few, many = (make("vineppo", f"vine.samples={samples}").iterate() for samples in (1, 7))
    for field in dataclasses.fields(RolloutBatch):
        assert_same(getattr(few.batch, field.name), getattr(many.batch, field.name))
    assert few.metrics["cost/backward_tokens"] == many.metrics["cost/backward_tokens"]
    assert few.metrics["cost/generated_tokens"] < many.metrics["cost/generated_tokens"]
    assert not torch.equal(few.advantages.final, many.advantages.final)


def test_a_states_value_is_the_mean_score_of_the_responses_that_go_on_from_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = spy(monkeypatch, TorchEngine, "branch")
    done = make("vineppo", "vine.samples=3", "rollout.max_tokens=20").iterate()
    (_, stems, points, _), _, made = calls[0]
    decode = make_task(tiny().task).tokenizer().decode
    scores: dict[tuple[int, ...], list[float]] = {}
    for point, continuation in zip(points, made, strict=True):
        response = (*stems[point.stem][: point.length], *continuation.tokens)[
            len(done.rollouts[point.stem].prompt_tokens) :
        ]
        words = decode(response, skip_special_tokens=True).split()
        scores.setdefault(tuple(stems[point.stem][: point.length]), []).append(1.0 if len(words) % 2 else -1.0)
    assert {len(own) for own in scores.values()} == {3}
    for (row, offset), value in present(done.steps).at.items():
        own = scores[(*done.rollouts[row].prompt_tokens, *done.rollouts[row].generation.tokens[:offset])]
        assert value == pytest.approx(sum(own) / 3, abs=1e-6)


def test_where_every_continuation_is_right_no_step_is_better_than_another(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DigitsTask, "verify", lambda self, text, prompt: Verdict.CORRECT)
    done = make("vineppo").iterate()
    assert set(present(done.steps).at.values()) == {1.0}
    assert not bool(done.advantages.raw.any())


# ---- ESPO ----


def test_a_threshold_of_zero_leaves_one_policy_update_and_all_of_the_critics(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make("espo", "early_stop.threshold=0")
    critic = spy(monkeypatch, room, "update_critic")
    for iteration in range(1, 3):
        told = trainer.iterate().metrics
        assert told["policy/updates"] == 1
        assert told["policy/deviation"] < 1e-4  # it is still the policy that sampled
        assert trainer.policy_optimiser.taken == 8 * iteration  # 4 epochs of 2 minibatches: the rate falls as planned
        assert len(critic) == 8 * iteration
    assert trainer.policy_optimiser.total_steps == 32
    assert trainer.policy_optimiser.learning_rate == pytest.approx(0.003 * 0.5)


@pytest.mark.parametrize("scope", ["tokens", "sequences", "high-entropy-tokens"])
def test_updates_end_with_the_first_that_saw_too_much(make: Make, monkeypatch: pytest.MonkeyPatch, scope: str) -> None:
    trainer = make("espo", f"early_stop.deviation={scope}", "early_stop.threshold=0.02", "policy.learning_rate=0.01")
    calls = spy(monkeypatch, room, "update_policy")
    trainer.iterate()
    seen = [result.deviation for _, _, result in calls]
    assert 1 < len(seen) < 8
    assert seen[-1] > 0.02
    assert max(seen[:-1]) <= 0.02
    trainer.iterate()
    assert len(calls) > len(seen)  # the next iteration begins anew


def test_a_larger_rate_stops_earlier(make: Make) -> None:
    updates = [
        make("espo", "early_stop.threshold=0.02", f"policy.learning_rate={rate}").iterate().metrics["policy/updates"]
        for rate in (1e-4, 0.005, 0.05)
    ]
    assert updates == sorted(updates, reverse=True)
    assert updates[0] == 8 > updates[2]


# ---- DPO ----


def test_pairs_of_a_right_and_a_wrong_response_stay_together(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make("dpo", "rollout.prompts=8", "policy.minibatches=3", "policy.epochs=2")
    calls = spy(monkeypatch, room, "update_policy")
    done = trainer.iterate()
    assert len(calls) == 6
    for (_, _, part, *_), _, _ in calls:
        assert part.correct.tolist() == [True, False] * (len(part.correct) // 2)
        assert torch.equal(part.group[::2], part.group[1::2])
    assert sum(len(arguments[2].scores) for arguments, _, _ in calls) == 2 * len(done.rows)
    right, wrong = int(done.batch.correct.sum()), int((~done.batch.correct).sum())
    assert 0 < len(done.rows) <= 2 * min(right, wrong)


def test_dpo_goes_on_learning_from_responses_of_the_first_policy(make: Make, before: dict[str, StageFolder]) -> None:
    trainer = make("dpo", "policy.learning_rate=0.02")
    first = plainly(loading.load_policy(before["cold-start"].path / "policy"))
    for _ in range(3):
        done = trainer.iterate()
        at_first = read_logprobs(first, done.batch, temperature=1.0, max_tokens=2000)
        torch.testing.assert_close(done.batch.old_logprobs, at_first, atol=1e-4, rtol=1e-4)
        assert done.outputs.ref_logprobs is not None
        kept = done.rows
        torch.testing.assert_close(done.outputs.ref_logprobs[kept], at_first[kept], atol=1e-4, rtol=1e-4)
    now = read_logprobs(trainer.policy, done.batch, temperature=1.0, max_tokens=2000)
    assert float((now - at_first).abs().max()) > 0.01


def test_iterative_dpo_renews_sampler_and_reference_every_so_often(make: Make) -> None:
    trainer = make("dpo-iter", "rollout.refresh_every=2", "reference.refresh_every=2")
    policies = [weights(trainer.policy)]
    for iteration in range(1, 5):
        trainer.iterate()
        policies.append(weights(trainer.policy))
        of_last_refresh = policies[iteration - iteration % 2]
        assert_same(weights(trainer.models.rollout_policy), of_last_refresh)
        assert_same(weights(present(trainer.reference).policy), of_last_refresh)
    assert len({float(policy.sum()) for policy in policies}) == 5
    done = trainer.iterate()
    torch.testing.assert_close(
        done.batch.old_logprobs,
        read_logprobs(trainer.models.rollout_policy, done.batch, temperature=1.0, max_tokens=2000),
        atol=1e-4,
        rtol=1e-4,
    )  # it is the refreshed one that answers


# ---- references and rewards ----


def test_an_averaged_reference_nears_a_policy_that_stays_by_the_closed_form() -> None:
    start, target = new_policy(), new_policy(seed=1)
    first, last = weights(start), weights(target)
    reference = Reference(start, ReferenceSettings(ema=0.3))
    for n in range(1, 6):
        reference.follow(target, n)
        torch.testing.assert_close(
            weights(reference.policy), first + (1 - 0.7**n) * (last - first), rtol=1e-5, atol=1e-6
        )


def test_a_frozen_reference_stays_whatever_the_policy_does(make: Make) -> None:
    trainer = make("grpo")
    first = weights(present(trainer.reference).policy)
    for _ in range(2):
        trainer.iterate()
    assert_same(weights(present(trainer.reference).policy), first)
    assert present(trainer.reference).state_dict() is None


def scored(scores: list[float], lengths: list[int], truncated: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
    return torch.tensor(scores), torch.tensor(lengths), torch.tensor(truncated)


def test_scores_are_cut_punished_normalised_and_clipped_in_this_order() -> None:
    settings = RewardSettings(
        truncated=0.0, overlong_share=0.2, overlong_penalty=0.5, normalise="standardise", clip=1.1
    )
    shaping = Shaping(settings, limit=10)
    raw = scored([1.0, -1.0, 1.0, 1.0], [5, 10, 9, 8], [False, True, False, False])
    plain = shaping.plain(*raw)
    assert plain.tolist() == [1.0, -0.5, 0.75, 1.0]  # the cut one is worth 0, less the whole punishment
    shaping = dataclasses.replace(shaping, moments=shaping.moments.updated(plain))
    mean, deviation = 2.25 / 4, (((7 / 16) ** 2 * 2 + (17 / 16) ** 2 + (3 / 16) ** 2) / 4) ** 0.5
    wanted = [(x - mean) / deviation for x in plain.tolist()]
    assert min(wanted) < -1.1
    assert shaping.shape(*raw).tolist() == pytest.approx([wanted[0], -1.1, wanted[2], wanted[3]], rel=1e-5)


def test_rewards_are_normalised_by_all_that_was_seen_this_batch_included(make: Make) -> None:
    trainer = make("ppo-max", "reward.clip=none", "reward.correct=3", "reward.wrong=-2")
    seen: list[float] = []
    for _ in range(3):
        done = trainer.iterate()
        scores = verdict_scores(done.rollouts, trainer.settings.reward)
        seen += scores.tolist()
        everything = torch.tensor(seen)
        wanted = (scores - everything.mean()) / everything.std(correction=0)
        torch.testing.assert_close(done.batch.scores, wanted, rtol=1e-4, atol=1e-5)
    assert trainer.shaping.moments.count == 36
