"""Exact values of a policy against its own responses, and the critic that they make."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import new_policy, plainly, tiny
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.errors import DataError
from vcppo.models import forward
from vcppo.models.checkpoints import save_model
from vcppo.rl.continuations import mean_scores
from vcppo.rl.exact_critic import exact_critic_values
from vcppo.rl.exact_values import ExactValues, Response, exact_values, expected_score
from vcppo.rl.rewards import Shaping, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.rl.trainer import Trainer
from vcppo.rl.true_values import measure_truth
from vcppo.settings.critic import ExactCriticSettings
from vcppo.stages.context import StageContext
from vcppo.stages.rl import assemble
from vcppo.store.cache import Address, StageFolder
from vcppo.tasks import make_task
from vcppo.tasks.digits import DigitsTask
from vcppo.types import DecisionPath, Judgement, Prompt, Rollout, Verdict

SHAPE = ("task.chain_length=2", "model.hidden_size=32", "model.layers=2", "task.held_out=4")
SETTINGS = tiny(*SHAPE)
REWARD = SETTINGS.reward
TEMPERATURE = 1.1


@pytest.fixture(scope="module")
def task() -> DigitsTask:
    task = make_task(SETTINGS.task)
    assert isinstance(task, DigitsTask)
    return task


@pytest.fixture(scope="module")
def prompts(task: DigitsTask) -> list[Prompt]:
    return task.held_out_prompts()[:2]


@pytest.fixture(scope="module")
def policy(task: DigitsTask, prompts: list[Prompt]) -> PreTrainedModel:
    """A policy that has learnt the right responses to two prompts, but not by heart."""
    policy = new_policy(*SHAPE)
    tokenizer = task.tokenizer()
    rows = [f"{prompt.text} {' '.join(task.decision_path(prompt, []).tokens)}" for prompt in prompts]
    ids = torch.tensor(tokenizer(rows)["input_ids"])
    optimiser = torch.optim.Adam(policy.parameters(), lr=0.01)
    for _ in range(35):
        loss = policy(input_ids=ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return plainly(policy.eval())


@pytest.fixture(scope="module")
def sampler(task: DigitsTask, policy: PreTrainedModel) -> Sampler:
    sampling = Sampling(TEMPERATURE, 1.0, task.max_tokens)
    return Sampler(task, task.tokenizer(), make_engine(SETTINGS.engine, policy), sampling)


@pytest.fixture(scope="module")
def rollouts(sampler: Sampler, prompts: list[Prompt]) -> list[Rollout]:
    """40 responses, the first of them a right one."""
    drawn = sampler.roll_out(prompts * 20, seed=0)
    return sorted(drawn, key=lambda rollout: rollout.verdict is not Verdict.CORRECT)


@pytest.fixture(autouse=True)
def verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Correct word for word, numbers of lines too: what the task forgives, a policy that knows so little makes use of,
    and how it goes on then depends on what it wrote."""
    told = DigitsTask.decision_path

    def strict_path(self: DigitsTask, prompt: Prompt, pieces: Sequence[str]) -> DecisionPath:
        right = told(self, prompt, []).tokens
        agree = itertools.takewhile(lambda both: both[0] == both[1], zip(right, pieces, strict=False))
        return DecisionPath(right, written=len(list(agree)))

    def strictly(self: DigitsTask, text: str, prompt: Prompt) -> Verdict:
        right = [token for token in told(self, prompt, []).tokens if token != "<eos>"]
        return Verdict.CORRECT if text.split() == right else Verdict.WRONG

    monkeypatch.setattr(DigitsTask, "decision_path", strict_path)
    monkeypatch.setattr(DigitsTask, "verify", strictly)


def computed(policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout], **more: Any) -> ExactValues:
    options = {"sampler": sampler, "reward": REWARD, "max_tokens": 100, **more}
    return exact_values(policy, [Response.of(rollout) for rollout in rollouts], **options)


def expected(policy: PreTrainedModel, sampler: Sampler, prompts: list[Prompt]) -> Tensor:
    return expected_score(policy, prompts, sampler=sampler, reward=REWARD, max_tokens=20)


def test_every_state_is_worth_what_4096_continuations_come_to(
    policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout]
) -> None:
    values = computed(policy, sampler, rollouts).values()
    right = rollouts[0]
    assert right.verdict is Verdict.CORRECT
    places = [(0, start) for start in range(0, len(right.generation.tokens), 3)]
    wrong = next(row for row, rollout in enumerate(rollouts) if rollout.verdict is Verdict.WRONG)
    places += [(wrong, start) for start in (0, len(rollouts[wrong].generation.tokens) - 1)]
    means = mean_scores(rollouts, places, 4096, Shaping(REWARD, sampler.sampling.max_tokens), sampler=sampler, seed=1)
    for place, mean in zip(places, means.scores, strict=True):
        value = float(values[place])
        chance = (value - REWARD.wrong) / (REWARD.correct - REWARD.wrong)
        deviation = (REWARD.correct - REWARD.wrong) * (chance * (1 - chance) / 4096) ** 0.5
        assert abs(mean - value) <= 4 * deviation + 1e-6, place
    assert 0.05 < (float(values[0, 0]) + 1) / 2 < 0.95  # else nothing was tested


def test_passes_of_any_size_and_rows_of_choice_read_the_same(
    policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout]
) -> None:
    whole = computed(policy, sampler, rollouts, max_tokens=10000)
    torch.testing.assert_close(computed(policy, sampler, rollouts, max_tokens=1).values(), whole.values())
    some = computed(policy, sampler, rollouts, rows=torch.tensor([3, 7]))
    values = torch.zeros_like(whole.values())
    values[[3, 7]] = whole.values()[[3, 7]]
    torch.testing.assert_close(some.values(), values)
    # Of two prompts there are two right responses, each read once.
    lengths = {r.prompt.name: len(r.prompt_tokens) + 13 - 3 for r in rollouts}
    assert whole.read_tokens == sum(lengths.values())


def test_a_value_is_the_product_of_the_chances_to_come(
    policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout]
) -> None:
    """Read by the pass that training reads its log-probabilities with."""
    batch = collate(rollouts[:1], verdict_scores(rollouts[:1], REWARD))
    logprobs = forward.response_logprobs(policy, batch, TEMPERATURE)[0].detach()
    to_come = logprobs[0].flip(0).cumsum(0).flip(0).exp()
    torch.testing.assert_close(computed(policy, sampler, rollouts[:1]).values()[0], 2 * to_come - 1)


def test_the_exact_gradient_is_the_slope_of_the_expected_score(
    policy: PreTrainedModel, sampler: Sampler, prompts: list[Prompt]
) -> None:
    score, weight = expected(policy, sampler, prompts), next(iter(policy.parameters()))
    (gradient,) = torch.autograd.grad(score, weight)
    direction = gradient / gradient.norm()
    with torch.no_grad():
        step = 1e-3 * direction
        ahead = float(expected_at(policy, weight, step, sampler, prompts))
        behind = float(expected_at(policy, weight, -step, sampler, prompts))
    assert (ahead - behind) / 2e-3 == pytest.approx(float(gradient.norm()), rel=5e-3)  # of a chord


def expected_at(
    policy: PreTrainedModel, weight: Tensor, step: Tensor, sampler: Sampler, prompts: list[Prompt]
) -> Tensor:
    weight.add_(step)
    score = expected(policy, sampler, prompts)
    weight.sub_(step)
    return score


def test_the_exact_gradient_is_the_mean_of_sampled_ones(
    policy: PreTrainedModel, sampler: Sampler, prompts: list[Prompt]
) -> None:
    """Along the exact one and two directions drawn at random, within four standard errors of 20 batches of 200.

    The score of a wrong response is the baseline, so that those which wrote something rare add no noise.
    """
    parameters = [p for p in policy.parameters() if p.requires_grad]
    exact = flat(torch.autograd.grad(expected(policy, sampler, prompts), parameters))
    sampled = []
    for number in range(20):
        rollouts = sampler.roll_out(prompts * 100, seed=100 + number)
        batch = collate(rollouts, verdict_scores(rollouts, REWARD))
        logprobs = forward.response_logprobs(policy, batch, TEMPERATURE)[0].sum(dim=1)
        sampled.append(flat(torch.autograd.grad(((batch.scores - REWARD.wrong) * logprobs).mean(), parameters)))
    rng = torch.Generator().manual_seed(0)
    directions = torch.stack([exact, *(torch.randn(exact.shape, generator=rng) for _ in range(2))])
    directions = directions / directions.norm(dim=1, keepdim=True)
    along = torch.stack(sampled) @ directions.T
    errors = along.std(dim=0) / 20**0.5
    assert ((along.mean(dim=0) - directions @ exact).abs() <= 4 * errors).all()
    assert float(exact.norm()) > 10 * float(errors[0])  # else nothing was tested


def flat(gradients: Any) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


# ---- the critic ----


def dialled(exact: ExactValues, mask: Tensor, seed: int = 0, **dials: Any) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return exact_critic_values(exact, mask, torch.arange(1, len(mask)), ExactCriticSettings(**dials), rng)


def test_each_dial_does_what_it_says(policy: PreTrainedModel, sampler: Sampler, rollouts: list[Rollout]) -> None:
    exact, mask = computed(policy, sampler, rollouts), collate(rollouts, torch.zeros(len(rollouts))).response_mask
    values, others = exact.values(), slice(1, None)
    live = mask[others]
    plain = dialled(exact, mask)
    torch.testing.assert_close(plain[others][live], values[others][live])
    assert not plain[0].any()  # a row that is not read
    torch.testing.assert_close(dialled(exact, mask, offset=-0.5)[others][live], values[others][live] - 0.5)
    blind = dialled(exact, mask, sight=0)[others]
    for column in range(mask.shape[1]):
        there = values[others, column][live[:, column]]
        if len(there) > 1:
            torch.testing.assert_close(blind[:, column][live[:, column]], (there.sum() - there) / (len(there) - 1))
    half = dialled(exact, mask, sight=0.5)[others][live]
    torch.testing.assert_close(half, (values[others][live] + blind[live]) / 2)
    noise = dialled(exact, mask, blur=0.25)[others][live] - values[others][live]
    assert float(noise.std()) == pytest.approx(0.25, rel=0.2)
    assert len(set(noise.tolist())) == len(noise)
    again, other = (dialled(exact, mask, seed=seed, blur=0.25)[others][live] for seed in (0, 1))
    torch.testing.assert_close(again - values[others][live], noise)
    assert not torch.equal(other, again)
    unseen = dialled(exact, mask, unseen="departures")[others][live]
    torch.testing.assert_close(unseen, exact.values("departures")[others][live])
    assert not torch.equal(unseen, values[others][live])


def trainer_of(policy: PreTrainedModel, path: Path, *more: str) -> Trainer:
    settings = tiny(*SHAPE, "critic.init=exact", "evaluation.every=0", *more)
    save_model(policy, make_task(settings.task).tokenizer(), path / "cold" / "policy")
    folder = StageFolder(path, Address("cold-start", {}, {}))
    folder.path = path / "cold"
    return assemble(StageContext(settings, folder, {"cold-start": folder}))[0]


def test_an_iteration_with_the_exact_critic(policy: PreTrainedModel, tmp_path: Path) -> None:
    trainer = trainer_of(policy, tmp_path, "record.truth_every=1", "record.positions_every=2")
    assert trainer.critic is None
    done = trainer.iterate()
    metrics, values = done.metrics, done.outputs.values
    assert values is not None
    assert metrics["value/true_error"] == metrics["value/true_bias"] == 0
    assert metrics["value/explained_variance"] == pytest.approx(
        metrics["value/explained_variance_ceiling"], nan_ok=True
    )
    read = metrics["cost/forward_tokens"]
    assert read == present(done.outputs.exact).read_tokens > 0
    assert done.true_values is not None
    for row, position, truth, estimate in zip(
        *(done.true_values[name] for name in ("answer", "position", "truth", "estimate")), strict=True
    ):
        assert truth == estimate == float(values[row, position])
    again = trainer.iterate()
    assert "value/loss" not in again.metrics
    assert again.metrics["value/true_error"] == 0  # by the policy as it is now


CREDIT = (
    "exact values with partial credit: {} of 8 responses have another score than their verdict's, the first -0.5 in "
    "place of -1, and exact values know the chance of a correct verdict alone; expected a task that gives no credit, "
    "or none with decision_path (docs/critics.md)"
)


def test_partial_credit_is_nothing_that_they_know_of(
    policy: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the exact critic nor the metrics beside another one."""
    trainer = trainer_of(policy, tmp_path, "rollout.prompts=8", "record.truth_every=1")
    done = trainer.iterate()
    models, sampler = trainer.models, trainer.sampler
    truth_of = partial(measure_truth, policy=models.policy, sampler=sampler, settings=trainer.settings, step=0)
    credited = done.batch.scores.index_fill(0, (~done.batch.correct).nonzero()[-2:, 0], -0.5)
    with pytest.raises(DataError, match=f"^{re.escape(CREDIT.format(2))}$"):
        truth_of(replace(done, batch=replace(done.batch, scores=credited)), trainer.shaping)

    def a_quarter(self: DigitsTask, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [Judgement(Verdict.WRONG, credit=0.25) for _ in texts]

    monkeypatch.setattr(DigitsTask, "judge", a_quarter)
    with pytest.raises(DataError, match=f"^{re.escape(CREDIT.format(8))}$"):
        trainer.iterate()


def test_credit_that_says_what_the_verdict_says_is_none(
    policy: PreTrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = DigitsTask.judge

    def credited(self: DigitsTask, texts: Sequence[str], prompts: Sequence[Prompt]) -> list[Judgement]:
        return [one._replace(credit=float(one.verdict is Verdict.CORRECT)) for one in judge(self, texts, prompts)]

    monkeypatch.setattr(DigitsTask, "judge", credited)
    assert trainer_of(policy, tmp_path).iterate().metrics["value/true_error"] == 0


def test_the_error_of_a_critic_made_worse_is_measured(policy: PreTrainedModel, tmp_path: Path) -> None:
    trainer = trainer_of(policy, tmp_path, "critic.offset=-0.75", "record.positions_every=3", "steps=5")
    measured = [trainer.iterate().metrics for _ in range(5)]
    for metrics in (measured[0], measured[3], measured[4]):
        assert metrics["value/true_bias"] == pytest.approx(-0.75, abs=1e-5)
        assert metrics["value/true_error"] == pytest.approx(0.75, abs=1e-5)
        assert "value/explained_variance_ceiling" in metrics
    assert not any(name.startswith("value/true") for step in (1, 2) for name in measured[step])


def test_a_noise_is_drawn_anew_in_every_iteration_and_alike_in_every_run(
    policy: PreTrainedModel, tmp_path: Path
) -> None:
    def noises(more: str) -> list[Tensor]:
        trainer = trainer_of(policy, tmp_path, "critic.blur=0.5", "policy.learning_rate=1e-12", more)
        done = [trainer.iterate() for _ in range(2)]
        return [present(d.outputs.values) - present(d.outputs.exact).values() for d in done]

    (first, second), again, other = noises("seed=0"), noises("seed=0"), noises("seed=1")
    torch.testing.assert_close(first, again[0])
    width = min(x.shape[1] for x in (first, second, other[0]))
    assert not torch.allclose(first[:, :width], second[:, :width])
    assert not torch.allclose(first[:, :width], other[0][:, :width])


def present(value: Any) -> Any:
    assert value is not None
    return value


def test_a_policy_that_samples_apart_is_the_one_whose_values_are_read(policy: PreTrainedModel, tmp_path: Path) -> None:
    trainer = trainer_of(
        policy, tmp_path, "rollout.refresh_every=never", "policy.learning_rate=0.05", "critic.offset=-1"
    )
    trainer.iterate()
    done = trainer.iterate()
    by_sampler, by_policy = (
        computed(model, trainer.sampler, done.rollouts) for model in (trainer.models.rollout_policy, trainer.policy)
    )
    torch.testing.assert_close(present(done.outputs.exact).chances, by_sampler.chances)
    assert not torch.allclose(by_policy.chances, by_sampler.chances)
