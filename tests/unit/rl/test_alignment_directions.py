"""Chunks, baselines and the directions that are compared; the metric of an iteration."""

import math

import numpy as np
import pytest
import torch
from tiny import new_policy, random_batch

from vcppo.rl.alignment import (
    alignment_metrics,
    baseline_of,
    chunks_of,
    less_baseline,
    padded_to,
    tokens_to_come,
    truth_advantages,
)


def test_chunks_share_no_problem_and_are_of_about_one_size_in_any_order() -> None:
    problem = torch.arange(40).repeat_interleave(3)
    chunk = chunks_of(problem, 8)
    assert sorted(chunk.unique().tolist()) == list(range(8))
    assert all(len(chunk[problem == number].unique()) == 1 for number in range(40))
    assert chunk.bincount().max() - chunk.bincount().min() <= 3
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chunks_of(problem[order], 8), chunk[order])


def test_few_problems_are_divided_by_response() -> None:
    assert chunks_of(torch.zeros(6, dtype=torch.int64), 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert chunks_of(torch.arange(8), 64).tolist() == list(range(8))


def test_a_baseline_of_prompts_wants_four_responses_to_each() -> None:
    assert baseline_of(torch.arange(5).repeat_interleave(4)) == "prompt"
    assert baseline_of(torch.tensor([0, 0, 0, 0, 1, 1, 1])) == "position"


def test_by_pencil_baselines_of_other_chunks_at_the_position_and_of_others_to_the_prompt() -> None:
    mask = torch.tensor([[True, True], [True, False], [True, True], [True, False]])
    targets = torch.tensor([[1.0, 1.0], [3.0, 99.0], [5.0, 5.0], [9.0, 99.0]])
    problem, chunk = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 1, 1])
    by_position = less_baseline(targets, mask, problem, chunk, baseline="position")
    assert by_position.tolist() == [[1.0 - 7.0, 1.0 - 5.0], [3.0 - 7.0, 0.0], [5.0 - 2.0, 5.0 - 1.0], [9.0 - 2.0, 0.0]]
    by_prompt = less_baseline(targets, mask, problem, chunk, baseline="prompt")
    # where no other response to the prompt is as long, less the mean of its own tokens: 3, and 9
    assert by_prompt.tolist() == [[1.0 - 3.0, 1.0 - 3.0], [3.0 - 1.0, 0.0], [5.0 - 9.0, 5.0 - 9.0], [9.0 - 5.0, 0.0]]


def test_tokens_to_come_count_the_token_itself() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert tokens_to_come(mask).tolist() == [[3.0, 2.0, 1.0], [1.0, 0.0, 0.0]]


def test_a_constant_target_has_no_direction() -> None:
    batch = random_batch([5, 3, 4, 6])
    returns = torch.where(batch.response_mask, 2.0, 0.0)
    group = torch.tensor([0, 0, 1, 1])
    reward, _ = truth_advantages(returns, batch.response_mask, group, group, baseline="position")
    assert float(reward.abs().max()) == 0.0


def test_numbers_come_to_the_width_of_a_batch() -> None:
    batch = random_batch([3, 2])
    assert padded_to(batch, torch.ones(2, 2, 5)).shape == (2, 2, 3)
    assert padded_to(batch, torch.ones(2, 1)).tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def metrics(sign: float, lengths: list[int] | None = None) -> dict[str, float]:
    """Of returns that count small tokens, which any policy can learn to write."""
    batch = random_batch(lengths or [3, 4, 5, 6] * 40, seed=3)
    earned = torch.where(batch.response_mask, torch.where(batch.response_tokens < 10, 1.0, -1.0), 0.0)
    returns = earned.flip(1).cumsum(dim=1).flip(1) * batch.response_mask
    return alignment_metrics(
        new_policy(),
        batch,
        sign * returns,
        returns,
        temperature=1.0,
        max_tokens=2000,
        chunks=20,
        memory=2**30,
        rng=np.random.default_rng(0),
    )


def test_the_metric_of_advantages_that_are_the_returns_points_up_and_of_their_opposite_down() -> None:
    up, down = metrics(1.0), metrics(-1.0)
    assert up.keys() == {
        f"alignment/{name}"
        for name in ("score_change", "score_z", "reward_cosine", "length_change_tokens", "length_z", "length_cosine")
    }
    assert up["alignment/score_change"] > 0
    assert up["alignment/score_z"] > 2
    assert up["alignment/reward_cosine"] > 0.5
    assert down["alignment/score_change"] == pytest.approx(-up["alignment/score_change"], rel=1e-4)
    assert down["alignment/score_z"] < -2
    assert all(math.isfinite(x) for name, x in up.items() if "cosine" not in name)


def test_one_response_has_no_metric() -> None:
    assert metrics(1.0, [4]) == {}


def test_returns_that_differ_by_rounding_alone_have_no_direction() -> None:
    """As of a penalty that is still 0: which way its rounding points depends on the number of processes."""
    batch = random_batch([3, 4, 5, 6] * 10, seed=3)
    noise = torch.randn(batch.response_mask.shape, generator=torch.Generator().manual_seed(0))
    returns = torch.where(batch.response_mask, -1.0 + 1e-7 * noise, 0.0)
    rng = np.random.default_rng(0)
    result = alignment_metrics(
        new_policy(), batch, returns, returns, temperature=1.0, max_tokens=2000, chunks=20, memory=2**30, rng=rng
    )
    assert result["alignment/score_change"] == 0.0
    assert result["alignment/score_z"] == 0.0
    assert math.isnan(result["alignment/reward_cosine"])
