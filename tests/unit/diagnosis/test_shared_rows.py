"""Critics are compared on the responses that all of them could read, token for token."""

import pytest
import torch
from torch import Tensor

from vcppo.diagnosis.diagnose import rows_of, shared_rows
from vcppo.diagnosis.responses import Reading
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
    whole, part = shared_rows([reading("whole", None), reading("part", [0, 2])])
    for one in (whole, part):
        assert rows_of(one).tolist() == [0, 2]
        assert live(one.values, one) == live(one.tokens, one) == [0, 1, 20, 21, 22]
        assert one.values.shape == (2, 3)
        assert one.scores.tolist() == [0.0, 2.0]
    assert whole.notes == ("1 responses that not all critics can read are left out",)
    assert part.notes == ()


def test_critics_without_a_response_in_common_or_with_other_tokens_are_refused() -> None:
    with pytest.raises(DataError, match="one, two: no response that all of them can read"):
        shared_rows([reading("one", [0]), reading("two", [1, 2])])
    with pytest.raises(DataError, match="two and one have other tokenizers"):
        shared_rows([reading("one", None), reading("two", None, [2, 4, 4])])
