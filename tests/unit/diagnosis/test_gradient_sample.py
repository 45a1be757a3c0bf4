"""Gradients of some of the responses, where those of all would take too long."""

import dataclasses

import torch
from tiny import new_policy, random_batch

from vcppo.diagnosis.alignment import measure_alignments
from vcppo.diagnosis.gradient_passes import GradientSettings
from vcppo.diagnosis.gradient_sample import drawn
from vcppo.diagnosis.responses import Reading
from vcppo.maths.advantages import monte_carlo_returns
from vcppo.rl.rewards import place_scores

SETTINGS = GradientSettings(temperature=1.0, max_tokens=2000, batch_size=48, chunks=16)


def test_prompts_are_drawn_with_all_their_responses_until_the_number_is_reached() -> None:
    problem = torch.arange(100) // 5
    rows = drawn(problem, 53, seed=0)
    assert len(rows) == 50
    assert rows.tolist() == sorted(rows.tolist())
    assert torch.unique(problem[rows], return_counts=True)[1].tolist() == [5] * 10
    assert not torch.equal(rows, drawn(problem, 53, seed=1))
    assert torch.equal(rows, drawn(problem, 53, seed=0))
    uneven = torch.tensor([0] * 30 + [1 + i // 2 for i in range(40)])
    assert len(drawn(uneven, 20, seed=0)) >= 16, "eight prompts, however many responses they have"


def test_of_few_prompts_responses_are_drawn() -> None:
    problem = torch.arange(90) // 30
    rows = drawn(problem, 24, seed=0)
    assert len(rows) == 24
    assert rows.tolist() == sorted(set(rows.tolist()))


def test_a_sample_is_measured_as_these_responses_alone_are_and_a_note_says_so() -> None:
    batch = random_batch([3, 4, 5, 6] * 20, seed=5, vocabulary=3)
    batch = dataclasses.replace(batch, group=torch.arange(80) // 4)
    policy = new_policy()
    values = 0.3 * torch.randn(batch.response_mask.shape, generator=torch.Generator().manual_seed(0))
    returns = monte_carlo_returns(place_scores(batch), batch.response_mask, gamma=1.0)
    whole = Reading("critic", values, returns, batch.response_mask, batch.scores, batch.group)
    (some,) = measure_alignments([whole], [0.9], policy, batch, dataclasses.replace(SETTINGS, responses=42))
    rows = drawn(batch.group, 42, SETTINGS.seed)
    (alone,) = measure_alignments([whole.take(rows)], [0.9], policy, batch.take(rows), SETTINGS)
    assert some.alignments == alone.alignments
    assert alone.notes == ()
    assert some.notes[0].startswith("gradients: of 40 of 80 responses, those to 10 prompts drawn at random")
    (everything,) = measure_alignments([whole], [0.9], policy, batch, dataclasses.replace(SETTINGS, responses=80))
    assert everything.notes == ()
