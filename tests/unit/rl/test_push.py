"""The push on the decision to stop, by pencil and against the law of the collapse."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tiny import random_batch, tiny
from transformers import PreTrainedTokenizerFast

from vcppo.maths.advantages import gae
from vcppo.maths.collapse_law import Chain, push_of_constant
from vcppo.rl.push import push_metrics
from vcppo.tasks import make_task
from vcppo.types import Generation, Prompt, Rollout, RolloutBatch, Verdict

SETTINGS = tiny("task.chain_length=30", "task.digits=3").task


def rollout(text: str, tokenizer: PreTrainedTokenizerFast, logprobs: list[float]) -> Rollout:
    tokens = tuple(tokenizer.convert_tokens_to_ids(text.split()))
    assert len(tokens) == len(logprobs)
    return Rollout(Prompt("p", "q", "a"), (1, 2), Generation(tokens, tuple(logprobs), "stop"), text, Verdict.WRONG)


def batch_of(rollouts: list[Rollout]) -> RolloutBatch:
    made = random_batch([len(one.generation.tokens) for one in rollouts])
    logprobs = torch.zeros(made.response_mask.shape)
    for row, one in enumerate(rollouts):
        logprobs[row, : len(one.generation.logprobs)] = torch.tensor(one.generation.logprobs)
    return dataclasses.replace(made, old_logprobs=logprobs)


def test_by_pencil_one_response_goes_on_and_stops_and_another_stops_at_once() -> None:
    task = make_task(SETTINGS)
    tokenizer = task.tokenizer()
    nine, quarter, half = math.log(0.9), math.log(0.25), math.log(0.5)
    rollouts = [
        rollout("#1 0 1 2 #2 1 2 3 = 1 2 3 <eos>", tokenizer, [half, 0, 0, 0, nine, 0, 0, 0, quarter, 0, 0, 0, 0]),
        rollout("#1 0 1 2 = 0 1 2 <eos>", tokenizer, [0, 0, 0, 0, half, 0, 0, 0, 0]),
        rollout("#1 #2 #3", tokenizer, [0, nine, nine]),  # not trained on
    ]
    batch = batch_of(rollouts)
    advantages = torch.full(batch.response_mask.shape, 100.0)
    advantages[0, [4, 8]], advantages[1, 4] = torch.tensor([3.0, 2.0]), 4.0
    got = push_metrics(rollouts, batch, torch.tensor([0, 1]), advantages, task, tokenizer)
    first, second = -3.0 * 0.1 + 2.0 * 0.75, 4.0 * 0.5  # what began the response is no decision
    assert got["policy/push"] == pytest.approx((first + second) / 2)
    assert got["policy/push_error"] == pytest.approx(abs(second - first) / 2)


def test_it_measures_what_the_law_predicts() -> None:
    """Responses drawn from the chain, a critic that says -2 everywhere: the push at lambda 0.95 within its error."""
    chain, task = Chain(30, 0.09), make_task(SETTINGS)
    tokenizer, rng = task.tokenizer(), np.random.default_rng(0)
    go, stop = math.log1p(-chain.hazard), math.log(chain.hazard)
    rollouts, scores = [], []
    for last in np.minimum(rng.geometric(chain.hazard, 1500), chain.lines).tolist():
        words = " ".join(f"#{i} 1 2 3" for i in range(1, last + 1)) + " = 1 2 3 <eos>"
        ends = 0.0 if last == chain.lines else stop
        logprobs = [0.0, 0.0, 0.0, 0.0, *[go, 0.0, 0.0, 0.0] * (last - 1), ends, 0.0, 0.0, 0.0, 0.0]
        rollouts.append(rollout(words, tokenizer, logprobs))
        scores.append(1.0 if last == chain.lines else -1.0)
    batch = batch_of(rollouts)
    mask = batch.response_mask
    at_end = torch.arange(mask.shape[1]) == batch.lengths[:, None] - 1
    rewards, values = torch.where(at_end, torch.tensor(scores)[:, None], 0.0), torch.full(mask.shape, -2.0)
    advantages = gae(rewards, values, mask, gamma=1.0, gae_lambda=0.95)
    got = push_metrics(rollouts, batch, torch.arange(len(rollouts)), advantages, task, tokenizer)
    assert got["policy/push_error"] < 0.03
    assert abs(got["policy/push"] - push_of_constant(chain, -2.0, 0.95)) < 3 * got["policy/push_error"]


def test_a_task_without_such_a_decision_and_no_rows_have_no_push() -> None:
    task = make_task(SETTINGS)
    tokenizer = task.tokenizer()
    rollouts = [rollout("#1 0 1", tokenizer, [0, 0, 0])]
    batch = batch_of(rollouts)
    silent = type("Silent", (), {})()
    assert push_metrics(rollouts, batch, torch.tensor([0]), torch.zeros(1, 3), silent, tokenizer) == {}
    none = torch.tensor([], dtype=torch.long)
    assert push_metrics(rollouts, batch, none, torch.zeros(1, 3), task, tokenizer) == {}
