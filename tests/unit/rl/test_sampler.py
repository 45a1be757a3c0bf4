"""From prompts to verified responses to tensors."""

from typing import cast

import pytest
import torch
from tiny import new_policy, random_batch, tiny

from vcppo.engines.base import Engine, Sampling
from vcppo.engines.torch.engine import TorchEngine
from vcppo.errors import DataError
from vcppo.models.forward import split_rows
from vcppo.rl.rewards import place_scores, verdict_scores
from vcppo.rl.sampler import Sampler, collate
from vcppo.settings.reward import RewardSettings
from vcppo.tasks import make_task
from vcppo.types import Generation, Rollout, StopReason, Verdict

WORTH = RewardSettings(correct=2.0, wrong=-1.0, unreadable=-3.0)


class Scripted:
    """An engine that says what it is told to."""

    def __init__(self, responses: list[Generation]) -> None:
        self.responses = responses

    def update_weights(self, policy: object) -> None: ...

    def generate(self, prompts: object, sampling: Sampling, *, seed: int, first: int) -> list[Generation]:
        return self.responses


def scripted(*texts: str) -> list[Rollout]:
    """One rollout a text, to held-out problems; a text without <eos> was cut. `{}` is the right response."""
    task = make_task(tiny().task)
    tokenizer = task.tokenizer()
    prompts = task.held_out_prompts()[: len(texts)]
    filled = [text.format(" ".join(prompt.answer)) for text, prompt in zip(texts, prompts, strict=True)]
    rows = tokenizer(filled)["input_ids"]
    stops: list[StopReason] = ["stop" if "<eos>" in text else "length" for text in filled]
    responses = [Generation(tuple(ids), (-0.5,) * len(ids), stop) for ids, stop in zip(rows, stops, strict=True)]
    sampler = Sampler(task, tokenizer, cast(Engine, Scripted(responses)), Sampling(1.0, 1.0, 99))
    return sampler.roll_out(prompts, seed=0)


def test_verdicts_are_worth_what_the_settings_say() -> None:
    rollouts = scripted("#1 1 1 = {} <eos>", "= # <eos>", "#1", "{} = 1 1 1 <eos>", "= {}")
    assert [r.verdict for r in rollouts] == [
        Verdict.CORRECT,
        Verdict.UNREADABLE,
        Verdict.UNREADABLE,
        Verdict.UNREADABLE,
        Verdict.CORRECT,  # cut responses are scored as they are
    ]
    assert verdict_scores(rollouts, WORTH).tolist() == [2.0, -3.0, -3.0, -3.0, 2.0]


def test_a_batch_of_responses_of_any_length_down_to_one_token() -> None:
    rollouts = scripted("<eos>", "#1 1 1 = {} <eos>", "#1")
    batch = collate(rollouts, verdict_scores(rollouts, WORTH))
    assert batch.lengths.tolist() == [1, 7, 1]
    assert batch.truncated.tolist() == [False, False, True]
    assert batch.prompt_lengths.tolist() == [4, 4, 4]
    assert batch.group.tolist() == [0, 1, 2]
    assert batch.old_logprobs[2].tolist() == [-0.5, 0, 0, 0, 0, 0, 0]
    assert place_scores(batch).tolist() == [[-3.0] + 6 * [0.0], 6 * [0.0] + [2.0], [-3.0] + 6 * [0.0]]


def test_scores_stand_on_the_last_generated_token_only() -> None:
    batch = random_batch([3, 5, 1])
    rewards = place_scores(batch)
    assert rewards.count_nonzero() == 3
    assert rewards[0, 2] == batch.scores[0]
    assert rewards[1, 4] == batch.scores[1]
    assert rewards[2, 0] == batch.scores[2]


def test_responses_to_one_prompt_are_a_group() -> None:
    task = make_task(tiny().task)
    first, second = task.held_out_prompts()[:2]
    tokenizer = task.tokenizer()
    sampler = Sampler(task, tokenizer, TorchEngine(new_policy()), Sampling(1.0, 1.0, task.max_tokens))
    rollouts = sampler.roll_out([first, first, second, second], seed=0)
    assert collate(rollouts, torch.zeros(4)).group.tolist() == [0, 0, 1, 1]
    assert rollouts[0].generation.tokens != rollouts[1].generation.tokens
    assert [r.prompt for r in rollouts] == [first, first, second, second]
    assert tuple(tokenizer(second.text)["input_ids"]) == rollouts[2].prompt_tokens


@pytest.mark.parametrize("bound", [1, 10, 37, 64, 1000])
def test_micro_batches_hold_every_row_once_and_fit(bound: int) -> None:
    lengths = torch.randint(1, 30, (50,), generator=torch.Generator().manual_seed(0))
    groups = list(split_rows(lengths, bound))
    assert sorted(torch.cat(groups).tolist()) == list(range(50))
    for rows in groups:
        assert len(rows) == 1 or len(rows) * int(lengths[rows].max()) <= bound
    cells = sum(len(rows) * int(lengths[rows].max()) for rows in groups)
    assert cells <= max(50 * 29, int(lengths.sum()))
    if bound == 1000:
        assert len(groups) == 1 or cells < 50 * 29  # rows of like length stand together


def test_a_verdict_in_a_plain_word_is_a_verdict_and_another_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything after it asks by `is`, and takes what is no Verdict for wrong."""
    task = type(make_task(tiny().task))
    monkeypatch.setattr(task, "judge", lambda self, texts, prompts: [("correct",) for _ in texts])
    rollouts = scripted("#1 1 1 = {} <eos>")
    assert verdict_scores(rollouts, WORTH).tolist() == [2.0]
    assert collate(rollouts, torch.zeros(1)).correct.tolist() == [True]
    monkeypatch.setattr(task, "judge", lambda self, texts, prompts: [("right",) for _ in texts])
    with pytest.raises(DataError, match="verdict = 'right', expected correct, wrong, unreadable, for response 1 of 1"):
        scripted("#1 1 1 = {} <eos>")
