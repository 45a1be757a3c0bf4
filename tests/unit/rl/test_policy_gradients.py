"""Gradients of groups of responses against those of single responses, and what they must not depend on."""

import dataclasses
import itertools
import json
from typing import Any

import numpy as np
import pytest
import torch
from processes import forked
from tiny import new_policy, random_batch
from torch import Tensor
from transformers import PreTrainedModel

from vcppo.models.prepared import declare
from vcppo.rl.policy_gradients import DAMPING, PolicyGradients, token_signs
from vcppo.settings.model import ComputeSettings
from vcppo.types import RolloutBatch

PLENTY = 2**30
BATCH = random_batch([9, 3, 5, 7, 1, 6])
ADVANTAGES = torch.randn((3, *BATCH.response_mask.shape), generator=torch.Generator().manual_seed(1))
GROUPS = [torch.tensor([0, 1, 4]), torch.tensor([2, 3, 5])]


@pytest.fixture(scope="module")
def policy() -> PreTrainedModel:
    return new_policy()


def explicit(policy: PreTrainedModel, batch: RolloutBatch, advantages: Tensor, temperature: float) -> Tensor:
    """[B, P] the gradient of each response alone, token by token, by the model's own forward pass."""
    rows = []
    for i in range(len(batch.scores)):
        start, length = int(batch.prompt_lengths[i]), int(batch.lengths[i])
        logits = policy(input_ids=batch.input_ids[i : i + 1, : start + length]).logits[0] / temperature
        logprobs = logits.log_softmax(dim=-1)
        total = torch.zeros(())
        for t in range(length):
            total = total + advantages[i, t] * logprobs[start + t - 1, batch.input_ids[i, start + t]]
        result = torch.autograd.grad(total, list(policy.parameters()))
        rows.append(torch.cat([x.flatten() for x in result]))
    return torch.stack(rows)


def test_gradients_of_groups_are_the_sums_of_single_responses(policy: PreTrainedModel) -> None:
    gradients = PolicyGradients(policy, BATCH, temperature=1.3, max_tokens=25, held=6, memory=PLENTY)
    for rows in GROUPS:
        plain, scaled = gradients.of(rows, ADVANTAGES)
        assert scaled is None
        for kind, got in enumerate(plain):
            want = explicit(policy, BATCH, ADVANTAGES[kind], 1.3)[rows].sum(dim=0)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
    assert gradients.backward_passes == 3 * 4  # two micro-batches for each group


def test_preconditioning_divides_by_the_root_of_second_moments_under_random_signs(policy: PreTrainedModel) -> None:
    gradients = PolicyGradients(policy, BATCH, temperature=1.0, max_tokens=100, held=6, memory=PLENTY)
    gradients.precondition(GROUPS)
    single = explicit(policy, BATCH, token_signs(BATCH), 1.0)
    moments = sum((single[rows].sum(dim=0).square() for rows in GROUPS), start=torch.zeros(())) / 6
    plain, scaled = gradients.of(GROUPS[0], ADVANTAGES)
    assert scaled is not None
    torch.testing.assert_close(scaled, plain / (moments + DAMPING * moments.mean()).sqrt(), rtol=1e-3, atol=1e-5)


def products(
    policy: PreTrainedModel, batch: RolloutBatch, advantages: Tensor, groups: list[Tensor], limit: int
) -> list[np.ndarray]:
    """Plain ones, and preconditioned ones."""
    gradients = PolicyGradients(policy, batch, temperature=1.0, max_tokens=limit, held=12, memory=PLENTY)
    gradients.precondition(groups)
    made = [gradients.of(rows, advantages) for rows in groups]
    return [gradients.products(torch.cat([pair[i] for pair in made])) for i in (0, 1)]  # type: ignore[misc]


@pytest.mark.parametrize("case", ["micro-batches", "padding", "order", "packing"])
def test_products_depend_on_no_padding_order_packing_or_micro_batch(policy: PreTrainedModel, case: str) -> None:
    want = products(policy, BATCH, ADVANTAGES, GROUPS, 100)
    batch, advantages, groups, limit, other = BATCH, ADVANTAGES, GROUPS, 100, policy
    if case == "micro-batches":
        limit = 13
    elif case == "padding":
        batch = dataclasses.replace(
            BATCH,
            input_ids=torch.nn.functional.pad(BATCH.input_ids, (0, 5), value=7),
            response_mask=torch.nn.functional.pad(BATCH.response_mask, (0, 3)),
            old_logprobs=torch.nn.functional.pad(BATCH.old_logprobs, (0, 3)),
        )
        advantages = torch.nn.functional.pad(ADVANTAGES, (0, 3), value=9.0)
    elif case == "order":
        order = torch.tensor([5, 3, 0, 1, 4, 2])
        batch, advantages = BATCH.take(order), ADVANTAGES[:, order]
        groups = [torch.tensor([(order == row).nonzero().item() for row in rows.tolist()]) for rows in GROUPS]
    else:
        other = new_policy()
        other.set_attn_implementation("eager")
        declare(other, ComputeSettings(packing=True), other.device)
    got = products(other, batch, advantages, groups, limit)
    for ours, theirs in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


def test_signs_follow_from_the_tokens_so_far_and_are_as_often_up_as_down() -> None:
    batch = random_batch([400] * 8, prompt_lengths=[3] * 8)
    signs = token_signs(batch)
    assert set(signs.unique().tolist()) == {-1.0, 1.0}
    assert abs(float(signs.mean())) < 4 / 3200**0.5
    assert abs(float((signs[:, 1:] * signs[:, :-1]).mean())) < 4 / 3200**0.5
    changed = batch.input_ids.clone()
    changed[:, 3 + 200] += 1
    after = token_signs(dataclasses.replace(batch, input_ids=changed))
    assert torch.equal(signs[:, :200], after[:, :200])
    assert 0.3 < float((signs[:, 200:] != after[:, 200:]).float().mean()) < 0.7


def test_a_sketch_keeps_dot_products_as_far_as_its_size_allows() -> None:
    """P is 5,000 or so; 1,025 columns are an error of about 3 % of the product of the lengths."""
    policy = new_policy()
    whole = PolicyGradients(policy, BATCH, temperature=1.0, max_tokens=100, held=6, memory=PLENTY)
    sketched = PolicyGradients(policy, BATCH, temperature=1.0, max_tokens=100, held=6, memory=1025 * 6 * 4)
    assert whole.sketch is None
    assert sketched.sketch == 1025
    exact, about = (
        made.products(torch.cat([made.of(rows, ADVANTAGES)[0] for rows in GROUPS])) for made in (whole, sketched)
    )
    lengths = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.abs((about - exact) / lengths).max() < 4 / 1025**0.5
    assert np.abs((about - exact) / lengths).max() > 0


@pytest.mark.e2e
def test_one_process_and_two_have_the_same_products() -> None:
    """Whole gradients, and sketches of them, where replicas hold the same shards too."""

    def described(count: int, *settings: str) -> list[dict[str, Any]]:
        output = forked(count, "tests/alignment_processes.py", f"{PLENTY},{999 * 12 * 4}", *settings)
        (line,) = [line for line in output.splitlines() if line.startswith('{"measured"')]
        result = json.loads(line)
        assert result["sharded"] == (count > 1)
        measured: list[dict[str, Any]] = result["measured"]
        return measured

    alone, shared, replicated = described(1), described(2), described(2, "compute.replicas=2")
    assert [one["sketch"] is None for one in alone] == [True, False]
    for theirs, other in itertools.chain(zip(alone, shared, strict=True), zip(alone, replicated, strict=True)):
        assert other["sketch"] == theirs["sketch"]
        for got, wanted in zip(other["products"], theirs["products"], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
        assert other["metrics"] == pytest.approx(theirs["metrics"], rel=1e-4, abs=1e-4, nan_ok=True)
        assert other["cleared"]
