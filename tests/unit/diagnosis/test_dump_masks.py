"""What the policy did not write is cut away, and what remains is judged as it was."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcppo.diagnosis.dumps.masks import last_stretch
from vcppo.diagnosis.dumps.reading import read_dump
from vcppo.diagnosis.responses import Dump
from vcppo.errors import DataError


def read(folder: Path, **row: Any) -> Dump:
    path = folder / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "score": 1.0} | row) + "\n")
    return read_dump([path])


def test_padding_is_cut_from_all_that_is_one_a_token(tmp_path: Path) -> None:
    (response,) = read(
        tmp_path,
        response="r",
        tokens=[5, 6, 0, 0],
        response_mask=[1, 1, 0, 0],
        values=[0.1, 0.2, None, None],
        logprobs=[-1, -2, None, None],
        rewards=[0, 0.5, 0, 0],
    ).responses
    assert (response.prompt, response.text) == ("p", "r")
    assert (response.tokens, response.values) == ((5, 6), (0.1, 0.2))
    assert (response.logprobs, response.rewards) == ((-1, -2), (0, 0.5))


def test_a_mask_without_token_ids_cuts_padding(tmp_path: Path) -> None:
    (response,) = read(tmp_path, response="r", response_mask=[1, 0], values=[0.1, 0]).responses
    assert response.values == (0.1,)


def test_of_a_response_with_the_output_of_a_tool_the_last_stretch_is_measured_in_its_context(tmp_path: Path) -> None:
    dump = read(
        tmp_path,
        prompt="question",
        response="call result answer",
        prompt_tokens=[1, 2],
        tokens=[3, 4, 50, 51, 5, 6, 52, 0],
        response_mask=[1, 1, 0, 0, 1, 1, 0, 0],
        values=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8],
        rewards=[0.25, 0, 0, 0, 0, 0, 0.5, 0.25],
        logprobs=[-1, -1, None, None, -2, -3, None, None],
    )
    (response,) = dump.responses
    assert (response.prompt_tokens, response.tokens) == ((1, 2, 3, 4, 50, 51), (5, 6))
    assert (response.values, response.logprobs) == ((0.5, 0.6), (-2, -3))
    assert response.rewards == (0, 0.75)  # what the tool's output earned is to come for every token before it
    assert (response.prompt, response.text, response.score) == ("", None, 1.0)
    assert "tokens that the policy wrote before those stretches, left out: 2" in dump.notes
    assert any(note.endswith("measured with all before as its context: 1") for note in dump.notes)


def test_the_prompt_remains_the_problem_whatever_context_is_added(tmp_path: Path) -> None:
    row = {"prompt": "p", "score": 1, "prompt_tokens": [1], "tokens": [2, 3, 4]}
    path = tmp_path / "a.jsonl"
    masks = ([1, 1, 1], [1, 0, 1], [0, 1, 1])
    path.write_text("".join(json.dumps(row | {"response_mask": mask}) + "\n" for mask in masks))
    assert len({response.problem for response in read_dump([path]).responses}) == 1


@pytest.mark.parametrize("given_ids", [{}, {"tokens": [1, 2, 3]}, {"prompt_tokens": [1]}])
def test_foreign_tokens_inside_need_the_ids_of_all(given_ids: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match='line 1: "response_mask" has tokens that the policy did not write before others'
    ):
        read(tmp_path, response="r", response_mask=[1, 0, 1], **given_ids)


def test_a_response_that_the_policy_did_not_write_is_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no token in them was written by the policy: 1"):
        read(tmp_path, response="r", response_mask=[0, 0])


def test_rewards_without_a_score_are_summed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"prompt": "p", "tokens": [1, 2, 3], "token_rewards": [-0.25, 0.0, 1.0]}))
    dump = read_dump([path])
    assert dump.responses[0].score == 0.75
    assert "there is no score: the sum of a response's rewards is taken" in dump.notes


def test_a_score_that_is_summed_counts_what_was_earned_before_the_last_stretch(tmp_path: Path) -> None:
    row = {"prompt_tokens": [1], "tokens": [2, 3, 4, 5], "response_mask": [1, 0, 1, 0]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row | {"rewards": [0.25, 0, 0.5, None]}))
    (response,) = read_dump([path]).responses
    assert (response.score, response.rewards) == (0.75, (0.5,))


@given(st.lists(st.booleans()))
def test_the_last_stretch_is_all_written_and_nothing_follows_it(written: list[bool]) -> None:
    stretch = last_stretch(written)
    if stretch is None:
        assert not any(written)
        return
    assert stretch.start < stretch.end
    assert all(written[stretch.start : stretch.end])
    assert not any(written[stretch.end :])
    assert not stretch.start or not written[stretch.start - 1]
    assert stretch.outside + stretch.end - stretch.start == sum(written)
