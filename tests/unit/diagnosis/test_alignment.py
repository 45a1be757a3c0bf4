"""Alignments of critics with the truth: against explicit gradients, and the law of the collapse."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import new_policy, random_batch, tiny
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.diagnosis import alignment
from vcppo.diagnosis.alignment import advantages_of, measure_alignments, surrogate_alignments
from vcppo.diagnosis.gradient_passes import GradientSettings
from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.schema import Alignment, Estimate
from vcppo.engines import make_engine
from vcppo.engines.base import Sampling
from vcppo.errors import ShapeError
from vcppo.maths.advantages import gae, monte_carlo_returns
from vcppo.maths.collapse_law import Chain, turning_offset
from vcppo.rl.alignment import chunks_of, truth_advantages
from vcppo.rl.policy_gradients import PolicyGradients
from vcppo.rl.rewards import place_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.seeding import rng_for
from vcppo.tasks import make_task
from vcppo.types import RolloutBatch

SETTINGS = GradientSettings(temperature=1.0, max_tokens=2000, batch_size=48, chunks=16)


def reading(batch: RolloutBatch, values: Tensor, name: str = "critic") -> Reading:
    returns = monte_carlo_returns(place_scores(batch), batch.response_mask, gamma=1.0)
    return Reading(name, values * batch.response_mask, returns, batch.response_mask, batch.scores, batch.group)


def of(outcome: tuple[Alignment, ...], method: str, gae_lambda: float) -> Alignment:
    (one,) = [part for part in outcome if part.method == method and part.gae_lambda == gae_lambda]
    return one


def interval(estimate: Estimate | None) -> tuple[float, float, float]:
    """Low, value, high, all known."""
    assert estimate is not None
    numbers = estimate.low, estimate.value, estimate.high
    assert None not in numbers
    return numbers  # type: ignore[return-value]


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    return new_policy()


@pytest.fixture(scope="module")
def batch() -> RolloutBatch:
    """Of two tokens, right with more of the first."""
    made = random_batch([3, 4, 5, 6] * 12, seed=5, vocabulary=3)
    small = (made.response_tokens == 1).sum(dim=1)
    return dataclasses.replace(made, scores=torch.where(2 * small > made.lengths, 1.0, -1.0))


@pytest.fixture(scope="module")
def values(batch: RolloutBatch) -> Tensor:
    return 0.3 * torch.randn(batch.response_mask.shape, generator=torch.Generator().manual_seed(0)) - 0.5


def per_response(policy: PreTrainedModel, batch: RolloutBatch, advantages: Tensor) -> Tensor:
    """[B, P] by the model's own forward pass, response by response."""
    rows = []
    for i in range(len(batch.scores)):
        start, length = int(batch.prompt_lengths[i]), int(batch.lengths[i])
        ids = batch.input_ids[i : i + 1, : start + length]
        logprobs = policy(input_ids=ids).logits[0].log_softmax(dim=-1)[start - 1 : -1]
        chosen = logprobs.gather(1, ids[0, start:, None])[:, 0]
        outcome = torch.autograd.grad((advantages[i, :length] * chosen).sum(), list(policy.parameters()))
        rows.append(torch.cat([x.flatten() for x in outcome]).double())
    return torch.stack(rows)


def test_numbers_are_those_of_explicit_gradients_of_single_responses(
    policy: PreTrainedModel, batch: RolloutBatch, values: Tensor
) -> None:
    made = reading(batch, values)
    (outcome,) = measure_alignments([made], [0.5, 1.0], policy, batch, SETTINGS)
    chunk = chunks_of(batch.group, 16)
    truth = truth_advantages(made.returns, batch.response_mask, batch.group, chunk, baseline="position")
    other = chunk[:, None] != chunk[None]
    reward, length = (per_response(policy, batch, kind) for kind in truth)

    def mean_product(x: Tensor, y: Tensor) -> float:
        return float((x @ y.T)[other].mean())

    for gae_lambda in (0.5, 1.0):
        mask = batch.response_mask
        own = per_response(policy, batch, gae(place_scores(batch), made.values, mask, gamma=1.0, gae_lambda=gae_lambda))
        square, to_reward, to_length = (mean_product(own, x) for x in (own, reward, length))
        chunks = torch.zeros((16, own.shape[1]), dtype=torch.float64).index_add(0, chunk, own)
        spread = float(chunks.square().sum()) / 48 - 3 * square  # 3 responses a chunk
        noisy = (max(square, 0.0) + spread / 48) ** 0.5
        got = of(outcome.alignments, "gradient", gae_lambda)
        assert interval(got.batch_accuracy_change)[1] == pytest.approx(to_reward / noisy / 2, rel=1e-4)  # -1 and 1
        assert interval(got.batch_length_change)[1] == pytest.approx(to_length / noisy, rel=1e-3)
        assert interval(got.noise)[1] == pytest.approx((max(square, 0.0) * 48 / spread) ** 0.5, rel=1e-4)
        cosine = to_reward / (square * mean_product(reward, reward)) ** 0.5
        assert interval(got.with_reward)[1] == pytest.approx(float(np.clip(cosine, -1, 1)), rel=1e-4)
        assert got.backward_passes == 16 * (1 + 2 + 2)


def test_order_of_responses_padding_and_micro_batches_do_not_matter(
    policy: PreTrainedModel, batch: RolloutBatch, values: Tensor
) -> None:
    order = torch.randperm(48, generator=torch.Generator().manual_seed(1))
    (plain,) = measure_alignments([reading(batch, values)], [0.9], policy, batch, SETTINGS)
    moved, made = batch.take(order), reading(batch.take(order), values[order])
    mask = torch.nn.functional.pad(made.response_mask, (0, 4))
    wide = dataclasses.replace(
        made,
        values=torch.where(mask, torch.nn.functional.pad(made.values, (0, 4)), float("nan")),
        returns=torch.nn.functional.pad(made.returns, (0, 4)),
        response_mask=mask,
    )
    (other,) = measure_alignments([wide], [0.9], policy, moved, dataclasses.replace(SETTINGS, max_tokens=17))
    for ours, theirs in zip(plain.alignments, other.alignments, strict=True):
        for name in ("reward_ceiling", "noise", "batch_accuracy_change", "batch_length_change"):
            want, got = interval(getattr(ours, name)), interval(getattr(theirs, name))
            assert got == pytest.approx(want, rel=1e-5, abs=1e-5), name


def test_a_run_that_was_stopped_goes_on_where_it_was(
    policy: PreTrainedModel, batch: RolloutBatch, values: Tensor, tmp_path: Path
) -> None:
    made, settings = reading(batch, values), dataclasses.replace(SETTINGS, folder=tmp_path)
    (whole,) = measure_alignments([made], [0.9], policy, batch, SETTINGS)

    def stop(done: int, of: int) -> None:
        assert of == 17
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_alignments([made], [0.9], policy, batch, settings, stop)
    (again,) = measure_alignments([made], [0.9], policy, batch, settings)
    assert again.alignments[0].backward_passes == 11 * 3  # 5 chunks and the second moments were there
    assert again.alignments[0].batch_accuracy_change == whole.alignments[0].batch_accuracy_change


def test_gradients_whose_products_are_there_are_not_taken_again(
    policy: PreTrainedModel, batch: RolloutBatch, values: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, settings = reading(batch, values), dataclasses.replace(SETTINGS, folder=tmp_path)
    first = measure_alignments([made], [0.9], policy, batch, settings)
    (products,) = tmp_path.rglob("*.safetensors")
    hotter = dataclasses.replace(settings, temperature=2 * SETTINGS.temperature)
    assert measure_alignments([made], [0.9], policy, batch, hotter) != first
    with monkeypatch.context() as patched:
        patched.setattr(PolicyGradients, "of", None)
        assert measure_alignments([made], [0.9], policy, batch, settings) == first
    products.write_bytes(b"")
    assert measure_alignments([made], [0.9], policy, batch, settings) == first


def test_what_cannot_be_measured_says_why(policy: PreTrainedModel, batch: RolloutBatch, values: Tensor) -> None:
    alike = dataclasses.replace(batch, scores=torch.ones(48))
    for outcome in (
        measure_alignments([reading(alike, values)], [0.9], policy, alike, SETTINGS),
        surrogate_alignments([reading(alike, values)], [0.9], batch_size=48),
    ):
        assert outcome[0].why is not None
        assert "all scores are 1" in outcome[0].why
        assert outcome[0].alignments == ()
    few = batch.take(torch.arange(4))
    small = reading(few, values[:4, : few.response_mask.shape[1]])
    (result,) = surrogate_alignments([small], [0.9], batch_size=48)
    assert result.why == "4 responses with finite values; expected 16 or more"
    with pytest.raises(ShapeError, match="critic critic: values of 4 responses of other lengths"):
        measure_alignments([small], [0.9], policy, batch, SETTINGS)


def test_responses_without_finite_values_are_left_out(
    policy: PreTrainedModel, batch: RolloutBatch, values: Tensor
) -> None:
    broken, settings = values.clone(), dataclasses.replace(SETTINGS, chunks=8)
    broken[3, 0] = float("nan")
    rows = torch.tensor([row for row in range(48) if row != 3])
    rest = batch.take(rows)
    made = dataclasses.replace(reading(batch, values), values=broken)
    (outcome,) = measure_alignments([made], [1.0], policy, batch, settings)
    (wanted,) = measure_alignments([reading(rest, values[rows])], [1.0], policy, rest, settings)
    assert outcome.notes[0].startswith("gradients: 1 responses with a value that is not finite")
    for got, want in zip(outcome.alignments, wanted.alignments, strict=True):
        assert interval(got.batch_accuracy_change) == pytest.approx(interval(want.batch_accuracy_change), rel=1e-5)


def test_advantages_of_a_reading_are_those_of_its_rewards() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    returns, known = torch.tensor([[3.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.5, 2.5]])
    want = gae(torch.tensor([[1.0, 0.0, 2.0]]), known, mask, gamma=1.0, gae_lambda=0.7)
    torch.testing.assert_close(advantages_of(returns, known, mask, 0.7), want)


LAW = Chain(8, 0.2, line_tokens=3, tokens_after_stop=3)
CHAIN = ("task.chain_length=8", "task.digits=2", "task.stop_hazard=0.2")


@pytest.fixture(scope="module")
def embedded() -> tuple[PreTrainedModel, RolloutBatch, Tensor]:
    """A policy that has learnt when demonstrations stop, responses that are right with all lines, and their values."""
    settings, trained = tiny(*CHAIN), new_policy(*CHAIN)
    task = make_task(settings.task)
    tokenizer = task.tokenizer()
    optimiser = torch.optim.Adam(trained.parameters(), lr=0.01)
    for step in range(80):
        shown = task.demonstrations(24, rng_for(0, "shown", step))
        rows = [torch.tensor(tokenizer(f"{one.prompt.text} {one.response}")["input_ids"]) for one in shown]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
        optimiser.zero_grad()
        trained(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    optimiser.zero_grad()
    trained.eval()
    sampler = Sampler(task, tokenizer, make_engine(settings.engine, trained), Sampling(1.0, 1.0, task.max_tokens))
    rollouts = sampler.roll_out(task.training_prompts(600, rng_for(0, "prompts")), seed=0)
    batch = collate(rollouts, torch.zeros(600))
    stops = (batch.lengths - LAW.tokens(0)) / LAW.line_tokens
    as_the_law = ((stops == stops.round()) & (stops >= 1) & (stops <= LAW.lines)).nonzero()[:, 0]
    batch, stops = batch.take(as_the_law), stops[as_the_law].long()
    exact = torch.zeros(batch.response_mask.shape)
    for row, stop in enumerate(stops.tolist()):
        of_row = torch.from_numpy(LAW._exact_values(stop)).float()
        exact[row, : len(of_row)] = of_row
    return trained, dataclasses.replace(batch, scores=torch.where(stops == LAW.lines, 1.0, -1.0)), exact


def test_a_constant_error_far_below_the_laws_turns_the_gradient_round(
    embedded: tuple[PreTrainedModel, RolloutBatch, Tensor],
) -> None:
    policy, batch, exact = embedded
    assert len(batch.scores) > 400  # well-formed
    assert 0.1 < float((batch.scores > 0).float().mean()) < 0.4  # 0.8 ** 7 = 0.21
    readings = [reading(batch, exact + offset, str(offset)) for offset in (0.0, 3 * turning_offset(LAW, 0.95))]
    settings = dataclasses.replace(SETTINGS, chunks=32, max_tokens=4000)
    right, low = measure_alignments(readings, [0.95, 1.0], policy, batch, settings)
    for method in ("gradient", "preconditioned"):
        for one in (of(right.alignments, method, 0.95), of(right.alignments, method, 1.0)):
            assert interval(one.batch_accuracy_change)[0] > 0
            assert interval(one.batch_length_change)[0] > 0
        one = of(low.alignments, method, 0.95)
        assert interval(one.batch_accuracy_change)[2] < 0
        assert interval(one.batch_length_change)[2] < 0
    assert interval(of(low.alignments, "gradient", 0.95).with_reward)[2] < 0
    assert low.best_lambda in (1.0, None)
    assert right.best_lambda is not None
    without_policy = surrogate_alignments(readings, [0.95], batch_size=48, chunks=32)
    assert interval(of(without_policy[0].alignments, "surrogate", 0.95).batch_length_change)[0] > 0
    assert interval(of(without_policy[1].alignments, "surrogate", 0.95).batch_length_change)[2] < 0


def test_the_surrogate_has_its_advantages_held_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Responses are padded to the longest: all kinds at once would take 2 + CL times that in float64."""
    given: list[object] = []

    def gradients(advantages: object, *_: object) -> NDArray[np.float64]:
        given.append(advantages)
        return np.random.default_rng(0).standard_normal((4, 8, 3))

    monkeypatch.setattr(alignment, "later_length_gradients", gradients)
    mask = torch.ones(16, 3, dtype=torch.bool)
    scores = torch.arange(16) % 2 * 1.0
    read = Reading("c", torch.zeros(16, 3), scores[:, None].expand(16, 3), mask, scores, torch.arange(16))
    surrogate_alignments([read], [0.9, 1.0], batch_size=48, chunks=8)
    (advantages,) = given
    assert isinstance(advantages, Iterator)
    assert [kind.shape for kind in advantages] == [(16, 3)] * 4
