"""Critics are compared on the responses that all of them could read, token for token."""

import dataclasses

import pytest
import torch
from torch import Tensor

from vcppo.diagnosis.responses import Reading
from vcppo.diagnosis.shared_readings import rows_of, shared_readings
from vcppo.errors import DataError

LENGTHS = [2, 4, 3]  # of the dump's responses


def reading(critic: str, rows: list[int] | None, lengths: list[int] | None = None) -> Reading:
    """Values and tokens say which response they are of: 10 * row + column."""
    there = range(3) if rows is None else rows
    lengths = lengths or [LENGTHS[row] for row in there]
    columns = torch.arange(max(lengths))
    place = torch.tensor([10 * row for row in there])[:, None] + columns
    mask = columns < torch.tensor(lengths)[:, None]
    number = torch.tensor(list(there))
    return Reading(
        critic=critic,
        values=place.float(),
        returns=place.float(),
        response_mask=mask,
        scores=number.float(),
        problem=number,
        rows=None if rows is None else number,
        tokens=place,
    )


def live(x: Tensor | None, of: Reading) -> list[int]:
    assert x is not None
    return [int(number) for number in x[of.response_mask]]


def test_what_one_critic_could_not_read_is_left_out_for_all() -> None:
    """The longest response goes, so that all tensors become narrower, the tokens' too."""
    whole, part = shared_readings([reading("whole", None), reading("part", [0, 2])])
    for one in (whole, part):
        assert rows_of(one).tolist() == [0, 2]
        assert live(one.values, one) == live(one.tokens, one) == [0, 1, 20, 21, 22]
        assert one.values.shape == (2, 3)
        assert one.scores.tolist() == [0.0, 2.0]
    assert whole.notes == ("1 responses that not all critics can read are left out",)
    assert part.notes == ()


def test_critics_without_a_response_in_common_or_with_other_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="one, two: no response that all of them can read"):
        shared_readings([reading("one", [0]), reading("two", [1, 2])])
    with pytest.raises(DataError, match="two and one have other tokenizers"):
        shared_readings([reading("one", None), reading("two", None, [2, 4, 4])])


def test_critics_of_several_tokenizers_are_compared_where_all_begin_a_token() -> None:
    whole, part = reading("whole", None), reading("part", None, [2, 2, 1])
    columns = torch.tensor([[0, 1], [0, 3], [2, 0]])
    part = dataclasses.replace(part, columns=columns, tokens=None)
    for order in ([whole, part], [part, whole]):
        shared = {one.critic: one for one in shared_readings(order)}
        assert live(shared["whole"].values, shared["whole"]) == [0, 1, 10, 13, 22]
        assert live(shared["part"].values, shared["part"]) == [0, 1, 10, 11, 20]
        for one in shared.values():
            assert live(one.columns, one) == [0, 1, 0, 3, 2]
            assert one.response_mask.sum(dim=1).tolist() == [2, 2, 1]
            assert one.notes[-1].endswith("compared where all begin a token, at 5 of 9 tokens")


def test_as_many_tokens_in_other_places_are_not_taken_for_the_same() -> None:
    one = dataclasses.replace(reading("one", None, [2, 2, 2]), columns=torch.tensor([[0, 1], [0, 2], [0, 1]]))
    two = dataclasses.replace(reading("two", None, [2, 2, 2]), columns=torch.tensor([[0, 1], [0, 1], [0, 2]]))
    shared = shared_readings([one, two])
    assert [x.response_mask.sum(dim=1).tolist() for x in shared] == [[2, 1, 1], [2, 1, 1]]
