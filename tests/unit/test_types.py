"""A batch says what shape it wants, and can be cut down without losing anything."""

import dataclasses

import pytest
import torch
from tiny import random_batch

from vcppo.errors import ShapeError
from vcppo.seeding import rng_for, seed_for
from vcppo.types import cut_to


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scores", torch.zeros(3), r"RolloutBatch.scores: shape \(3,\), expected \(2,\)"),
        ("old_logprobs", torch.zeros(2, 4), r"RolloutBatch.old_logprobs: shape \(2, 4\), expected \(2, 3\)"),
        ("response_mask", torch.tensor([[True, False, True], [True, True, True]]), "a row has a hole"),
        ("prompt_lengths", torch.tensor([1, 0]), "an empty prompt"),
    ],
)
def test_a_field_that_does_not_fit_is_named(field: str, value: torch.Tensor, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        dataclasses.replace(random_batch([3, 2]), **{field: value})


def test_response_tokens_are_what_follows_the_prompt() -> None:
    batch = random_batch([3, 1], prompt_lengths=[2, 4])
    assert batch.response_tokens.tolist() == [batch.input_ids[0, 2:5].tolist(), [int(batch.input_ids[1, 4]), 0, 0]]


def test_taken_rows_are_the_same_rows_at_the_width_they_need() -> None:
    batch = random_batch([7, 2, 3])
    part = batch.take(torch.tensor([2, 1]))
    assert part.response_mask.shape == (2, 3)
    assert part.input_ids.shape[1] == int((part.prompt_lengths + part.lengths).max())
    assert part.lengths.tolist() == [3, 2]
    for new, old in enumerate([2, 1]):
        size = int(batch.prompt_lengths[old] + batch.lengths[old])
        assert part.input_ids[new, :size].tolist() == batch.input_ids[old, :size].tolist()
        assert part.old_logprobs[new].tolist() == batch.old_logprobs[old, :3].tolist()
        assert part.scores[new] == batch.scores[old]
    assert cut_to(batch.old_logprobs, torch.tensor([2, 1]), part).tolist() == part.old_logprobs.tolist()


def test_every_purpose_and_step_has_its_own_numbers_and_keeps_them() -> None:
    named = [(0, "rl", 0), (0, "rl", 1), (1, "rl", 0), (0, "pretrain", 0)]
    assert len({seed_for(*name) for name in named}) == 4
    assert all(0 <= seed_for(*name) < 2**63 for name in named)
    first, again = (torch.rand(3, generator=rng_for(0, "rl", 5)) for _ in range(2))
    assert torch.equal(first, again)
    # printf 0/rl/0 | sha256sum: 8 bytes, little-endian, halved; a run of last year must not change its draws
    assert seed_for(0, "rl", 0) == 475478065392703248
