"""Which responses the viewer offers, and that their numbers are those of the dump and the readings."""

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
import torch
from arithmetic import make_tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerFast

from vcppo.diagnosis.boundaries import boundaries
from vcppo.diagnosis.report.choosing import numbered, token_texts, viewer_data
from vcppo.diagnosis.responses import Dump, LoggedResponse, Reading

LAMBDAS = (0.95, 1.0)


def dump(count: int, length: int = 4, steps: tuple[int, ...] = ()) -> Dump:
    rows = tuple(
        LoggedResponse(
            problem=f"p{i}",
            score=float(i % 2),
            prompt=f"q{i}",
            step=steps[i % len(steps)] if steps else None,
            logprobs=(-0.5,) * length,
            line=i + 1,
        )
        for i in range(count)
    )
    return Dump("a file", "jsonl", rows)


def ids(count: int, length: int = 4) -> dict[int, range]:
    return {i: range(length) for i in range(count)}


def reading(
    values: list[list[float]], rows: torch.Tensor | None = None, columns: torch.Tensor | None = None
) -> Reading:
    table = pad_sequence([torch.tensor(row) for row in values], batch_first=True)
    mask = torch.arange(table.shape[1]) < torch.tensor([len(row) for row in values])[:, None]
    scores = torch.zeros(len(values))
    return Reading("c", table, table * 0, mask, scores, torch.arange(len(values)), rows=rows, columns=columns)


def test_half_are_the_furthest_from_returns_and_half_are_drawn() -> None:
    far = {3: 9.0, 7: 8.0, 11: 7.0}
    values = [[(i % 2) + far.get(i, 0.01)] * 4 for i in range(40)]
    made = viewer_data(dump(40), [reading(values)], ids(40), numbered, lambdas=LAMBDAS, seed=0, responses=6)
    lines = [one.line for one in made.responses]
    assert {4, 8, 12} <= set(lines)
    assert len(set(lines)) == 6
    assert made.note == "6 of 40 responses: 3 whose values are furthest from returns, and 3 drawn at random."
    again = viewer_data(dump(40), [reading(values)], ids(40), numbered, lambdas=LAMBDAS, seed=0, responses=6)
    assert lines == [one.line for one in again.responses]


def test_prompts_with_responses_in_several_iterations_can_be_followed_through_them() -> None:
    made = dump(120, steps=(0, 5, 10))
    asked = ["everywhere" if i % 40 in (1, 2, 3) else "twice" if i in (30, 31) else f"p{i}" for i in range(120)]
    rows = tuple(replace(one, problem=name) for one, name in zip(made.responses, asked, strict=True))
    shown = viewer_data(
        replace(made, responses=rows), [], ids(120), numbered, lambdas=LAMBDAS, seed=0, responses=12
    ).responses
    for step in (0, 5, 10):
        here = [one.problem for one in shown if one.step == step]
        assert here.count("everywhere") == 1, "one response to it in each iteration"
        assert len(here) == 4
    assert [one.step for one in shown if one.problem == "twice"] == [0, 5]


def test_iterations_share_the_places() -> None:
    made = viewer_data(dump(90, steps=(0, 5, 10)), [], ids(90), numbered, lambdas=LAMBDAS, seed=0, responses=10)
    assert [sum(one.step == step for one in made.responses) for step in (0, 5, 10)] == [3, 3, 4]
    assert made.note == "10 of 90 responses, drawn at random."


def test_tokens_are_bounded() -> None:
    made = viewer_data(dump(50), [], ids(50), numbered, lambdas=LAMBDAS, seed=0, tokens=19)
    assert len(made.responses) == 4
    assert viewer_data(dump(3), [], ids(3), numbered, lambdas=LAMBDAS, seed=0).note == "All 3 responses."


def test_numbers_are_those_of_dump_and_reading() -> None:
    given = dump(2)
    given = replace(given, responses=(replace(given.responses[0], rewards=(0.5, 0.0, 0.0, 1.0)), given.responses[1]))
    rows = reading([[1.0, 2.0, 3.0, 4.0]], rows=torch.tensor([1]))
    at = reading([[7.0, 8.0]], rows=torch.tensor([0]), columns=torch.tensor([[0, 3]]))
    first, second = viewer_data(given, [rows, at], ids(2), numbered, lambdas=LAMBDAS, seed=0).responses
    np.testing.assert_allclose(first.returns, [1.5, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(first.values[0], [np.nan] * 4)
    np.testing.assert_array_equal(first.values[1], [7.0, np.nan, np.nan, 8.0])
    np.testing.assert_array_equal(second.values[0], [1.0, 2.0, 3.0, 4.0])
    np.testing.assert_array_equal(second.returns, [1.0] * 4)
    assert (first.prompt, first.problem, first.line) == ("q0", "p0", 1)
    assert first.logprobs == (-0.5,) * 4


def test_values_of_other_tokens_are_not_shown_as_of_these() -> None:
    (one,) = viewer_data(dump(1), [reading([[1.0, 2.0]])], ids(1), numbered, lambdas=LAMBDAS, seed=0).responses
    np.testing.assert_array_equal(one.values[0], [np.nan] * 4)


def test_messages_are_shown_with_who_speaks() -> None:
    given = dump(1)
    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"})
    given = replace(given, responses=(replace(given.responses[0], prompt="", messages=messages),))
    (one,) = viewer_data(given, [], ids(1), numbered, lambdas=LAMBDAS, seed=0).responses
    assert one.prompt == "system: Be brief.\n\nuser: 1 + 1?"


@pytest.mark.parametrize("text", ["12 + 34 = 46", "é", "a € 𝄞 b", "\n\n  x", "", "\u05e9\u05dc\u05d5\u05dd"])
def test_texts_of_tokens_make_the_text(text: str) -> None:
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    result = token_texts(ids, tokenizer)
    assert len(result) == len(ids)
    assert "".join(result) == text


def test_special_and_unknown_tokens_have_a_name_and_half_a_character_is_seen() -> None:
    tokenizer = make_tokenizer()
    half = tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    end = tokenizer.eos_token_id
    assert token_texts([end, len(tokenizer) + 3, -1, *half], tokenizer) == (
        tokenizer.eos_token, f"<{len(tokenizer) + 3}>", "<-1>", "\ufffd")  # fmt: skip


def test_bytes_that_are_no_character_are_decoded_a_few_at_a_time() -> None:
    tokenizer, longest = make_tokenizer(), 0
    half = tokenizer("é", add_special_tokens=False)["input_ids"][:1]
    decode = type(tokenizer).decode

    class Counted:
        def __len__(self) -> int:
            return len(tokenizer)

        def decode(self, ids: list[int], **how: bool) -> str:
            nonlocal longest
            longest = max(longest, len(ids))
            text: str = decode(tokenizer, ids, **how)
            return text

    reader = cast(PreTrainedTokenizerFast, Counted())
    assert "".join(token_texts(half * 200, reader)) == "\ufffd" * 200
    assert any(place is not None for place in boundaries(half * 200, reader, "\ufffd" * 200)[100:])
    assert longest < 40
